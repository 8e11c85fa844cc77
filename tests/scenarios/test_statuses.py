"""One strict run of a suite in which each status, and each reason for it, occurs."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from pytest_arena.scenarios._specs import read_lock, read_specs
from tests.scenarios.projects import XDIST, Results, project

if TYPE_CHECKING:
    from pathlib import Path

    from tests.example import Example

RERUNS = ("-p", "pytest_rerunfailures", "--reruns", "0")

PROVEN = (
    "A pending battle is started",
    "A battle is not started twice",
    "A wide fixture has the battle",
    "A job ends all battles",
    "A unittest proves",
    "Changed rows prove",
    "A request prepares another",
    "Two judges are invited at once",
    "An unknown battle is not found",
    "It passes on its second try",
)
OTHERS = {
    "A job without a request is accepted": (
        "ASSERTED",
        "its test sends no request, as @no-request allows, so no answer can be made wrong",
    ),
    "It asserts nothing": ("HOLLOW", "1 Then step, 0 checks after the answer"),
    "It asserts what is always true": ("HOLLOW", "passes whatever the app answers"),
    "It checks one of two": ("HOLLOW", "2 Then steps, 1 check after the answer"),
    "It has an empty block": (
        "HOLLOW",
        "its test checks nothing for: Then it is PENDING (specs/battles.md:90)",
    ),
    "It seeds nothing": ("HOLLOW", "1 Given step, and no data, login or earlier request"),
    "It asserts before the answer": ("HOLLOW", "1 Then step, 0 checks after the answer"),
    "It sends no request": ("HOLLOW", "its test sends no request"),
    "Its request loses a write": (
        "HOLLOW",
        "POST /judges/{name} 200 wrote judges and never committed it: lost, cause: app.py:",
    ),
    "It fails by an error alone": ("HOLLOW", "an error stops it: IndexError"),
    "It cannot run twice": ("ASSERTED", "its test fails when it runs again: AssertionError"),
    "It opens a websocket": ("ASSERTED", "no answer of its When could be made wrong, such as that"),
    "Nobody tests it": ("UNMAPPED", "no test names it"),
    "It fails": ("FAILED", "assert [] == ['Sand'] (tests/test_not_ready.py:"),
    "It is a stub": ("FAILED", "this test is not written yet: ask the organisers"),
    "It is expected to fail": ("FAILED", "it is expected to fail: <script>issue 7"),
    "It is skipped": ("SKIPPED", "the judges decide in May"),
    "Its steps have changed": ("DRIFTED", "its steps have changed since the team accepted"),
    "Its gap is agreed": ("UNMAPPED", "no test names it"),
    "Its gap has ended": ("UNMAPPED", "no test names it; the agreed gap ended on 2020-01-01"),
}


def battles(folder: Path) -> Example:
    """Return the project, with the present steps of two scenarios in its lock file."""
    example = project("battles", folder)
    scenarios = read_specs(["specs"], example.write()).by_name
    for name, word in (("agreed", "is agreed"), ("ended", "has ended")):
        rev = scenarios[f"Its gap {word}"][0].revision
        example = example.change("scenarios.lock", f"REV_{name.upper()}", rev)
    return example


def test_an_assertion_of_a_library_is_no_evidence(tmp_path: Path) -> None:
    """Pytest compiles the packages of its plugins as it compiles tests."""
    plugin = 'import pytest\npytest.register_assert_rewrite("anyio", "anyio._backends")\n'
    # The variable needs a new interpreter. A fork has imported anyio.
    example = replace(battles(tmp_path), env={"PYTHONHASHSEED": "0"})
    example = example.with_paths({"conftest.py": plugin})
    assert Results.of(example, "-k", "no_assertion").facts("It asserts nothing")["assertions"] == []


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    folder = tmp_path_factory.mktemp("strict")
    return Results.of(
        battles(folder), *RERUNS, "--scenarios=strict", "--scenarios-out=html:page.html"
    )


@pytest.mark.parametrize("name", PROVEN)
def test_a_test_that_notices_a_broken_answer_proves(results: Results, name: str) -> None:
    assert results.statuses[name] == "PROVEN", results.reason(name)
    assert results.attempt(name)["sabotage"]["result"] == "noticed"


def test_a_check_of_rows_notices_that_nothing_is_written(results: Results) -> None:
    """Its request has an answer without a value that the test compares."""
    kinds = results.attempt("Changed rows prove")["sabotage"]["kinds"]
    assert kinds == {"wrong": False, "idle": True}


@pytest.mark.parametrize("name", OTHERS)
def test_each_other_status_has_its_reason(results: Results, name: str) -> None:
    status, reason = OTHERS[name]
    assert results.statuses[name] == status, results.reason(name)
    assert reason in results.reason(name)


def test_the_best_test_counts_unless_one_fails(results: Results) -> None:
    """A scenario may have several tests. One checks nothing, and the other one proves."""
    tests = {each["name"]: each["tests"] for each in results.document["scenarios"]}
    for name, status in (("A battle is not started twice", "PROVEN"), ("It fails", "FAILED")):
        assert (len(tests[name]), results.statuses[name]) == (2, status)


def test_the_run_fails_for_each_scenario_without_proof_or_gap(results: Results) -> None:
    """An agreed gap is accepted until its day."""
    accepted = {*PROVEN, "A job without a request is accepted", "Its gap is agreed"}
    failing = {each["name"] for each in results.document["scenarios"] if each["fails_strict"]}
    assert failing == results.statuses.keys() - accepted
    assert results.run.status == 1
    results.run.says(
        "scenarios: 10 of 30 proven, 3 asserted, 9 hollow, 1 skipped, 1 drifted, 3 failed, "
        "3 unmapped; this run fails, as 18 scenarios must be proven",
        "gap until 2999-12-31: tried by hand",
        "pytest --scenarios-stubs tests",
        "pytest --scenarios-accept",
    )


def test_replays_change_no_status(results: Results, tmp_path: Path) -> None:
    """P9. Both run tests again after the last one."""
    replayed = Results.of(battles(tmp_path), *RERUNS, "--scenarios=strict", "--arena-replay")
    assert replayed.statuses == results.statuses
    replayed.run.says("arena: replay", "POST /battles/{battle_id}/start")


def test_a_reason_is_text_on_the_page(results: Results) -> None:
    page = (results.run.folder / "page.html").read_text(encoding="utf-8")
    assert "<li>Check: no block says for which Then a check is</li>" in page
    assert "&lt;script&gt;issue 7" in page
    assert "<script>issue 7" not in page
    assert "<p>Why: this check does not hold: [] == [&#x27;Sand&#x27;] (tests/" in page
    assert "<p>Why: this test is not written yet: ask the organisers (tests/" in page
    assert "AssertionError" not in page
    assert page.index("Test fails: 2") < page.index("Proven: 10") < page.index("No test yet: 3")


def test_the_evidence_is_what_the_test_did(results: Results) -> None:
    facts = results.facts("A pending battle is started")
    assert facts["seeded"] == [
        {"source": "written by the test or its fixtures", "tables": ["battles"]}
    ]
    [request] = facts["requests"]
    assert request["changed"] == ["battles"]
    assert (request["method"], request["path"], request["status"]) == (
        "POST",
        "/battles/1/start",
        200,
    )
    texts = [check["text"] for check in facts["assertions"]]
    assert texts[1] == "response.json() == {'status': 'ACTIVE'}"
    places = [check["place"].partition(":")[0] for check in facts["assertions"]]
    assert {*places} == {"tests/test_proven.py"}
    steps = [(each["step"], each["assertions"]) for each in facts["steps"]]
    assert steps == [(0, 0), (1, 0), (2, 1), (3, 1)]


def test_rows_of_a_wide_fixture_have_its_name(results: Results) -> None:
    seeded = results.facts("A wide fixture has the battle")["seeded"]
    assert seeded == [{"source": "written for several tests by season", "tables": ["battles"]}]


def test_runs_with_broken_answers_are_not_reported(results: Results) -> None:
    """Only the first run of each test is counted."""
    results.run.expect(1, failed=2, passed=25, skipped=1, xfailed=1)


def test_workers_judge_as_one_process_does(results: Results, tmp_path: Path) -> None:
    parallel = Results.of(battles(tmp_path), *RERUNS, *XDIST, "--scenarios=strict")
    assert parallel.statuses == results.statuses
    assert parallel.run.status == 1


def test_a_report_proves_nothing_and_fails_nothing(tmp_path: Path) -> None:
    """Without broken answers a scenario is ASSERTED at most. arena_seed counts as a Given."""
    example = battles(tmp_path).change("pytest.ini", "[pytest]", "[pytest]\narena_seed = data:seed")
    deselect = "--deselect=tests/test_not_ready.py"
    results = Results.of(example, deselect, "--scenarios-out=html:page.html")
    page = (results.run.folder / "page.html").read_text(encoding="utf-8")
    assert "This run tried no wrong answers, so it proves nothing." in page
    assert "PROVEN" not in results.statuses.values()
    for name in ("A pending battle is started", "Changed rows prove"):
        assert results.statuses[name] == "ASSERTED"
    assert results.statuses["It seeds nothing"] == "ASSERTED"
    assert results.facts("It seeds nothing")["seeded"] == [
        {"source": "written for every test by data:seed", "tables": None}
    ]
    assert results.run.status == 0
    assert "sabotage" not in results.attempt("A pending battle is started")


def test_a_part_of_the_tests_is_judged_as_a_part(tmp_path: Path) -> None:
    example = battles(tmp_path)
    results = Results.of(example, "--scenarios=strict", "-k", "test_start or test_wide")
    results.run.expect(0, passed=2).says("partial run: ", "tests with a scenario deselected")
    results.run.says("scenarios: 2 of 2 proven").never_says("no test names it")
    example.run("-k", "test_x").expect(5).never_says("scenarios: ")
    example.run("--scenarios=strict", "-x").says("partial run: stopping after 1 failures")
    assert results.statuses["A pending battle is started"] == "PROVEN"
    assert results.statuses["A battle is not started twice"] == "NOT-RUN"
    assert results.statuses["Nobody tests it"] == "UNMAPPED"


@pytest.mark.parametrize("testpaths", [".", "./test*"])
def test_a_part_of_any_testpaths_is_partial(tmp_path: Path, testpaths: str) -> None:
    """Pytest reads testpaths as patterns, also the folder itself."""
    example = project("outlines", tmp_path).change("pytest.ini", "= tests", f"= {testpaths}")
    example.run("--scenarios=strict", "tests/test_paths.py").says(
        "partial run: tests/test_paths.py"
    )
    example.run("--scenarios=strict", "--lf").says("partial run: --lf")
    example.run("--scenarios=strict", "--pdb").says("--pdb would stop at each failure")
    assert "partial run" not in example.run("--scenarios=strict", ".").expect(0, passed=5).output


def test_shards_are_merged(tmp_path: Path) -> None:
    example = battles(tmp_path)
    shards = (["tests/test_wide.py"], ["tests/test_proven.py", "-k", "test_start"])
    for number, arguments in enumerate(shards):
        out = f"--scenarios-out=json:shard{number}.json"
        run = example.run("--scenarios=strict", out, *arguments).expect(0, passed=1)
        run.says(f"partial run: {arguments[0]}")
    files = ("shard0.json", "shard1.json")
    merged = Results.of(example, "--scenarios=strict", "--scenarios-merge", *files)
    assert merged.run.status == 1
    proven = {name for name, status in merged.statuses.items() if status == "PROVEN"}
    assert proven == {"A wide fixture has the battle", "A pending battle is started"}
    assert merged.statuses["A battle is not started twice"] == "NOT-RUN"
    example.run("--scenarios-out=json:report.json", *shards[0])
    mixed = Results.of(example, "--scenarios-merge", "report.json", files[1])
    assert not mixed.document["is_sabotaged"]
    other = example.change("specs/battles.md", "Then it says PENDING", "Then it says ACTIVE")
    refused = other.run("--scenarios-merge", *files)
    assert refused.status == 4
    refused.says("shard0.json cannot be merged", "of a run with other specifications")


def test_accepting_writes_the_steps_and_keeps_gaps(tmp_path: Path) -> None:
    accepted = battles(tmp_path).run("--scenarios-accept")
    assert accepted.status == 0
    accepted.says("scenarios.lock written")
    lock = read_lock(accepted.folder / "scenarios.lock")
    assert len(lock) == 30
    assert "Not ready :: It was renamed" not in lock
    assert lock["Not ready :: Its gap is agreed"].gap == "gap until 2999-12-31: tried by hand"


@pytest.mark.parametrize("option", ["--snapshot-update", "--inline-snapshot"])
def test_no_snapshot_is_updated_by_a_broken_answer(tmp_path: Path, option: str) -> None:
    """A run that updates snapshots breaks no answer."""
    plugin = f"def pytest_addoption(parser): parser.addoption({option!r}, nargs='?', const='fix')"
    example = battles(tmp_path).with_paths({"snapshots.py": plugin})
    run = example.run("-psnapshots", option, "--scenarios=strict", "tests/test_wide.py")
    run.says(
        "snapshots are updated, and would save broken answers",
        "1 of 1 asserted; this run fails, as 1 scenario must be proven",
    )


def test_a_gap_is_accepted_until_the_end_of_its_day(tmp_path: Path) -> None:
    today = datetime.now(tz=UTC).date()
    example = battles(tmp_path).change("scenarios.lock", "2020-01-01", f"{today}")
    results = Results.of(example, "--scenarios=strict", "-k", "test_wide")
    assert not results.scenario("Its gap has ended")["reason"].count("the agreed gap ended")


def test_a_login_prepares(tmp_path: Path) -> None:
    """The role of the only request may be all that its Given says."""
    login = "def login(client, role): ...\n\n\nasync def seed"
    example = battles(tmp_path).change("data.py", "async def seed", login)
    new = "async def test_no_seed(client_as):\n    client = client_as('guest')"
    example = example.change("tests/test_weak.py", "async def test_no_seed(client):", new)
    results = Results.of(example, "-oarena_login=data:login", "-k", "test_no_seed")
    assert results.statuses["It seeds nothing"] == "ASSERTED"


def test_an_answer_without_a_body_becomes_an_error(tmp_path: Path) -> None:
    """A test of a 204 can notice that."""
    old, new = '@app.post("/judges/{name}")', '@app.post("/judges/{name}", status_code=204)'
    example = battles(tmp_path).change("app.py", old, new)
    old = 'client.post("/battles/7/start")).status_code == 404'
    new = 'client.post("/judges/Bo")).status_code == 204'
    example = example.change("tests/test_proven.py", old, new)
    results = Results.of(example, "--scenarios=strict", "-k", "test_unknown")
    assert results.statuses["An unknown battle is not found"] == "PROVEN"


def test_an_assertion_of_the_app_is_no_check(tmp_path: Path) -> None:
    """The app stops the test, which checks nothing."""
    old = 'if name == "Ann":\n        raise HTTPException(409)'
    example = battles(tmp_path).change("app.py", old, 'assert name == "Bo"')
    old = "assert response.status_code < 600"
    new = """assert response.status_code < 600
    await client.post(f"/judges/{response.json()[0]['name'].replace('Sand', 'Bo') or 'Cy'}")"""
    example = example.change("tests/test_weak.py", old, new)
    results = Results.of(example, "--scenarios=strict", "-k", "test_always_true")
    assert results.statuses["It asserts what is always true"] == "HOLLOW"


def test_a_worker_says_which_tests_were_left_out(tmp_path: Path) -> None:
    """Else a strict run would demand them."""
    example = battles(tmp_path)
    run = example.run(*XDIST, "--scenarios=strict", "-k", "test_twice").expect(0, passed=1)
    run.says("partial run: ", "with a scenario deselected")

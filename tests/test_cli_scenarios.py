"""Does `arena scenarios` say what there is, what of it has a test, and what has been agreed to?"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.command import arena as call_arena

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Arena = Callable[..., tuple[int, str, str]]

SPEC = """\
# Battles

## BR-BTL-001: starting

```gherkin
Feature: Battles

@BTL-1
Scenario: Start
  Given a battle exists with status PENDING
  When I POST to /battles/{battle_id}/start
  Then the battle status should change to ACTIVE

Scenario: Stop
  When I POST to /battles/{battle_id}/stop
  Then it is over
```
"""
TESTS = """\
import pytest

@pytest.mark.scenario("@BTL-1")
def test_start():
    pass

@pytest.mark.scenario("Stop")
def test_stop():
    pass
"""
INI = """\
[pytest]
addopts = -p pytest_arena.plugin
arena_specs = docs/*.md
"""
CALL = "import sys; from pytest_arena._cli import main; sys.exit(main())"
COMMANDS = ("list", "check", "stubs", "accept", "explain", "merge", "report")


def a_project(folder: Path) -> Path:
    """Two scenarios in Markdown, and a test for each."""
    for name, text in {
        "pytest.ini": INI,
        "docs/battles.md": SPEC,
        "tests/test_battles.py": TESTS,
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project, in which the command is called."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    monkeypatch.chdir(a_project(tmp_path))
    return tmp_path


@pytest.fixture
def arena() -> Arena:
    """Calls the command. Returns its exit status, its output and its errors."""

    def call(*words: str) -> tuple[int, str, str]:
        called = call_arena("scenarios", *words)
        return called.status, called.output, called.errors

    return call


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the documents of two shards of one suite."""
    folder = a_project(tmp_path_factory.mktemp("shards"))
    for name in ("start", "stop"):
        test = f"tests/test_battles.py::test_{name}"
        command = [sys.executable, "-m", "pytest", test, f"--scenarios-out=json:{name}.json"]
        run = subprocess.run(
            command,
            cwd=folder,
            env={"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PATH": ""},
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, run.stdout + run.stderr
    return folder


def test_what_is_listed_stands_at_its_line(arena: Arena, project: Path) -> None:
    """Of the project's own specifications, or of paths that need no project."""
    told = [
        "Feature: Battles",
        "  docs/battles.md:9   3 steps  Start [BR-BTL-001]",
        "  docs/battles.md:14  2 steps  Stop [BR-BTL-001]",
        "1 feature, 2 scenarios, 5 steps in 1 file",
    ]
    assert arena("list") == (0, "\n".join(told) + "\n", "")
    (project / "pytest.ini").unlink()
    for path in ("docs", "docs/battles.md", "**/*.md", str(project / "docs" / "battles.md")):
        assert arena("list", path) == (0, "\n".join(told) + "\n", "")


def test_what_is_wrong_is_listed_once(arena: Arena, project: Path) -> None:
    """Where no scenario is left by it as well: the error does not say it again."""
    path = project / "docs" / "battles.md"
    path.write_text(SPEC.replace("```gherkin", "```"), "utf-8")
    status, output, errors = arena("list")
    assert status == 1
    assert "docs/battles.md:9: 'Scenario: Start' looks like a scenario" in output
    assert "cause: the problems above" in errors


def test_json_stands_alone_on_stdout(arena: Arena, project: Path) -> None:
    """Problems are in it, and the exit status is 0 where scenarios were found."""
    path = project / "docs" / "battles.md"
    path.write_text(SPEC.replace("When I POST to /battles/{battle_id}/stop", "Whan"), "utf-8")
    status, output, errors = arena("list", "--json", "docs")
    document = json.loads(output)
    assert (status, errors) == (0, "")
    assert document["schema"] == 1
    assert {(problem["spec"]) for problem in document["problems"]} == {"docs/battles.md"}
    (start, *_) = document["scenarios"]
    assert (start["name"], start["rule"], start["line"]) == ("Start", "BR-BTL-001", 9)
    assert [step["line"] for step in start["steps"]] == [10, 11, 12]
    assert str(project) not in output


@pytest.mark.slow
def test_json_is_utf_8_wherever_it_is_written(project: Path) -> None:
    """A terminal of another encoding takes no letter away."""
    (project / "docs" / "battles.md").write_text(
        SPEC.replace("ACTIVE", "\u041f\u0443\u0441\u043a"), "utf-8"
    )
    run = subprocess.run(
        [sys.executable, "-c", CALL, "scenarios", "list", "--json"],
        env={"PYTHONIOENCODING": "ascii", "PATH": ""},
        capture_output=True,
        check=True,
    )
    assert "\u041f\u0443\u0441\u043a" in run.stdout.decode("utf-8")


@pytest.mark.parametrize("paths", [["nowhere/*.md"], ["empty.md"], ["docs", "nowhere.md"]])
def test_to_find_no_scenario_is_an_error(arena: Arena, project: Path, paths: list[str]) -> None:
    """Exit status 1, and the JSON says so as well."""
    (project / "empty.md").write_text("# Nothing\n", "utf-8")
    status, _, errors = arena("list", *paths)
    assert status == 1
    assert "[A801]" in errors
    status, output, _ = arena("list", "--json", *paths)
    assert status == 1
    assert json.loads(output)["problems"]


def test_without_paths_and_arena_specs_it_is_said_how(arena: Arena, project: Path) -> None:
    """That is a wrong use: exit status 2."""
    (project / "pytest.ini").write_text("[pytest]\n", "utf-8")
    status, output, errors = arena("list")
    assert (status, output) == (2, "")
    assert "arena_specs = docs/**/*.md" in errors


def test_a_list_needs_neither_pytest_nor_sqlalchemy(project: Path) -> None:
    """It is there at once, and in an environment where these are broken."""
    code = (
        "import sys\n"
        "sys.modules.update(dict.fromkeys(['sqlalchemy', 'pytest', '_pytest']))\n"
        "from pytest_arena._cli import main\n"
        "sys.exit(main(['scenarios', 'list', '--json']))\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert len(json.loads(run.stdout)["scenarios"]) == 2


def test_check_collects_and_runs_nothing(arena: Arena, project: Path) -> None:
    """It fails for what is DRIFTED and UNMAPPED; its arguments are pytest's."""
    more = SPEC.replace("Scenario: Stop", "Scenario: More\n  Then there is more\n\nScenario: Stop")
    (project / "docs" / "battles.md").write_text(more, "utf-8")
    tests = TESTS.replace("    pass", "    raise SystemExit('run')")
    (project / "tests" / "test_battles.py").write_text(tests, "utf-8")
    (project / "scenarios.lock").write_text("Battles :: Stop  1:00000000\n", "utf-8")
    status, output, errors = arena("check", "-p", "no:cacheprovider")
    assert (status, errors) == (1, "")
    assert "  docs/battles.md:14  UNMAPPED   More  " in output
    assert "  docs/battles.md:17  DRIFTED    Stop  " in output
    assert "scenarios: 2 of 3 with a test, 1 unmapped, 1 drifted;" in output
    assert "2 gaps" in output
    assert "NOT-RUN" not in output


def test_check_passes_where_each_scenario_has_a_test(arena: Arena, project: Path) -> None:
    """What the tests prove is another question."""
    told = "scenarios: 2 of 2 with a test\n"
    assert arena("check") == (0, told, "")


def test_check_tells_what_pytest_says_of_wrong_arguments(arena: Arena, project: Path) -> None:
    """With its exit status for them."""
    status, output, errors = arena("check", "--bogus")
    assert (status, output) == (2, "")
    assert "unrecognized arguments: --bogus" in errors
    assert "pytest could not begin to collect" in errors


def test_check_fails_where_a_module_cannot_be_collected(arena: Arena, project: Path) -> None:
    """Its markers are not known: nothing is complete then."""
    (project / "tests" / "test_broken.py").write_text("import no_such_module\n", "utf-8")
    status, output, errors = arena("check")
    assert status == 1
    assert "tests/test_broken.py: could not be collected" in output
    assert "No module named 'no_such_module'" in errors


def test_accept_writes_a_line_for_each_scenario_and_keeps_gaps(arena: Arena, project: Path) -> None:
    """What has changed is named. No test is collected."""
    (project / "tests" / "test_battles.py").write_text("raise SystemExit('run')", "utf-8")
    assert arena("accept", "--all")[1].splitlines() == [
        "new: @BTL-1  docs/battles.md:9",
        "new: Battles :: Stop  docs/battles.md:14",
        "scenarios.lock written",
    ]
    path = project / "scenarios.lock"
    gap = "gap until 2999-12-31: by hand"
    lock = path.read_text("utf-8")
    path.write_text(lock.rstrip() + f"  {gap}\n", "utf-8")
    changed = SPEC.replace("it is over", "it has stopped")
    (project / "docs" / "battles.md").write_text(changed, "utf-8")
    output = arena("accept", "Stop")[1]
    assert output == "changed: Battles :: Stop  docs/battles.md:14\nscenarios.lock written\n"
    lines = path.read_text("utf-8").splitlines()
    assert len(lines) == len(lock.splitlines())
    assert lines[-1].startswith("Battles :: Stop  1:")
    assert lines[-1].endswith(gap)


def test_accept_does_not_overwrite_a_malformed_lock(arena: Arena, project: Path) -> None:
    """It may have gaps."""
    text = "<<<<<<< HEAD\n"
    (project / "scenarios.lock").write_text(text, "utf-8")
    status, _, errors = arena("accept", "--all")
    assert status == 1
    assert "scenarios.lock:1 is not a valid line" in errors
    assert (project / "scenarios.lock").read_text("utf-8") == text


@pytest.mark.slow
def test_all_tests_are_seen_from_a_subfolder(
    arena: Arena, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There are none in it: they would be gone from the lock file, and no scenario had one."""
    monkeypatch.chdir(project / "docs")
    assert "new: @BTL-1" in arena("accept", "@BTL-1")[1]
    assert (project / "scenarios.lock").is_file()
    assert "2 of 2 with a test" in arena("check")[1]
    assert "0 of 2 with a test" in arena("check", ".")[1]


OUTLINE = """\
Feature: Prices
Scenario Outline: A price
  Then <amount> costs <price>
  Examples:
    | amount | price |
    | 1      | 5     |
    | 10     | 45    |
"""
ROWS = """\
import pytest

@pytest.mark.scenario("A price")
@pytest.mark.parametrize(("amount", "price"), [(1, 5)])
def test_price(amount, price):
    pass
"""


@pytest.mark.slow
def test_rows_that_no_test_names_fail_a_check(arena: Arena, project: Path) -> None:
    """A strict run would not let them pass: better known before."""
    (project / "docs" / "battles.md").write_text(f"```gherkin\n{OUTLINE}```\n", "utf-8")
    tests = project / "tests" / "test_battles.py"
    tests.write_text(ROWS, "utf-8")
    status, output, _ = arena("check")
    assert status == 1
    assert "0 of 1 with a test, 1 partial; 1 gap" in output
    assert "1 of 2 rows have a test, but not: amount=10, price=45" in output
    tests.write_text(ROWS.replace("(1, 5)", "(1, 5), (10, 45)"), "utf-8")
    status, output, _ = arena("check")
    assert (status, output) == (0, "scenarios: 1 of 1 with a test\n")


def test_what_was_not_run_is_not_explained_as_not_run(arena: Arena, project: Path) -> None:
    """One has run it just now, and would think that the marker does nothing."""
    assert project.is_dir()
    told = arena("explain", "Start")[1]
    assert "has 1 test. This command runs no test. --json FILE shows" in told


@pytest.mark.slow
def test_a_dry_run_writes_nothing_and_twice_changes_nothing(arena: Arena, project: Path) -> None:
    """What is accepted is shown all the same."""
    dry = arena("accept", "--dry-run", "Start")[1].splitlines()
    assert dry == ["new: @BTL-1  docs/battles.md:9", "scenarios.lock would be written"]
    assert not (project / "scenarios.lock").exists()
    assert arena("accept", "@BTL-1")[1].splitlines()[-1] == "scenarios.lock written"
    assert arena("accept", "Start")[1].splitlines() == ["scenarios.lock is up to date"]


def test_a_file_that_cannot_be_written_is_named(arena: Arena, project: Path) -> None:
    """With the system's reason."""
    (project / "scenarios.lock").mkdir()
    status, _, errors = arena("accept", "Start")
    assert status == 1
    assert "scenarios.lock" in errors


def test_accept_names_what_is_like_a_wrong_name(arena: Arena, project: Path) -> None:
    """Nothing is written then."""
    status, _, errors = arena("accept", "Strat")
    assert status == 1
    assert "no scenario is called 'Strat'" in errors
    assert "Start" in errors
    assert not (project / "scenarios.lock").exists()


@pytest.mark.parametrize("words", [["accept"], ["accept", "Start", "--all"], ["list", "--bogus"]])
def test_wrong_words_are_a_wrong_use(arena: Arena, project: Path, words: list[str]) -> None:
    """Exit status 2."""
    assert arena(*words)[0] == 2


@pytest.mark.slow
def test_explain_says_all_of_one(arena: Arena, documents: Path, project: Path) -> None:
    """Its steps, what its test did, what to do next."""
    shutil.copy(documents / "start.json", project)
    status, output, _ = arena("explain", "start", "--json", "start.json")
    assert status == 1
    status, output, _ = arena("explain", "Start", "--json", "start.json")
    assert status == 0
    for text in (
        "  docs/battles.md:9  BR-BTL-001 Battles",
        "     10  Given a battle exists with status PENDING",
        "tests/test_battles.py::test_start",
        "next: ",
    ):
        assert text in output


def test_explain_collects_where_no_run_is_given(arena: Arena, project: Path) -> None:
    """And says how to have one."""
    status, output, _ = arena("explain", "@BTL-1")
    assert status == 0
    assert "tests/test_battles.py::test_start" in output
    assert "--scenarios-out=json:scenarios.json" in output


@pytest.mark.slow
def test_shards_are_judged_as_one(arena: Arena, documents: Path, project: Path) -> None:
    """With --strict what none of them has run is a gap."""
    for name in ("start.json", "stop.json"):
        shutil.copy(documents / name, project)
    status, output, _ = arena("merge", "start.json", "stop.json", "--out", "json:all.json")
    assert status == 0
    assert "scenarios as JSON written to all.json" in output
    merged = json.loads((project / "all.json").read_text("utf-8"))
    assert all(one["status"] not in {"NOT-RUN", "UNMAPPED"} for one in merged["scenarios"])
    assert arena("merge", "--strict", "start.json", "stop.json")[0] == 1
    status, output, _ = arena("merge", "--strict", "start.json")
    assert status == 1
    assert "UNMAPPED   Stop" in output
    assert "partial" not in output


@pytest.mark.slow
def test_a_merge_without_the_file_of_a_job_asks_for_it(
    arena: Arena, documents: Path, project: Path
) -> None:
    """The scenario may have a test: the job that collected it is not among the files."""
    for name in ("start.json", "stop.json"):
        shutil.copy(documents / name, project)
    _, output, _ = arena("merge", "--strict", "start.json")
    assert "Stop  no test of the merged runs names it" in output
    asked = "next: name the JSON file of each CI job: only start.json was merged"
    assert next(line for line in output.splitlines() if line.startswith("next: ")) == asked
    _, output, _ = arena("merge", "--strict", "start.json", "stop.json")
    assert "CI job" not in output


@pytest.mark.slow
def test_report_makes_outputs_of_a_document(arena: Arena, documents: Path, project: Path) -> None:
    """Where the command is called; the specifications are the project's."""
    (project / "ci").mkdir()
    shutil.copy(documents / "start.json", project / "ci")
    words = ("--html", "page.html", "--md", "a, b.md", "--out", "messages:a.ndjson")
    status, output, _ = arena("report", "ci/start.json", *words)
    assert status == 0
    assert output.splitlines() == [
        "scenarios as Cucumber messages written to a.ndjson",
        "scenarios as a page written to page.html",
        "scenarios as Markdown written to a, b.md",
    ]
    assert "BR-BTL-001: starting" in (project / "page.html").read_text("utf-8")
    assert "scenarios: 0 of 2 proven" in arena("report", "ci/start.json")[1]


@pytest.mark.parametrize("text", [None, "{", '{"schema": 99}', "\udcff", "[]"])
def test_a_document_that_is_none_is_named(arena: Arena, project: Path, text: str | None) -> None:
    """Without a traceback, with one exit status: a missing file is no worse than a broken one."""
    if text is not None:
        (project / "bad.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    for words in (("merge",), ("report",), ("explain", "Start", "--json")):
        status, _, errors = arena(*words, "bad.json")
        assert status == 2
        assert "bad.json" in errors
        for part in ("\n  why:", "\n  cause:", "\n  next:"):
            assert part in errors


def test_an_output_that_cannot_be_written_is_named_by_the_commands_option(
    arena: Arena, project: Path
) -> None:
    """`arena scenarios` has no `--scenarios-out`."""
    (project / "run.json").write_text(arena("list", "--json")[1], "utf-8")
    for words in (["merge", "--out", "html:pytest.ini/x"], ["report", "--html", "pytest.ini/x"]):
        status, _, errors = arena(*words, "run.json")
        assert status == 2
        assert "cause: --out html:pytest.ini/x" in errors
        assert "next:  --out html:scenarios.html" in errors
    status, _, errors = arena("merge", "--out", "yaml:x", "run.json")
    assert status == 2
    assert errors.startswith("--out: 'yaml' is not an output format")


@pytest.mark.parametrize("words", [["check"], ["accept", "--all"], ["explain", "Start"]])
def test_without_arena_specs_the_next_step_is_to_set_it(
    arena: Arena, project: Path, words: list[str]
) -> None:
    """These commands take no paths: a list of some files would not help."""
    (project / "pytest.ini").write_text("[pytest]\n", "utf-8")
    status, _, errors = arena(*words)
    assert status == 2
    assert "next:  arena_specs = docs/**/*.md   in pytest's configuration" in errors


@pytest.mark.parametrize("verb", COMMANDS)
def test_each_verb_says_its_exit_statuses(arena: Arena, verb: str) -> None:
    """In its help."""
    status, output, _ = arena(verb, "--help")
    assert status == 0
    assert "exit status: 0, 1 if" in output


@pytest.mark.slow
def test_without_the_extra_one_line_says_what_to_install(
    arena: Arena, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a run, and by each verb: a specification that is passed over would look green."""
    code = "import sys; sys.modules['gherkin'] = None; import pytest; sys.exit(pytest.main())"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 4
    monkeypatch.setitem(sys.modules, "gherkin", None)
    status, _, errors = arena("list")
    assert status == 2
    for told in (run.stderr, errors):
        assert "scenarios need libraries that are not installed: gherkin-official" in told
        assert 'pip install "pytest-arena[scenarios]"' in told
    assert "pytest.ini" in run.stderr

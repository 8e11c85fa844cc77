"""A test that stays green though what it is about was broken is hollow, and nobody is misled."""

from __future__ import annotations

import dataclasses
import json
import os
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

import pytest

from tests.plugin.private_server import on_postgresql, private_server
from tests.scenarios.proving import RERUNS, XDIST, project, told
from tests.scenarios.sabotaged import (
    FOREIGN,
    HONEST,
    ODD,
    ODD_RESULTS,
    RESULTS,
    TWINS,
    WIDE,
    results,
    sabotaged,
    suite,
)

if TYPE_CHECKING:
    from pathlib import Path

    from tests.example import Example
    from tests.scenarios.proving import Told

ALL = (HONEST, TWINS, FOREIGN, WIDE)
SILENT = ("--scenarios=strict", "--junitxml=junit.xml", "-o", "arena_keep=failed", "-v")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """One run of the honest tests and their twins."""
    return sabotaged(suite(tmp_path_factory.mktemp("sabotage"), *ALL), *SILENT)


@pytest.mark.slow
def test_each_twin_survives_its_kind_and_honest_tests_notice_all(found: Told) -> None:
    """By our clients, sync ones, foreign ones, with rows of a wide fixture, with expect_changes."""
    assert results(found) == RESULTS


def test_who_survives_is_hollow_and_who_notices_is_proven(found: Told) -> None:
    """The reason names the sabotage, and the strict run fails."""
    expected = {name: "HOLLOW" if "S" in one else "PROVEN" for name, one in RESULTS.items()}
    assert found.statuses == expected
    assert "its seed removed" in found.reason("ignores_its_seed")
    assert "commit rolled back" in found.reason("believes_the_answer")
    assert "answer emptied" in found.reason("looks_at_the_status_alone")
    assert "turned into a 500" in found.reason("looks_at_the_body_alone")
    found.run.expect(1, passed=len(RESULTS))


def test_why_it_was_noticed_is_the_first_line_of_the_failure(found: Told) -> None:
    """So that a reader sees by which assertion."""
    [test] = found.scenarios["honest"]["tests"]
    whys = [one["why"] for one in test["sabotages"]]
    assert "['Sand', 'Ann'] == ['Sand', 'Row', 'Ann']" in whys[0]
    assert whys[-1] == "assert 500 == 200"
    assert not any("\n" in why for why in whys)


def test_nothing_else_tells_of_tests_that_were_run_again(found: Told) -> None:
    """No result, no report, no cache of failures, no kept database; one line of the summary."""
    tests = len(RESULTS)
    runs = sum(1 + sum(letter != "-" for letter in one) for one in RESULTS.values())
    found.run.says(f"sabotage: {tests} tests run again {runs} times in ")
    found.run.says(f"{tests} of {tests} tests had a separate database")
    assert not (found.run.folder.parent / "cache" / "kept").exists()
    found.run.never_says("warnings summary", "was kept", "Traceback", "ERROR")
    cases = list(ET.parse(found.run.folder / "junit.xml").iter("testcase"))  # noqa: S314 - our own
    assert len(cases) == tests
    assert not any(case.find(kind) is not None for case in cases for kind in ("failure", "error"))
    cache = found.run.folder / ".pytest_cache" / "v" / "cache" / "lastfailed"
    assert not cache.exists() or not json.loads(cache.read_text())


_THEN = """
import pytest


@pytest.mark.scenario("after")
async def test_after(client):
    answer = await client.get("/dancers")
    assert answer.status_code == 200
    assert answer.json() == ["Sand"]
"""


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """One run of tests that cannot be broken like all others."""
    return sabotaged(suite(tmp_path_factory.mktemp("odd"), ODD), "--scenarios=report")


@pytest.mark.skipif(pytest.version_tuple < (9,), reason="subtests are pytest 9's own")
@pytest.mark.slow
def test_what_cannot_be_broken_or_run_again_is_said_and_never_counts_as_noticed(odd: Told) -> None:
    """Answers without a body, refusals, websockets, requests at once, logins, skips, Hypothesis."""
    assert results(odd) == ODD_RESULTS
    odd.run.expect(0, passed=len(ODD_RESULTS))


@pytest.mark.slow
def test_a_test_that_fails_whenever_it_is_run_again_has_noticed_nothing(odd: Told) -> None:
    """It is run once with nothing broken, for comparison."""
    assert "fails in a last run, without sabotage" in odd.reason("only_the_first_time")
    assert odd.statuses["only_the_first_time"] == "UNKNOWN"


@pytest.mark.slow
def test_a_failure_of_the_tear_down_alone_is_no_notice(odd: Told) -> None:
    """The fixture of the test failed, whatever the test asserts."""
    reason = odd.reason("ignores_what_its_tear_down_refreshes")
    assert "it may not notice its seed removed: tear-down: " in reason


@pytest.mark.slow
def test_subtests_and_warnings_of_broken_tests_are_not_reported(odd: Told) -> None:
    """Both go to the terminal whoever runs the test."""
    assert "subtests" in odd.reason("subtests")
    odd.run.never_says("there is no body", "SUBFAIL", "warnings summary")


def test_a_test_without_evidence_is_not_run_again(tmp_path: Path) -> None:
    """It is HOLLOW already."""
    idle = "async def test_idle(client, row):\n    await client.get('/dancers')\n"
    found = sabotaged(suite(tmp_path, idle))
    assert found.statuses == {"idle": "HOLLOW"}
    assert found.reason("idle") == "no assertion after GET /dancers"
    found.run.says("sabotage: no test to run again")


@pytest.mark.slow
def test_workers_break_their_own_tests(tmp_path: Path) -> None:
    """Results travel to the controller; its line adds up what they did."""
    found = sabotaged(suite(tmp_path, HONEST, TWINS), *XDIST, "-n2")
    expected = {name: RESULTS[name] for name in results(found)}
    assert results(found) == expected
    found.run.says(f"sabotage: {len(expected)} tests run again ")
    found.run.never_says(" in 0.0 s")


@pytest.mark.slow
def test_a_rerun_does_not_follow_a_failure_that_is_wanted(tmp_path: Path) -> None:
    """Nor does the plugin for that keep the fixtures of a test that was broken."""
    example = suite(tmp_path, WIDE).with_files(test_then=_THEN)
    feature = example.files["specs/stories.feature"] + "\n  Scenario: after\n    When it is over\n"
    example = example.with_paths({"specs/stories.feature": feature})
    found = sabotaged(example, *RERUNS, "--reruns=2")
    expected = {name: one for name, one in RESULTS.items() if name.startswith("wide")}
    assert results(found) == {**expected, "after": "--NN"}
    found.run.expect(0, passed=5)


_CLASS = """
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st


class TestOfAClass:
    @pytest.mark.scenario("in_a_class")
    async def test_in_a_class(self, client):
        answer = await client.get("/dancers")
        assert answer.status_code == 200
        assert answer.json() == ["Sand"]

    @pytest.mark.scenario("last_of_a_class")
    @settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck))
    @given(name=st.sampled_from(["Ann", "Bob"]))
    async def test_last_of_a_class(self, client, name):
        answer = await client.post(f"/dancers/{name}")
        assert answer.json() == name


@pytest.mark.scenario("after_a_class")
async def test_after_a_class(client):
    answer = await client.get("/dancers")
    assert answer.status_code == 200
    assert answer.json() == ["Sand"]
"""


@pytest.mark.slow
def test_one_that_cannot_be_run_again_is_in_nobody_s_way(tmp_path: Path) -> None:
    """It would have been the last of its class, which is torn down all the same."""
    names = ("in_a_class", "last_of_a_class", "after_a_class")
    assert results(sabotaged(project(tmp_path, names, _CLASS))) == {
        "in_a_class": "--NN",
        "last_of_a_class": "-UUU",
        "after_a_class": "--NN",
    }


_BY_ITSELF = "(strict CI run, off with --no-scenarios-sabotage)"


@pytest.fixture(scope="module")
def hollow(tmp_path_factory: pytest.TempPathFactory) -> Example:
    """A suite of hollow tests alone, which all prove their scenarios as long as nobody tries."""
    return suite(tmp_path_factory.mktemp("hollow"), TWINS)


@pytest.mark.slow
def test_a_strict_run_in_ci_tries_each_proof_unless_it_is_told_not_to(hollow: Example) -> None:
    """It is the gate of a merge: what could not fail there lets all pass."""
    found = told(hollow, "--scenarios=strict", env={"CI": "true"})
    assert set(found.statuses.values()) == {"HOLLOW"}
    assert found.run.status == 1
    found.run.says("sabotage: 6 tests run again ", _BY_ITSELF)
    plain = told(hollow, "--scenarios=strict", "--no-scenarios-sabotage", env={"CI": "true"})
    assert set(plain.statuses.values()) == {"PROVEN"}
    assert plain.run.status == 0
    plain.run.says("(not tried: --scenarios-sabotage)").never_says("sabotage: ", _BY_ITSELF)


@pytest.mark.slow
@pytest.mark.parametrize(
    "args,env",
    [
        pytest.param(["--scenarios=report"], {"CI": "true"}, marks=pytest.mark.slow),
        pytest.param(["--scenarios=strict"], {"CI": "false"}, marks=pytest.mark.slow),
        (["--scenarios=strict"], {}),
    ],
)
def test_nobody_else_is_made_to_wait_for_it(
    hollow: Example, args: list[str], env: dict[str, str]
) -> None:
    """Who only reads the verdicts, and who runs the tests at a desk."""
    found = told(hollow, *args, env=env)
    assert set(found.statuses.values()) == {"PROVEN"}
    found.run.never_says("sabotage: ", _BY_ITSELF)


@pytest.mark.slow
def test_who_asks_for_it_is_not_told_why(hollow: Example) -> None:
    """The line names what was not asked for."""
    found = sabotaged(hollow, "--scenarios=strict", env={"CI": "true"})
    found.run.says("sabotage: 6 tests run again ").never_says(_BY_ITSELF)


@pytest.mark.slow
def test_a_run_that_is_stopped_breaks_nothing(tmp_path: Path) -> None:
    """Whoever asks for -x wants the end."""
    failing = "async def test_a_failure(client):\n    assert not await client.get('/dancers')\n"
    found = sabotaged(suite(tmp_path, HONEST, failing, TWINS), "-x")
    assert set(results(found).values()) == {"????"}
    assert found.statuses["honest"] == "UNKNOWN"


@pytest.mark.slow
@pytest.mark.parametrize("isolation", ["undo", "clone"])
def test_on_postgresql_as_on_sqlite(tmp_path: Path, isolation: str) -> None:
    """Rows are taken back by a journal, or in another database."""
    with private_server() as server:
        example = on_postgresql(suite(tmp_path, *ALL))
        example = dataclasses.replace(
            example, env={**server.env, "PYTEST_ADDOPTS": f"--arena-isolation={isolation}"}
        )
        found = sabotaged(example, *SILENT)
        assert results(found) == RESULTS
        found.run.expect(1, passed=len(RESULTS)).never_says("was kept", "ERROR")
        server.check_clean(found.run.output)


_FUNCTION = """

def schema(connection):
    Base.metadata.create_all(connection)
    body = "INSERT INTO dancers (name) VALUES (name) RETURNING id"
    words = "CREATE FUNCTION add(name text) RETURNS int LANGUAGE sql"
    connection.exec_driver_sql(f"{words} AS $$ {body} $$")


@app.post("/added/{name}", status_code=201)
async def add(name: str, db=Depends(get_db)):
    await db.execute(select(func.add(name)))
    await db.commit()
    return name
"""
# The first test opens the database, so that its rows before the request are a question.
_UNSEEN = """
async def test_opens_the_database(client):
    answer = await client.get("/dancers")
    assert answer.status_code == 200
    assert answer.json() == ["Sand"]


async def test_writes_no_row_before(client, db_session):
    answer = await client.post("/added/Ann")
    assert answer.status_code == 201
    assert answer.json() == "Ann"
    assert "Ann" in (await db_session.scalars(NAMES)).all()


async def test_believes_the_function(client):
    answer = await client.post("/added/Ann")
    assert answer.status_code == 201
    assert answer.json() == "Ann"
"""


@pytest.mark.slow
@pytest.mark.parametrize("isolation", ["undo", "clone", "rollback"])
def test_rows_that_a_function_of_the_app_writes_are_no_seed(tmp_path: Path, isolation: str) -> None:
    """No statement shows them, and without a journal it is not known when they came."""
    example = suite(tmp_path, _UNSEEN)
    app = example.files["app.py"].replace("import select", "import func, select") + _FUNCTION
    env = {
        "ARENA_DATABASE": os.environ["TESTS_POSTGRESQL"],
        "PYTEST_ADDOPTS": f"--arena-isolation={isolation}",
    }
    env["DATABASE_URL"] = "postgresql+asyncpg://me:s3cret@db.example.org/shop"
    found = sabotaged(example.with_files(app=app), "-oarena_schema=app:schema", env=env)
    assert results(found)["writes_no_row_before"][0] == "-"
    assert found.statuses == {
        "opens_the_database": "PROVEN",
        "writes_no_row_before": "PROVEN",
        "believes_the_function": "HOLLOW",
    }


_ACCESS_LOG = """
from app import maker


@app.middleware("http")
async def log(request, call_next):
    async with maker.begin() as session:
        session.add(Dancer(name=request.url.path))
    return await call_next(request)


async def test_reads_what_it_wrote(client):
    assert (await client.post("/dancers/Ann")).status_code == 201
    answer = await client.get("/dancers")
    assert answer.status_code == 200
    assert "Ann" in answer.json()


async def test_only_reads(client):
    answer = await client.get("/dancers")
    assert answer.status_code == 200
    assert "Sand" in answer.json()
"""


@pytest.mark.slow
def test_the_access_log_of_a_get_is_not_broken_after_a_post(tmp_path: Path) -> None:
    """The commit that matters is that of the POST, although each request commits a row."""
    found = sabotaged(suite(tmp_path, _ACCESS_LOG))
    assert results(found) == {"reads_what_it_wrote": "-NNN", "only_reads": "-SNN"}


# The options as syrupy, inline-snapshot and pytest-regressions have them.
_SNAPSHOTS = """
def pytest_addoption(parser):
    parser.addoption("--snapshot-update", action="store_true", dest="update_snapshots")
    parser.addoption("--inline-snapshot")
    parser.addoption("--force-regen", action="store_true")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "option, word",
    [
        ("--snapshot-update", "sabotage: no test to run again (off while snapshots are updated"),
        ("--inline-snapshot=report,fix", "off while snapshots are updated"),
        ("--force-regen", "off while snapshots are updated"),
        ("--inline-snapshot=report", "sabotage: 3 tests run again"),
    ],
)
def test_no_broken_answer_is_saved_as_a_snapshot(tmp_path: Path, option: str, word: str) -> None:
    """A run that updates snapshots breaks nothing, and says so."""
    example = suite(tmp_path, HONEST).with_files(conftest=_SNAPSHOTS)
    found = sabotaged(example, option, "--scenarios=strict")
    found.run.expect(0, passed=3).says(word)

"""Is a test that is watched still the same test?"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from pytest_arena.scenarios.assertions._assertions import enable
from pytest_arena.scenarios.specs._reader import relative
from tests.scenarios.proving import project, told

if TYPE_CHECKING:
    from pathlib import Path

    from tests.scenarios.proving import Told

# Whatever a step names is looked for in the variables of the test.
SPEC = """
Feature: Stories
  Scenario: lets go
    When I GET "/dancers" with 7
    Then 7 is "there"

  Scenario: gives up
    When I GET "/dancers" with 8

  Scenario: asks for its names
    When I GET "/dancers" with 9

  Scenario: asks a helper
    When I GET "/dancers" with 10

  Scenario: comes last
    When I GET "/dancers" with 11
"""
TESTS = """
import gc, os, weakref
import pytest
from app import maker
from pytest_arena._fixtures import RUNS
from checks import is_answered


class Thing:
    pass


@pytest.mark.scenario("lets go")
async def test_lets_go(client):
    thing, seven = Thing(), "7"
    response = await client.get("/dancers")
    assert response.status_code == 200
    is_there = weakref.ref(thing)
    del thing
    assert is_there() is None


@pytest.mark.scenario("gives up")
async def test_gives_up(client):
    session = maker()
    left.append(weakref.ref(session))
    assert (await client.get("/dancers")).status_code == 200


left = []


@pytest.fixture
def after():
    yield
    gc.collect()
    assert left[0]() is None


test_gives_up = pytest.mark.usefixtures("after")(test_gives_up)


@pytest.mark.scenario("asks for its names")
async def test_asks_for_its_names(client):
    nine = "9"
    names = locals()
    assert (await client.get("/dancers")).status_code == 200
    assert names["nine"] == "9"


@pytest.mark.scenario("asks a helper")
async def test_asks_a_helper(client):
    is_answered(await client.get("/dancers"))


@pytest.mark.parametrize("number", range(5))
async def test_proves_none(client, db_session, number):
    assert (await client.get("/dancers")).status_code == 200


def test_of_whom_nothing_is_kept(pytestconfig):
    assert len(RUNS[pytestconfig].watcher._statement_logs) <= 1


@pytest.mark.scenario("comes last")
async def test_comes_last(client):
    assert (await client.get("/dancers")).status_code == 200
"""
HELPER = """
def is_answered(response):
    assert response.status_code == 200
"""
CONFTEST = """
import sys, pathlib, pytest
sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "elsewhere"))
pytest.register_assert_rewrite("checks")
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """One run of all of them."""
    folder = tmp_path_factory.mktemp("unchanged")
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "checks.py").write_text(HELPER)
    example = project(folder, [], TESTS).with_files(conftest=CONFTEST)
    return told(example.with_paths({"specs/stories.feature": SPEC}))


def test_what_a_test_deletes_is_gone(run: Told) -> None:
    """The frame keeps no copy of its variables, and no instrument does."""
    assert run.statuses["lets go"] == "PROVEN", run.run.output


def test_what_a_test_had_is_gone_before_its_fixtures_are_torn_down(run: Told) -> None:
    """Else what was given up by its last name would be a leak."""
    assert run.statuses["gives up"] == "PROVEN", run.run.output


def test_who_has_asked_for_the_names_of_a_test_keeps_them(run: Told) -> None:
    """The dict of ``locals()`` is the test's own then."""
    assert run.statuses["asks for its names"] == "PROVEN", run.run.output


def test_values_are_seen_all_the_same(run: Told) -> None:
    """Those that say themselves, of which the literals of steps are made."""
    assert "7" in run.scenarios["lets go"]["tests"][0]["facts"]["seen"]


def test_nothing_is_kept_of_tests_that_prove_no_scenario(run: Told) -> None:
    """However many there are after one that does."""
    run.run.expect(passed=11)


def test_an_assertion_outside_of_the_root_is_told_without_an_absolute_path(run: Told) -> None:
    """Documents are the same on each machine."""
    asserted = run.scenarios["asks a helper"]["tests"][0]["facts"]["asserted"]
    assert [one["place"] for one in asserted] == ["../elsewhere/checks.py:3"]


def test_a_path_is_told_from_the_root(tmp_path: Path) -> None:
    """Whichever side of it that is on."""
    assert relative(tmp_path / "a" / "b.py", tmp_path) == "a/b.py"
    assert relative(tmp_path / "b.py", tmp_path / "a") == "../b.py"


def test_a_pytest_that_calls_its_tools_otherwise_is_no_failure(
    pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their names are private: without one it is not known what was asserted."""
    monkeypatch.delattr(sys.modules["_pytest.raises"], "RaisesExc")
    assert "does not report" in enable(_Config(pytestconfig))


class _Config:
    """A configuration that takes what is to be done at its end, and does it at once."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._inicache: dict[str, object] = {}
        self.known_args_namespace = config.known_args_namespace

    def __getattr__(self, name: str) -> object:
        return getattr(self._config, name)

    def add_cleanup(self, end: object) -> None:
        end()  # type: ignore[operator]  # it is a function

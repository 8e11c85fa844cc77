"""Not each Given asks for rows of the test's own: some say that nothing is there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.example import fastapi_example
from tests.scenarios.proving import told

if TYPE_CHECKING:
    from pathlib import Path

    from tests.scenarios.proving import Told

FEATURE = """
Feature: Dancers
  Rule: With a background
    Background:
      Given the usual dancers

    Scenario: the background alone
      When I GET /dancers

    Scenario: more than the background
      Given a dancer more
      When I GET /dancers

  Rule: Without

    Scenario: none
      Given no dancer is called Storm
      When I GET /dancers

    Scenario: there are none
      Given there are no dancers but one
      And nobody else
      When I GET /dancers

    Scenario: some and none
      Given a dancer with no partner
      And no other one
      When I GET /dancers

    Scenario: half a dancer
      Given 0.5 dancers
      When I GET /dancers

    Scenario: an empty table
      Given these dancers more:
        | name |
      When I GET /dancers

    Scenario: a table
      Given these dancers more:
        | name  |
        | Storm |
      When I GET /dancers

    Scenario Outline: a number
      Given <count> dancers more
      When I GET /dancers

      Examples:
        | count |
        | 0     |
        | 1     |

    Scenario Outline: a number that is not seeded
      Given <count> dancers more
      When I GET /dancers

      Examples:
        | count |
        | 0     |
        | 2     |
"""

ASK = """
import pytest
from app import Dancer


async def asked(client):
    answer = await client.get("/dancers")
    assert answer.status_code == 200
    assert isinstance(answer.json(), list)


@pytest.mark.scenario("a number")
@pytest.mark.parametrize("count", [0, 1])
async def test_number(client, db_session, count):
    db_session.add_all(Dancer(name=str(number)) for number in range(count))
    await asked(client)


@pytest.mark.scenario("a number that is not seeded")
@pytest.mark.parametrize("count", [0, 2])
async def test_number_that_is_not_seeded(client, count):
    await asked(client)


@pytest.mark.scenario("the background alone")
@pytest.mark.arena(seed=False)
async def test_without_the_base(client):
    await asked(client)
"""

_TEST = """

@pytest.mark.scenario("{name}")
async def test_{number}(client):
    await asked(client)
"""

ASKED = ("more than the background", "some and none", "half a dancer", "a table")
NOT_ASKED = ("the background alone", "none", "there are none", "an empty table", "a number")


def run(folder: Path, *, seed: bool = True) -> Told:
    """Tests of which none but those of the Outline seeds anything."""
    names = [name for name in (*ASKED, *NOT_ASKED) if name != "a number"]
    tests = "".join(_TEST.format(name=name, number=at) for at, name in enumerate(names))
    example = fastapi_example(folder).with_files(test_it=ASK + tests)
    example = example.with_paths({"dancers.feature": FEATURE})
    example = example.change("pytest.ini", "[pytest]\n", "[pytest]\narena_specs = *.feature\n")
    return told(example if seed else example.change("pytest.ini", "arena_seed = seed:seed\n", ""))


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """One run, where `arena_seed` writes a row."""
    return run(tmp_path_factory.mktemp("givens"))


@pytest.mark.parametrize("name", NOT_ASKED)
def test_what_says_that_nothing_is_there_needs_no_tag(found: Told, name: str) -> None:
    """Nor does a Background, where every test begins with rows; of an Outline each row tells."""
    assert found.statuses[name] == "PROVEN", found.reason(name)


@pytest.mark.parametrize("name", ASKED)
def test_what_says_that_something_is_there_asks_for_it(found: Told, name: str) -> None:
    """Whatever else is not there."""
    assert found.statuses[name] == "HOLLOW"
    assert "no row was seeded" in found.reason(name)


def test_of_an_outline_the_rows_are_asked_that_say_a_number(found: Told) -> None:
    """What holds for none does not hold for two."""
    tests = found.scenarios["a number that is not seeded"]["tests"]
    assert [one["status"] for one in tests] == ["PROVEN", "HOLLOW"]


@pytest.mark.slow
def test_a_background_is_asked_for_where_no_test_finds_anything(
    tmp_path: Path, found: Told
) -> None:
    """Without `arena_seed` somebody has to bring its rows; as where a test does without it."""
    assert run(tmp_path, seed=False).statuses["the background alone"] == "HOLLOW"
    tests = found.scenarios["the background alone"]["tests"]
    by_name = {one["test"].partition("::")[2]: one["status"] for one in tests}
    assert by_name.pop("test_without_the_base") == "HOLLOW"
    assert set(by_name.values()) == {"PROVEN"}

"""pytest-bdd's tests map by themselves, and a step that never ran fails."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.scenarios.proving import NO_EVIDENCE, Told, project, told

if TYPE_CHECKING:
    from pathlib import Path

SPEC = """
Feature: Dancing
  Scenario: They dance
    Given a floor
    When they dance
    Then it is seen

  Scenario: They dance asynchronously
    When they dance and nobody waits
    Then it is seen

  Scenario: They dance in pieces
    When they dance in pieces
    Then it is seen

  Scenario: A coroutine is handed on
    Given a coroutine
    When it is run

  Scenario Outline: <n> of them dance
    When <n> dance

    Examples:
      | n |
      | 1 |
      | 2 |
"""

TESTS = """
import asyncio
from pytest_bdd import given, parsers, scenarios, then, when

scenarios("specs/dance.feature")

@given("a floor")
def _():
    pass

@when("they dance")
def _():
    pass

@when("they dance and nobody waits")
async def nobody_waits():
    assert False

@when("they dance in pieces")
async def in_pieces():
    yield 1
    assert False

@given("a coroutine", target_fixture="later")
async def coroutine():
    return 3

@when("it is run")
def _(later):
    assert asyncio.new_event_loop().run_until_complete(later) == 3

@then("it is seen")
def _():
    pass

@when(parsers.parse("{n:d} dance"))
def _(n):
    assert n < 2
"""


@pytest.fixture(scope="module")
def dance(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """One run; all tests look at it."""
    example = project(tmp_path_factory.mktemp("bdd"), ["never read"], TESTS)
    example = example.with_paths({"specs/stories.feature": SPEC, "specs/dance.feature": SPEC})
    example = example.change(
        "pytest.ini", "arena_specs = specs", "arena_specs = specs/dance.feature"
    )
    return told(example, NO_EVIDENCE, "-p", "pytest_bdd.plugin", "-W", "ignore::ResourceWarning")


def test_they_are_mapped_without_a_marker(dance: Told) -> None:
    """By the feature file and the name, rows by their values."""
    assert dance.statuses["They dance"] == "PROVEN"
    rows = dance.scenarios["<n> of them dance"]["tests"]
    assert sorted(str(one["row"]) for one in rows) != [rows[0]["row"]] * 2
    assert dance.statuses["<n> of them dance"] == "FAILED"


def test_their_place_is_the_line_that_binds_them(dance: Told) -> None:
    """Their code is pytest-bdd's, and it is the same for all of them."""
    for scenario in dance.scenarios.values():
        for test in scenario["tests"]:
            assert test.get("source", "") == ""
    handed_on = dance.scenarios["A coroutine is handed on"]["tests"][0]
    assert handed_on["place"] == "test_it.py:5"
    dance.run.never_says("call_and_record", "site-packages/pytest_bdd/scenario.py:")


def test_a_step_that_was_never_awaited_fails(dance: Told) -> None:
    """It would pass, whatever it says; the message names it and what to do."""
    for name, step in (
        ("They dance asynchronously", "nobody_waits()"),
        ("They dance in pieces", "in_pieces()"),
    ):
        assert dance.statuses[name] == "FAILED"
        assert step in dance.reason(name)
        place = dance.scenarios[name]["place"]
        line = int(place.removeprefix("test_it.py:"))
        assert TESTS.splitlines()[line].startswith(f"async def {step[:-2]}")
    dance.run.says(
        "the step function nobody_waits() did not run: it returned a coroutine", "[A801]"
    )
    dance.run.says("@pytest.mark.scenario(…)").never_says("never awaited")


def test_a_coroutine_that_another_step_runs_is_none_of_them(dance: Told) -> None:
    """It is judged when the test has ended."""
    assert dance.statuses["A coroutine is handed on"] == "PROVEN"


@pytest.mark.slow
def test_a_feature_that_is_no_specification_is_left_alone(tmp_path: Path) -> None:
    """Its tests are no orphans. Their steps are looked at all the same."""
    example = project(tmp_path, ["one"], TESTS).with_paths({"specs/dance.feature": SPEC})
    example = example.change("pytest.ini", "= specs", "= specs/stories.feature")
    found = told(example, NO_EVIDENCE, "-p", "pytest_bdd.plugin", "-W", "ignore::ResourceWarning")
    assert found.statuses == {"one": "UNMAPPED"}
    found.run.expect(status=1, passed=3, failed=3)
    assert "dance" not in found.problems

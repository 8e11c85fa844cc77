"""Specifications to read, as short as they can be said."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_arena._specs import parse

if TYPE_CHECKING:
    from pytest_arena._specs import Problem, Scenario, Specification

FEATURE = "Feature: Battles\n"
SCENARIO = "  Scenario: Start\n"
STEPS = "    Given a battle\n    When it starts\n    Then it runs\n"
GOOD = FEATURE + SCENARIO + STEPS


def gherkin(text: str) -> Specification:
    """What a ``.feature`` file says."""
    return parse(text, "a.feature")


def markdown(text: str) -> Specification:
    """What a Markdown file says."""
    return parse(text, "docs/a.md")


def mdg(text: str) -> Specification:
    """What a ``.feature.md`` file says."""
    return parse(text, "a.feature.md")


def fenced(text: str, mark: str = "```", info: str = "gherkin") -> str:
    """A text in a fence."""
    return f"{mark}{info}\n{text}{mark}\n"


def only(specification: Specification) -> Scenario:
    """The one scenario there is."""
    (scenario,) = specification.scenarios
    return scenario


def problem(specification: Specification) -> Problem:
    """The one problem there is."""
    assert len(specification.problems) == 1, list(map(str, specification.problems))
    return specification.problems[0]


def errors(specification: Specification) -> list[tuple[int, str]]:
    """Lines of errors, with the scenario that each is about."""
    return [(one.line, one.scenario) for one in specification.problems if one.is_error]

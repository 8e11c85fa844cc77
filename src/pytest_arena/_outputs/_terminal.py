"""Which lines does a person read at the end of a run?"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_arena._evidence import Status
from pytest_arena._outputs._said import (
    grouped,
    is_open,
    judged,
    middle_cut,
    one_line,
    problem_line,
    reason,
    totals,
    unsaid_gaps,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_arena._evidence import Document, JudgedScenario

__all__ = ["lines"]

# The reason, which says most, begins where a wide terminal still shows it.
_PLACE, _STATUS, _NAME = 40, 9, 48


def lines(document: Document, *, verbosity: int = 0) -> list[str]:
    """Return the problems, a line for each scenario that is not proven, the gaps, the totals.

    With ``-q`` (a verbosity of -1) only what a strict run does not let pass, and the totals; with
    ``-qq`` the totals alone; with ``-v`` proven ones too, with their tests and warnings.
    """
    if verbosity < 0:
        return [*_quiet_lines(document, verbosity), _totals_line(document)]
    shown = [one for one in document.scenarios if verbosity > 0 or is_open(one, document)]
    return [
        *_problem_lines(document, shown),
        *_scenario_lines(shown, verbosity),
        *_gap_lines(document),
        *_partial_lines(document),
        _totals_line(document),
    ]


def _quiet_lines(document: Document, verbosity: int) -> list[str]:
    if verbosity < -1 or not document.gaps:
        return []
    shown = [
        one
        for one in document.scenarios
        if is_open(one, document) and not one.is_excused and one.status is not Status.WAIVED
    ]
    errors = replace(document, problems=tuple(one for one in document.problems if one.is_error))
    width = _width(shown)
    lines = [_line(one, width) for one in shown]
    return [*_problem_lines(errors, shown), *lines, *_gap_lines(document)]


def _problem_lines(document: Document, shown: list[JudgedScenario]) -> Iterator[str]:
    """Those that the line of a scenario does not say."""
    reasons = {one.scenario.key: one.reason for one in shown}
    for problem in document.problems:
        if problem.what not in reasons.get(problem.scenario, ""):
            yield problem_line(problem)


def _scenario_lines(shown: list[JudgedScenario], verbosity: int) -> Iterator[str]:
    width = _width(shown)
    for title, ones in grouped(shown).items():
        yield title
        for one in ones:
            yield f"  {_line(one, width)}"
            yield from (f"      {text}" for text in _details(one, verbosity))


def _width(shown: list[JudgedScenario]) -> int:
    return min(max((len(one.scenario.place) for one in shown), default=0), _PLACE)


def _line(one: JudgedScenario, width: int) -> str:
    name = middle_cut(one_line(one.scenario.name), _NAME)
    said = f"  {reason(one)}".rstrip()
    return f"{one.scenario.place:<{width}}  {one.status.value:<{_STATUS}}  {name}{said}"


def _details(one: JudgedScenario, verbosity: int) -> Iterator[str]:
    if verbosity > 0:
        yield from (f"{test.status.value:<{_STATUS}}  {test.test}" for test in one.tests)
        yield from (f"warning: {one_line(text)}" for text in one.warnings)


def _gap_lines(document: Document) -> list[str]:
    return [f"gap: {gap}" for gap in unsaid_gaps(document)]


def _partial_lines(document: Document) -> Iterator[str]:
    if document.partial:
        yield f"partial run ({one_line(document.partial)}): {judged(document)}"


def _totals_line(document: Document) -> str:
    count = len(document.gaps)
    gaps = f"; {count} gap{'s' * (count != 1)}, which --scenarios=strict does not let pass"
    sabotaged = ", under sabotage too" * document.is_sabotaged
    return f"scenarios: {totals(document)}{sabotaged}{gaps * bool(count)}"

"""Which lines does a person read at the end of a run?"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_arena.scenarios.evidence import Status
from pytest_arena.scenarios.outputs._phrases import (
    grouped,
    is_open,
    judged_count,
    middle_cut,
    one_line,
    problem_line,
    reason,
    stays_green,
    totals,
    unsaid_gaps,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_arena.scenarios.evidence import Document, JudgedScenario

__all__ = ["lines"]

# The reason, which says most, begins where a wide terminal still shows it.
_PLACE, _STATUS, _NAME = 40, 9, 48


def lines(document: Document, *, verbosity: int = 0, strict: str = "") -> list[str]:
    """Return problems, a line for each scenario that is not proven, gaps, totals, next steps.

    With ``-q`` (a verbosity of -1) only what a strict run does not let pass, which part of the
    tests was run, the totals and the next steps; with ``-qq`` the totals alone; with ``-v`` proven
    ones too, with their tests, why these prove nothing, and warnings. ``strict`` is the option by
    which gaps fail this run.
    """
    end = [_totals_line(document, strict), *_next_lines(document) * (verbosity >= -1)]
    if verbosity < -1:
        return end
    end = [*_partial_lines(document), *end]
    if verbosity < 0:
        return [*_quiet_lines(document), *end]
    shown = [one for one in document.scenarios if verbosity > 0 or is_open(one, document)]
    return [
        *_problem_lines(document, shown),
        *_scenario_lines(shown, verbosity),
        *_gap_lines(document),
        *end,
    ]


def _quiet_lines(document: Document) -> list[str]:
    if not document.gaps:
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
        for test in one.tests:
            why = f"  {one_line(test.reason)}" * (len(one.tests) > 1 and bool(test.reason))
            yield f"{test.status.value:<{_STATUS}}  {test.test}{why}"
        yield from (f"warning: {one_line(text)}" for text in one.warnings)


def _gap_lines(document: Document) -> list[str]:
    return [f"gap: {gap}" for gap in unsaid_gaps(document)]


def _partial_lines(document: Document) -> Iterator[str]:
    whole = len(document.scenarios)
    # Where all were judged it is no news, and the reason is long.
    if document.partial and judged_count(document) != f"{whole} of {whole} judged":
        yield f"partial run ({one_line(document.partial)}): {judged_count(document)}"


def _totals_line(document: Document, strict: str) -> str:
    count = len(document.gaps)
    fails = f": this run fails ({strict})" if strict else ", on which --scenarios=strict would fail"
    gaps = f"; {count} gap{'s' * (count != 1)}{fails}" * bool(count)
    return f"scenarios: {totals(document)}{gaps}"


def _next_lines(document: Document) -> list[str]:
    """What a person does next, where that is not said by the reason: once, not at each line."""
    shown = [one for one in document.scenarios if is_open(one, document) and not one.is_excused]
    lacking = any(one.status is Status.UNMAPPED for one in shown)
    found = ["next: arena scenarios stubs --write tests   begins the lacking tests"] * lacking
    if text := stays_green(shown):
        found.append(f"next: {text}; see docs/explanation/sabotage.md of pytest-arena")
    return found

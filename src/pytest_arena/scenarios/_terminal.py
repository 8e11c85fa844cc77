"""Writes the lines for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_arena._values import counted
from pytest_arena.scenarios._judge import Status
from pytest_arena.scenarios._records import evidence

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_arena.scenarios._judge import Judged, Results
    from pytest_arena.scenarios._specs import ScenarioSpec, Specification

_PLACE = 48  # the largest width of a column
_QUIETER = -1  # the verbosity of -q


def lines(
    results: Results, *, verbosity: int = 0, is_strict: bool = False
) -> list[str]:
    """Return a line for each scenario that is not proven, the totals and the next step.

    ``-qq`` shows the totals only. ``-v`` adds the other scenarios, with what their tests did.
    """
    best = Status.PROVEN if results.is_sabotaged else Status.ASSERTED
    is_detailed = verbosity > 0
    shown = [
        each for each in results.scenarios if is_detailed or each.status is not best
    ]
    text = []
    if verbosity >= _QUIETER:
        text = [*_scenario_lines(shown, is_detailed=is_detailed)]
        text += [f"note: {note}" for note in results.notes]
    if results.partial:
        text.append(f"partial run: {results.partial}")
    total = f"scenarios: {results.totals()}"
    if results.open and is_strict:
        total += f"; this run fails, as {counted(len(results.open), 'scenario')} must be proven"
    text.append(total)
    statuses = {judged.status for judged in results.open}
    if Status.UNMAPPED in statuses:
        text.append("next: pytest --scenarios-stubs tests   writes the missing tests")
    if Status.DRIFTED in statuses:
        text.append("next: correct the tests, then: pytest --scenarios-accept")
    return text


def _scenario_lines(shown: list[Judged], *, is_detailed: bool) -> Iterator[str]:
    longest = max((len(judged.scenario.place) for judged in shown), default=0)
    for judged in shown:
        place = judged.scenario.place.ljust(min(longest, _PLACE))
        reason = "; ".join(filter(None, (judged.reason, judged.gap)))
        text = f"{judged.status:8}  {judged.scenario.label}  {reason}"
        yield f"{place}  {text}".rstrip()
        for attempt in judged.tries if is_detailed else ():
            for word, fact in evidence(attempt):
                yield f"    {word:7} {fact}"


def listing(specification: Specification) -> list[str]:
    """Return the scenarios below their features, and the totals."""
    text = []
    heading = ""
    for scenario in specification.scenarios:
        if heading != f"Feature: {scenario.feature}":
            heading = f"Feature: {scenario.feature}"
            text.append(heading)
        text.append(_listed(scenario))
    features = {(each.spec, each.feature) for each in specification.scenarios}
    steps = sum(len(scenario.steps) for scenario in specification.scenarios)
    files = {scenario.spec for scenario in specification.scenarios}
    text.append(
        f"{counted(len(features), 'feature')}, "
        f"{counted(len(specification.scenarios), 'scenario')}, {counted(steps, 'step')} "
        f"in {counted(len(files), 'file')}"
    )
    return text


def _listed(scenario: ScenarioSpec) -> str:
    line = (
        f"  {scenario.place}  {counted(len(scenario.steps), 'step')}  {scenario.label}"
    )
    return f"{line}  [{scenario.rule}]" if scenario.rule else line

"""What is in the specifications, whether or not a test has run?"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from pytest_arena.scenarios.outputs._phrases import one_line, problem_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_arena.scenarios.specs import Scenario, Specification

__all__ = ["listing"]


def listing(specification: Specification) -> list[str]:
    """Return the scenarios below their features, the problems, and how many there are of each."""
    return [
        *_scenario_lines(specification),
        *map(problem_line, specification.problems),
        _totals_line(specification),
    ]


def _scenario_lines(specification: Specification) -> Iterator[str]:
    width = max((len(one.place) for one in specification.scenarios), default=0)
    by_feature = groupby(specification.scenarios, key=lambda one: (one.spec, one.feature))
    for (_, feature), ones in by_feature:
        yield one_line(f"Feature: {feature}")
        for one in ones:
            yield f"  {one.place:<{width}}  {_said(one)}"


def _said(one: Scenario) -> str:
    rows = f", {_counted(len(one.rows), 'row')}" * one.is_outline
    under = ", ".join(filter(None, [one.requirement, f"rule {one.rule}" * bool(one.rule)]))
    told = one_line(f"{one.name}  [{under}]" if under else one.name)
    return f"{_counted(len(one.steps), 'step')}{rows}  {told}"


def _totals_line(specification: Specification) -> str:
    scenarios = specification.scenarios
    # An Outline's steps count once, however many rows there are.
    steps = sum(len(one.steps) for one in scenarios)
    counts = (
        _counted(len(specification.features), "feature"),
        _counted(len(scenarios), "scenario"),
        _counted(steps, "step"),
    )
    problems = f"; {_counted(len(specification.problems), 'problem')}"
    files = _counted(len(specification.files), "file")
    return f"{', '.join(counts)} in {files}{problems * bool(specification.problems)}"


def _counted(number: int, name: str) -> str:
    return f"{number:,} {name}{'s' * (number != 1)}"

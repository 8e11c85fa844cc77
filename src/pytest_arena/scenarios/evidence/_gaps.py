"""Why would the gate fail?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_arena.scenarios.evidence._document import Status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_arena.scenarios.evidence._document import Document, JudgedScenario

__all__ = ["gaps"]

_FINE = (Status.PROVEN, Status.WAIVED)
_NOT_OF_A_PART = {Status.UNMAPPED, Status.NOT_RUN, Status.PARTIAL}
"""Of a run of some tests: the others may map it, run, or prove the other rows."""


def gaps(document: Document) -> tuple[str, ...]:
    """Return a line for each gap.

    In a partial run only what its tests can tell counts, and what is wrong in a specification.
    """
    return tuple(dict.fromkeys([*_of_problems(document), *_of_scenarios(document)]))


def _of_problems(document: Document) -> Iterator[str]:
    if not document.scenarios:
        yield "no scenario was found"
    malformed = {one.scenario.key for one in document.scenarios if one.standing.malformed}
    for problem in document.problems:
        is_of_a_spec = problem.spec in document.specs
        is_told = problem.scenario in malformed and is_of_a_spec
        if problem.is_error and not is_told and (is_of_a_spec or not document.partial):
            yield f"{problem}"


def _of_scenarios(document: Document) -> Iterator[str]:
    exempt = _NOT_OF_A_PART if document.partial else set()
    exempt = exempt | {Status.NOT_RUN} if document.is_list else exempt
    for one in document.scenarios:
        if one.status in _FINE:
            yield from _of_the_baseline(one)
        elif one.is_judged and not one.is_excused and one.status not in exempt:
            yield _line(one, one.reason)


def _of_the_baseline(one: JudgedScenario) -> Iterator[str]:
    if one.standing.known and one.is_judged:
        known, place = one.standing.known.value, one.standing.known_place or "the baseline"
        now = f"{one.scenario.key} is {one.status.value} ({one.scenario.place})"
        yield f"{place}: {known} no longer: {now}, so remove this line"


def _line(one: JudgedScenario, reason: str) -> str:
    scenario = one.scenario
    place = f" ({one.place})" if one.place else ""
    return f"{scenario.place}: {one.status.value}: {scenario.name}: {reason}{place}"

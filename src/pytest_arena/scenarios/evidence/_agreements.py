"""Is what was agreed on still about something: the lock, the baseline, the waivers, the markers?"""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

from pytest_arena.scenarios.evidence._sabotaged import EXCUSES
from pytest_arena.scenarios.specs import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_arena.scenarios.evidence._facts import Mapping
    from pytest_arena.scenarios.evidence._lock import Lock
    from pytest_arena.scenarios.evidence._rules import Rules
    from pytest_arena.scenarios.specs import Scenario, Specification

__all__ = ["agreement_problems"]


def agreement_problems(
    specification: Specification, mappings: Sequence[Mapping], rules: Rules
) -> Iterator[Problem]:
    """Yield what names a scenario that is not there, or has run out."""
    scenarios = specification.scenarios
    yield from _lost_mappings(scenarios, mappings)
    yield from _lock_problems(scenarios, rules.lock)
    yield from _baseline_problems(scenarios, rules)
    yield from _waiver_problems(scenarios, rules)
    yield from _misspelt_tags(scenarios)


def _misspelt_tags(scenarios: Sequence[Scenario]) -> Iterator[Problem]:
    """A tag that should excuse a scenario and is nearly the word: it would do nothing."""
    told: set[tuple[str, str]] = set()
    for one in scenarios:
        for tag in one.tags:
            near = get_close_matches(tag.lower(), EXCUSES, n=1, cutoff=0.85)
            if near and tag not in EXCUSES and (one.spec, tag) not in told:
                told.add((one.spec, tag))
                what = f"{tag} means nothing to arena"
                hint = f"write {near[0]}, if you meant it"
                yield Problem(spec=one.spec, line=one.line, what=what, hint=hint, is_error=False)


def _lost_mappings(scenarios: Sequence[Scenario], mappings: Sequence[Mapping]) -> Iterator[Problem]:
    keys = {one.key for one in scenarios}
    for one in mappings:
        if one.scenario not in keys:
            what = f"{one.test} proves {one.scenario!r}, which no specification has"
            yield Problem(spec=one.place, line=0, what=what)


def _lock_problems(scenarios: Sequence[Scenario], lock: Lock) -> Iterator[Problem]:
    gone = lock.gone(one.key for one in scenarios)
    new = lock.new(scenarios) if gone else []
    for scenario in new:
        if former := lock.former(scenario, gone, among=len(new)):
            del gone[former.key]
            has = "has its steps" if former.rev == scenario.rev else "has nearly its steps"
            yield _warning(
                f"{former.key!r} was accepted; {scenario.key!r} ({scenario.place}) {has}",
                f"arena scenarios accept {scenario.key!r}, and that name in its markers",
                lock.place,
            )
    for key in gone:
        what = f"{key!r} was accepted, and no specification has it any more"
        yield _warning(what, "arena scenarios accept --all leaves it out", lock.place)


def _warning(what: str, hint: str, place: str) -> Problem:
    return Problem(spec=place, line=0, what=what, hint=hint, is_error=False)


def _baseline_problems(scenarios: Sequence[Scenario], rules: Rules) -> Iterator[Problem]:
    keys, lines = {one.key for one in scenarios}, dict(rules.baseline.lines)
    for key, _ in rules.baseline.entries:
        if key not in keys:
            yield Problem(
                spec=rules.baseline.place,
                line=lines.get(key, 0),
                what=f"{key!r} is a known gap, and no specification has it any more",
                hint="remove its line",
            )


def _waiver_problems(scenarios: Sequence[Scenario], rules: Rules) -> Iterator[Problem]:
    for waiver in rules.waivers:
        covered = [one for one in scenarios if waiver.covers(one)]
        named = f"the waiver of {waiver.what!r} ({waiver})"
        if not covered:
            what, hint = f"{named} is about no scenario", "remove its line"
        elif waiver.is_over(rules.today):
            what, hint = f"{named} has run out", "prove what it is about, or say how long it holds"
        else:
            continue
        yield Problem(spec=waiver.spec, line=waiver.line, what=what, hint=hint)

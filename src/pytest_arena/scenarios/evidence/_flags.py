"""Which of several verdicts counts?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_arena.scenarios.evidence._document import Status

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Flag", "others", "rank", "worst"]

_RANKS = {status: number for number, status in enumerate(Status)}


@dataclass(frozen=True, slots=True)
class Flag:
    """A status that applies, why, and the line in the tests that this is about."""

    status: Status
    reason: str = ""
    place: str = ""


def rank(status: Status) -> int:
    """Return how good a status is: 0 is the worst."""
    return _RANKS[status]


def worst(flags: Iterable[Flag]) -> Flag:
    """Return the worst of them: PROVEN of none, one of several alike with the reasons of all.

    Of several alike the place is that of the first.
    """
    ordered = sorted(flags, key=lambda flag: rank(flag.status))
    if not ordered:
        return Flag(Status.PROVEN)
    alike = [flag for flag in ordered if flag.status is ordered[0].status]
    reasons = dict.fromkeys(flag.reason for flag in alike if flag.reason)
    return Flag(alike[0].status, "; ".join(reasons), alike[0].place)


def others(statuses: Iterable[Status], but: Status) -> tuple[Status, ...]:
    """Return each status but this one and PROVEN once, the worst first."""
    return tuple(sorted(set(statuses) - {but, Status.PROVEN}, key=rank))

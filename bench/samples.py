"""Times of one thing, their median, and the difference of two things by pairs."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

__all__ = ["Samples", "in_turns", "ratio"]


@dataclass(slots=True)
class Samples:
    """The times of one thing, in seconds, in rounds: what was taken close together."""

    rounds: list[list[float]] = field(default_factory=list)

    def add(self, times: Sequence[float]) -> None:
        """Add a round."""
        self.rounds.append(list(times))

    @property
    def median(self) -> float:
        """The median of all times."""
        return median(time for times in self.rounds for time in times)

    def above(self, floor: Samples) -> float:
        """How much more a round's median is than the floor's of the same round, in the median."""
        pairs = zip(self.rounds, floor.rounds, strict=True)
        return median(median(mine) - median(others) for mine, others in pairs)

    def times(self, floor: Samples) -> float:
        """How many times as long a round's median is as the floor's of the same round, likewise."""
        pairs = zip(self.rounds, floor.rounds, strict=True)
        return median(median(mine) / median(others) for mine, others in pairs)


def in_turns(
    takers: Mapping[str, Callable[[], Iterable[float]]], *, rounds: int
) -> dict[str, Samples]:
    """Take a round of each, by turns, in another random order each time.

    A machine that is slow for a while is then slow for all.
    """
    samples = {name: Samples() for name in takers}
    for _ in range(rounds):
        for name in random.sample(list(takers), len(takers)):
            samples[name].add(list(takers[name]()))
    return samples


def ratio(one: float, other: float, *, digits: int = 2) -> str:
    """How many times as much; nothing is said of what vanishes in the noise."""
    if min(one, other) <= 0:
        return "noise"
    value = one / other
    return f"{value:.0f}×" if value >= 10 else f"{value:.{digits}g}×"  # noqa: PLR2004 - two digits

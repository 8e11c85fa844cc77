"""How long may it take? The same measures, with more or fewer turns."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["FULL", "QUICK", "SMOKE", "Effort"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """The numbers of turns, and how much of the field is measured."""

    suite_rounds: int
    suite_tests: int
    server_rounds: int
    server_tests: int
    """Of suites on a server, with all the ways there are."""
    boundary_rounds: int
    start_rounds: int
    call_rounds: int
    endurance_tests: int
    wide: bool
    """Also the other sizes and both journal modes, and the slow alternatives at each."""


# Half of a short run is its imports: rather more tests in it than more runs.
FULL = Effort(
    suite_rounds=2,
    suite_tests=100,
    server_rounds=2,
    server_tests=100,
    boundary_rounds=3,
    start_rounds=3,
    call_rounds=10,
    endurance_tests=5000,
    wide=True,
)
QUICK = Effort(
    suite_rounds=2,
    suite_tests=30,
    server_rounds=1,
    server_tests=40,
    boundary_rounds=5,
    start_rounds=5,
    call_rounds=8,
    endurance_tests=500,
    wide=False,
)
SMOKE = Effort(
    suite_rounds=1,
    suite_tests=1,
    server_rounds=1,
    server_tests=1,
    boundary_rounds=1,
    start_rounds=1,
    call_rounds=1,
    endurance_tests=10,
    wide=False,
)

"""What is noted of one try of one test, while it runs?"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, time
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING
from uuid import UUID

from pytest_arena.scenarios._constant import is_constant

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_arena._ledger import Request
    from pytest_arena.scenarios.specs import Kind, Scenario

__all__ = ["PLAIN", "Block", "Heard", "Log"]

PLAIN = (str, int, float, Decimal, date, time, Enum, UUID)
"""What has a text that says its value. Others' may be long, or ask a database for what it says."""
# A test that is watched has to be the same test: what it lets go of must not live on here.
_KEPT = (*PLAIN, dict, list, tuple, set)


@dataclass(slots=True, eq=False)
class Heard:
    """The assertions at one place that passed."""

    place: str
    text: str
    after: int
    times: int = 0
    values: list[object] = field(default_factory=list)  # of the last time
    is_constant: bool = False  # whether it could not have failed


@dataclass(slots=True, eq=False)
class Block:
    """One step block of a test, while it stands and afterwards."""

    kind: Kind
    places: tuple[tuple[str, int], ...]  # the scenario's key, and the step's place in it
    wrote: int = 0
    assertions: int = 0
    requests: tuple[int, ...] = ()
    is_open: bool = True


@dataclass(slots=True, eq=False)
class Log:
    """One try. Any thread of the test's may add to it; nobody takes anything out meanwhile."""

    scenarios: tuple[Scenario, ...]
    fixture_names: frozenset[str]
    in_call: bool = False
    requests: list[Request] = field(default_factory=list)
    logins: list[Request] = field(default_factory=list)
    of_others: set[Request] = field(default_factory=set)  # by no client of ours, under way
    answered: int = 0
    heard: dict[tuple[str, str], Heard] = field(default_factory=dict)
    assertions: int = 0  # that passed, and could have failed
    blocks: list[Block] = field(default_factory=list)
    off: dict[str, str] = field(default_factory=dict)
    has_asked_another: bool = False  # an app that is not the one under test

    @property
    def is_preparing(self) -> bool:
        """Whether a request that begins now prepares for what the test is about."""
        return not self.in_call or any(one.is_open and one.kind == "given" for one in self.blocks)

    @property
    def first(self) -> int:
        """The place of the first request that is no preparation; of the first, where all are."""
        places = [place for place, one in enumerate(self.requests) if not one.is_preparation]
        return places[0] if places else 0

    @property
    def has_asserted(self) -> bool:
        """Whether an assertion that could fail has passed since the last request."""
        last = len(self.requests)
        return any(one.after >= last and not one.is_constant for one in self.heard.values())

    def passed(
        self, place: str, text: str, values: Sequence[object], *, is_idle: bool = False
    ) -> None:
        """An assertion has passed."""
        one = self.heard.get((place, text))
        if one is None:
            one = Heard(place, text, self.answered, is_constant=is_idle or is_constant(text))
            self.heard[place, text] = one
        one.times += 1
        one.after = max(one.after, self.answered)
        one.values = [value for value in values if isinstance(value, _KEPT)]
        self.assertions += not one.is_constant

    def let_go(self) -> None:
        """The call is over: what the test still holds is nobody's any more."""
        for one in self.heard.values():
            one.values = []

"""What is noted of one try of one test, while it runs?"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, time
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING
from uuid import UUID

from pytest_arena._gate import Doings
from pytest_arena._run.instruments._constant import is_constant

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_arena._app import Reached
    from pytest_arena._run._story import Moment, Turn
    from pytest_arena.scenarios.specs import Kind, Scenario

__all__ = ["PLAIN", "Block", "Heard", "Log", "Window"]

PLAIN = (str, int, float, Decimal, date, time, Enum, UUID)
"""What has a text that says its value. Others' may be long, or ask a database for what it says."""
# A test that is watched has to be the same test: what it lets go of must not live on here.
_KEPT = (*PLAIN, dict, list, tuple, set)


@dataclass(slots=True, eq=False)
class Window:
    """The time of one request, as ``Reached.details`` has it."""

    turn: Turn | None = None  # of the test's story, in which it was made
    since: Moment | None = None  # where it is not the turn's first, after a redirect
    until: Moment | None = None  # nor its last
    doings: Doings = field(default_factory=Doings)
    marks: dict[Doings, int] = field(default_factory=dict)  # parts of the test's own by then
    is_at_once: bool = False
    is_counted: bool = False  # among those that have been answered
    began: float = 0.0
    is_told: bool = False  # whether the test's story was begun for it

    def begin(self, turn: Turn, last: Window | None, moment: Callable[[], Moment]) -> None:
        """It begins in a turn, whose moments are its own where it is alone in it."""
        self.turn = turn
        if last is not None and last.turn is turn:
            self.since = last.until = moment()

    @property
    def before(self) -> Moment | None:
        """The moment when it began; None where it is not known any more."""
        return self.since or (self.turn.before if self.turn else None)

    @property
    def after(self) -> Moment | None:
        """The moment when it was over; None as long as it goes on."""
        return self.until or (self.turn.after if self.turn else None)


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
    requests: list[Reached] = field(default_factory=list)
    logins: list[Reached] = field(default_factory=list)
    ended: int = 0
    heard: dict[tuple[str, str], Heard] = field(default_factory=dict)
    assertions: int = 0  # that passed, and could have failed
    blocks: list[Block] = field(default_factory=list)
    off: dict[str, str] = field(default_factory=dict)
    apps: dict[int, tuple[object, bool]] = field(default_factory=dict)  # whether under test
    doubt: str = ""  # why another app that was asked may have been the one under test
    is_ambiguous: bool = False  # whether nobody can tell which of those that count is

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
            one = Heard(place, text, self.ended, is_constant=is_idle or is_constant(text))
            self.heard[place, text] = one
        one.times += 1
        one.after = max(one.after, self.ended)
        one.values = [value for value in values if isinstance(value, _KEPT)]
        self.assertions += not one.is_constant

    def let_go(self) -> None:
        """The call is over: what the test still holds is nobody's any more."""
        for one in self.heard.values():
            one.values = []

"""A moment is asked for by whoever is about to use the database, and not where nobody does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_arena._postgresql.isolation._server_levels import LateMoments
from pytest_arena.errors import IsolationError, impossible

if TYPE_CHECKING:
    from collections.abc import Callable


class Database:
    """Which is used, and asked for the time."""

    def __init__(self) -> None:
        self.uses = self.asked = 0
        self.waiting: list[Callable[[], None]] = []
        self.is_quiet = True
        self.moments = LateMoments(self.ask, self)

    def __call__(self) -> int:
        """How often it was used."""
        return self.uses

    def ask(self) -> str:
        """Its time is how often it was used."""
        self.asked += 1
        return str(self.uses)

    def before_next(self, call: Callable[[], None]) -> bool:
        """As the gate has it."""
        if self.is_quiet:
            self.waiting = [call]
        return self.is_quiet

    def use(self) -> None:
        """As somebody does who takes a connection."""
        for call in self.waiting:
            call()
        self.waiting = []
        self.uses += 1

    def now(self, *, is_start: bool = False) -> object:
        """The moment of now."""
        return self.moments.now(self.uses, is_start=is_start)


def test_nobody_is_asked_until_somebody_uses_it_pitfall_066() -> None:
    """Between two uses there is one moment; the last one of a level is never asked for."""
    database = Database()
    start = database.now(is_start=True)
    database.use()
    middle = database.now()
    assert database.now() is middle
    assert database.asked == 0
    database.use()
    assert database.asked == 1
    end = database.now()
    assert [database.moments.name_of(one) for one in (start, middle)] == ["", "1"]
    database.moments.end()
    database.use()
    assert database.asked == 1
    assert len({id(one) for one in (start, middle, end)}) == 3


def test_it_is_asked_at_once_while_somebody_may_be_using_it() -> None:
    """A moment is not after what came after it."""
    database = Database()
    database.is_quiet = False
    moment = database.now()
    assert database.asked == 1
    database.use()
    assert database.moments.name_of(moment) == "0"


def test_whoever_wants_to_know_asks() -> None:
    """Nobody has used the database since."""
    database = Database()
    database.use()
    assert database.moments.name_of(database.now()) == "1"
    database.use()
    assert database.asked == 1


def test_moments_of_a_level_go_with_it() -> None:
    """One that nobody knew by then is none of the next level's."""
    database = Database()
    database.use()
    lost = database.now()
    database.moments.end()
    with pytest.raises(Exception, match="level is gone"):
        database.moments.name_of(lost)


def test_a_server_that_is_gone_is_told_to_whoever_wants_to_know() -> None:
    """And not to whoever takes a connection."""
    database = Database()
    moments = LateMoments(_fail, database)
    moment = moments.now(database.uses, is_start=False)
    database.use()
    with pytest.raises(IsolationError, match="gone"):
        moments.name_of(moment)


def _fail() -> str:
    error = impossible("gone")
    raise IsolationError("gone", why=error.why, cause=error.cause, fix=error.fix)

"""Points in time of a database on a server, each asked for as late as it can be."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from pytest_arena.errors import ArenaError, impossible

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["LateMoments", "Moment"]


class Moment:
    """A point in time. What it is called is known later: when somebody wants it, or has to."""

    def __init__(self, name: str | None = None) -> None:
        self._name = name
        self.failure: ArenaError | None = None
        self.is_start = name == ""

    @property
    def name(self) -> str:
        """What the server calls it; "" for the start of a level.

        Raises:
            ArenaError: the server could not be asked.
        """
        if self.failure is not None:
            raise self.failure
        if self._name is None:
            raise impossible("a moment is wanted whose level is gone")
        return self._name

    def __eq__(self, other: object) -> bool:
        return self is other or (
            isinstance(other, Moment) and self._name is not None and self._name == other._name
        )

    __hash__ = None  # type: ignore[assignment]  # it is named later

    @property
    def is_known(self) -> bool:
        """Whether the server has told what it is called."""
        return self._name is not None

    def is_called(self, name: str) -> None:
        """The server has told."""
        self._name = name


class LateMoments:
    """The moments of one database, in the level that stands. Any thread may ask.

    As long as nobody uses the database, now is the same moment: so the server is asked by whoever
    is about to use it, before that, and not at all where nobody does. ``uses`` returns a number
    that has moved where anybody may have used the database; with a method ``before_next``, which
    has something called before that.
    """

    def __init__(self, ask: Callable[[], str], uses: Callable[[], int]) -> None:
        self._ask = ask
        self._before_next = getattr(uses, "before_next", _never)
        self._turn = threading.RLock()
        self._last: tuple[int, Moment] | None = None
        self._open: Moment | None = None

    def now(self, uses: int, *, is_start: bool) -> Moment:
        """Return the moment of now, at this number of uses.

        Raises:
            ArenaError: the server is gone.
        """
        if self._last is not None and self._last[0] == uses:
            return self._last[1]
        moment = Moment("") if is_start else self._new()
        if moment.failure is not None:
            raise moment.failure
        self._last = uses, moment
        return moment

    def _new(self) -> Moment:
        with self._turn:
            moment = self._open = Moment()
        if not self._before_next(self.settle):
            self.settle()
        return moment

    def settle(self) -> None:
        """Ask for the last moment, if that was not done yet. Never raises."""
        with self._turn:
            moment, self._open = self._open, None
            if moment is None:
                return
            try:
                moment.is_called(self._ask())
            except ArenaError as error:
                moment.failure = error

    def name_of(self, moment: object) -> str:
        """Return what the server calls a moment; "" for none. Raises as ``Moment.name`` does."""
        if not isinstance(moment, Moment):
            return ""
        if not moment.is_known:
            self.settle()
        return moment.name

    def end(self) -> None:
        """The level is about to be left, and with it its moments."""
        with self._turn:
            self._last = self._open = None

    def begin(self) -> None:
        """Another level begins, or the one below goes on."""
        self.settle()
        self._last = None


def _never(_call: Callable[[], None]) -> bool:
    return False

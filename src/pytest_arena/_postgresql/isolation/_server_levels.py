"""A level of a database on a server, the snapshot that it is copied from, and moments in it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pytest_arena.errors import ArenaError, IsolationError, impossible

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from pytest_arena._postgresql.registry import ServerRegistry
    from pytest_arena._values import TableRows

__all__ = [
    "Archive",
    "LateMoments",
    "Levels",
    "RowsLost",
    "ServerLevel",
    "ServerMoment",
    "Snapshot",
]

_MOST = 2

LiveT = TypeVar("LiveT")


class Snapshot:
    """A database that nobody connects to any more, and the copies of it that are made ahead.

    Copies are made in the background, and none before the first was asked for. One is enough where
    a test takes longer than a copy. Where somebody had to wait, there are two.
    """

    def __init__(self, own: ServerRegistry, name: str | None, *, is_ours: bool = False) -> None:
        self._own = own
        self.name, self.is_ours = name, is_ours  # ours: frozen by us, and dropped by us
        # Where a copy's sequences begin: "" where there are none, None where that is hidden.
        self.sequences: str | None = None
        self.knows_sequences = False
        self._ahead: list[Future[str]] = []
        self._wanted = 1

    def copy(self) -> str:
        """Return a copy that is made now. Raises as ``take`` does."""
        return self._own.create("live", template=self.name)

    def take(self) -> str:
        """Return a copy: one that is ready, one in the making, or one made now.

        Raises:
            IsolationError: no copy can be made.
        """
        name = self._taken() or self.copy()
        while len(self._ahead) < self._wanted:
            self._ahead.append(self._own.create_later("live", template=self.name))
        return name

    def _taken(self) -> str | None:
        while self._ahead:
            future = self._ahead.pop(0)
            if not future.done():
                self._wanted = _MOST
            if future.cancel():
                continue
            try:
                return future.result()
            except (ArenaError, CancelledError):  # one made now says why, if it fails as well
                continue
        return None

    def drop(self) -> None:
        """Have the copies dropped, also those in the making; and the database, if it is ours."""
        for future in self._ahead:
            if not future.cancel():
                future.add_done_callback(self._drop_copy)
        self._ahead.clear()
        if self.is_ours and self.name:
            self._own.drop_later(self.name)

    def _drop_copy(self, future: Future[str]) -> None:
        if not future.cancelled() and future.exception() is None:
            self._own.drop_later(future.result())


class RowsLost(IsolationError):
    """What fixtures of a wider scope had written could not be carried into another database."""

    def __init__(self, error: Exception) -> None:
        reason = (str(error).splitlines() or ["no reason was given"])[0]
        super().__init__(
            "what wider fixtures have written is lost: the change journal cannot be read",
            why="the test's database had to be replaced, and these rows stood in its journal alone",
            cause=f"{reason}\n(a test that dropped the journal's schema, a server that crashed)",
            fix='@pytest.mark.arena(isolation="clone")   # for a test that drops schemas',
        )


# What levels had written, as a journal gave it, or why it could not.
Archive = list[tuple[Any, ...]] | RowsLost


@dataclass(eq=False, slots=True)
class ServerLevel(Generic[LiveT]):
    """A level; the first one of all is what stands below the first that was entered.

    ``live`` says how it is left: its database takes the changes back in place, or gets another copy
    of the snapshot. Where one that takes back in place had to be replaced, the copy gets what the
    levels from ``base`` on had written as well.
    """

    live: LiveT
    snapshot: Snapshot
    base: int
    start: Snapshot  # what it began with: another one where the level was given other content
    is_written: bool = False  # its journal may have changes from before a level above it
    archive: Archive | None = None  # the levels' below, where the live journal has it no more
    told: list[TableRows] = field(default_factory=list)  # its changes, likewise


Levels = Sequence[ServerLevel[Any]]


@dataclass(eq=False, slots=True)
class ServerMoment:
    """A point in time. What the server calls it is known when somebody wants it, or has to.

    The start of a level is called "".
    """

    name: str | None = None
    failure: ArenaError | None = None

    def __eq__(self, other: object) -> bool:
        if self is other or not isinstance(other, ServerMoment):
            return self is other
        return self.name is not None and self.name == other.name

    __hash__ = None  # type: ignore[assignment]  # it is named later


class LateMoments:
    """The moments of one database, in the level that stands. Any thread may ask.

    As long as nobody uses the database, now is the same moment: so the server is asked by whoever
    is about to use it, before that, and not at all where nobody does. ``uses`` returns a number
    that has moved where anybody may have used the database; with a method ``before_next``, which
    has something called before that.
    """

    def __init__(self, ask: Callable[[], str], uses: Callable[[], int]) -> None:
        self._ask = ask
        self._before_next = getattr(uses, "before_next", lambda _call: False)
        self._turn = threading.RLock()
        self._last: tuple[int, ServerMoment] | None = None
        self._open: ServerMoment | None = None

    def now(self, uses: int, *, is_start: bool) -> ServerMoment:
        """Return the moment of now, at this number of uses.

        Raises:
            ArenaError: the server is gone.
        """
        if self._last is not None and self._last[0] == uses:
            return self._last[1]
        moment = ServerMoment("") if is_start else self._new()
        if moment.failure is not None:
            raise moment.failure
        self._last = uses, moment
        return moment

    def _new(self) -> ServerMoment:
        with self._turn:
            moment = self._open = ServerMoment()
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
                moment.name = self._ask()
            except ArenaError as error:
                moment.failure = error

    def name_of(self, moment: object) -> str:
        """Return what the server calls a moment; "" for none.

        Raises:
            ArenaError: the server could not be asked.
        """
        if not isinstance(moment, ServerMoment):
            return ""
        if moment.name is None:
            self.settle()
        if moment.failure is not None:
            raise moment.failure
        if moment.name is None:
            raise impossible("a moment is wanted whose level is gone")
        return moment.name

    def end(self) -> None:
        """The level is about to be left, and with it its moments."""
        with self._turn:
            self._last = self._open = None

    def begin(self) -> None:
        """Another level begins, or the one below goes on."""
        self.settle()
        self._last = None

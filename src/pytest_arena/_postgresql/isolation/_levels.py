"""A level of a database on a server, and the snapshot that copies of it are made from."""

from __future__ import annotations

from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pytest_arena.errors import ArenaError, IsolationError

if TYPE_CHECKING:
    from concurrent.futures import Future

    from pytest_arena._postgresql.registry import ServerRegistry
    from pytest_arena._values import TableRows

__all__ = ["Archive", "Level", "RowsLost", "Snapshot"]

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
class Level(Generic[LiveT]):
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

"""A snapshot of a database on a server, and what levels had written that is not in it."""

from __future__ import annotations

from concurrent.futures import CancelledError, Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pytest_arena.errors import ArenaError, IsolationError

if TYPE_CHECKING:
    from pytest_arena._postgresql.registry import ServerRegistry

_MOST = 2


class Snapshot:
    """A database that nobody connects to any more, and the copies of it that are made ahead.

    Copies are made in the background, and none before the first was asked for. One is enough where
    a test takes longer than a copy. Where somebody had to wait, there are two.
    """

    def __init__(
        self, own: ServerRegistry, name: str | None, *, is_ours: bool = False
    ) -> None:
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
        name = ""
        while self._ahead and not name:
            future = self._ahead.pop(0)
            if not future.done():
                self._wanted = _MOST
            with suppress(
                ArenaError, CancelledError
            ):  # one made now says why, if it fails as well
                name = "" if future.cancel() else future.result()
        name = name or self.copy()
        while len(self._ahead) < self._wanted:
            self._ahead.append(self._own.create_later("live", template=self.name))
        return name

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

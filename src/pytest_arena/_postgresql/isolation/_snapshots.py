"""Snapshots of a database."""

from __future__ import annotations

from concurrent.futures import CancelledError, Future
from contextlib import suppress
from typing import TYPE_CHECKING

from pytest_arena.errors import ArenaError, IsolationError

if TYPE_CHECKING:
    from pytest_arena._postgresql.registry import ServerRegistry

_MOST = 2


class Snapshot:
    """A frozen database, and copies of it that are made ahead in the background.

    The first ``take`` starts the first copy ahead. One copy ahead is enough if a test takes longer
    than a copy. After a ``take`` has waited, two copies are made ahead.
    """

    def __init__(
        self, registry: ServerRegistry, name: str | None, *, is_ours: bool = False
    ) -> None:
        self._registry = registry
        self.name = name
        self.is_ours = is_ours  # the isolation has frozen the database, and drops it
        # A digest of the sequences: "" without sequences, None if the role may not read them.
        self.sequences: str | None = None
        self.knows_sequences = False
        self._ahead: list[Future[str]] = []
        self._wanted = 1

    def note_sequences(self, digest: str | None) -> None:
        """Note the digest of the sequences."""
        self.sequences = digest
        self.knows_sequences = True

    def copy(self) -> str:
        """Make a copy now and return its name. Raises as ``take`` does."""
        return self._registry.create("live", template=self.name)

    def take(self) -> str:
        """Return the name of a copy that was made ahead, or of a new copy.

        Raises:
            IsolationError: no copy can be made.
        """
        name = ""
        while self._ahead and not name:
            future = self._ahead.pop(0)
            if not future.done():
                self._wanted = _MOST
            # If a copy ahead failed, the new copy raises the reason.
            with suppress(ArenaError, CancelledError):
                if not future.cancel():
                    name = future.result()
        name = name or self.copy()
        while len(self._ahead) < self._wanted:
            self._ahead.append(self._registry.create_later("live", template=self.name))
        return name

    def drop(self) -> None:
        """Drop the copies, also those being made, and the database if ``is_ours``."""
        for future in self._ahead:
            if not future.cancel():
                future.add_done_callback(self._drop_copy)
        self._ahead.clear()
        if self.is_ours and self.name:
            self._registry.drop_later(self.name)

    def _drop_copy(self, future: Future[str]) -> None:
        if not future.cancelled() and future.exception() is None:
            self._registry.drop_later(future.result())


class RowsLost(IsolationError):
    """Rows of wider fixtures cannot be copied into another database."""

    def __init__(self, error: Exception) -> None:
        lines = str(error).splitlines()
        reason = lines[0] if lines else "no reason was given"
        why = "the test's database had to be replaced, and only its journal had these rows"
        super().__init__(
            "rows that wider fixtures wrote are lost: the change journal cannot be read",
            why=why,
            cause=f"{reason}\n(for example, a test dropped the journal's schema)",
            fix='@pytest.mark.arena(isolation="clone")   # for a test that drops schemas',
        )


# Rows that levels have written, as the journal returns them, or the error that prevents it.
Archive = list[tuple[object, ...]] | RowsLost

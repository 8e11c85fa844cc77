"""Which copies are made before somebody asks for one?"""

from __future__ import annotations

from concurrent.futures import CancelledError
from typing import TYPE_CHECKING

from pytest_arena.errors import ArenaError

if TYPE_CHECKING:
    from concurrent.futures import Future

    from pytest_arena._postgresql.registry import ServerRegistry

__all__ = ["Stock"]

_MOST = 2


class Stock:
    """Copies of one database, made in the background: none before the first was asked for.

    One is enough where a test takes longer than a copy. Where somebody had to wait, there are two.
    """

    def __init__(self, own: ServerRegistry, source: str | None) -> None:
        self._own, self._source = own, source
        self._ahead: list[Future[str]] = []
        self._wanted = 1

    def take(self) -> str:
        """Return a copy: one that is ready, one in the making, or one made now.

        Raises:
            IsolationError: no copy can be made.
        """
        name = self._taken()
        if name is None:
            name = self._own.create("live", template=self._source)
        while len(self._ahead) < self._wanted:
            self._ahead.append(self._own.create_later("live", template=self._source))
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

    def discard(self) -> None:
        """Have all that is made ahead dropped, also what is still in the making."""
        for future in self._ahead:
            if not future.cancel():
                future.add_done_callback(self._drop)
        self._ahead.clear()

    def _drop(self, future: Future[str]) -> None:
        if not future.cancelled() and future.exception() is None:
            self._own.drop_later(future.result())

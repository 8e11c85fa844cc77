"""Keeps requests at once in step, so that each has read before one of them writes.

A request sends its second statement when the first ones of the others have ended, and so on.
Without this wait one request may be over before another one has read. A pool may have an open
connection for only one of them. A machine may run only one of their sessions on the server: the
threads of pytest-arena make this more likely than it is without the plugin.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from sqlalchemy.util import await_only
from sqlalchemy.util.concurrency import in_greenlet

from pytest_arena._ledger import LIFESPAN
from pytest_arena._process import running_loop
from pytest_arena._product._connection_loop import connection_loop

if TYPE_CHECKING:
    from pytest_arena._ledger import Request

# Seconds. A running statement may wait for a lock of the request that waits here.
_PATIENCE = 0.1


class RunningStatements:
    """The requests of one turn of which a statement runs, or is about to run."""

    def __init__(self) -> None:
        self._ends: dict[Any, Future[None]] = {}
        self._is_patient = True

    def begin(self, request: Request | None) -> None:
        """Note that a request opens or takes a connection, or sends a statement."""
        if request is not None and request.method != LIFESPAN and request not in self._ends:
            self._ends[request] = Future()

    def end(self, request: Request | None) -> None:
        """Let the others go on: a statement of a request, or the request itself, has ended."""
        end = self._ends.pop(request, None)
        if end is not None:
            end.set_result(None)

    def wait(self, request: Request) -> None:
        """Wait before a statement of a request until the earlier ones of the others have ended.

        No two requests wait for each other, because each waits for smaller numbers.
        """
        earlier = []
        for other, end in [*self._ends.items()]:
            if max(1, len(other.statements)) < len(request.statements):
                earlier.append(end)
        # Sync code in an event loop would block the others.
        if earlier and self._is_patient and (in_greenlet() or running_loop() is None):
            connection_loop().call(self._wait, earlier)

    def _wait(self, ends: list[Future[None]]) -> None:
        """Wait in the loop of pytest-arena, whose clock no test can stop."""
        waiting = asyncio.wait([*map(asyncio.wrap_future, ends)], timeout=_PATIENCE)
        _, running = await_only(waiting)
        if running:  # the app locks rows, or a statement is slow
            self._is_patient = False

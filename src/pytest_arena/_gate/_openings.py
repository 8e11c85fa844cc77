"""Lets requests at once begin together, although only some of their connections are open.

pytest-arena keeps connections from test to test. So one request has a connection, and another one
needs some milliseconds to open its connection, and for the first statement of a new session.
Without a wait the first request is over before the second one has read, and a race between them is
not seen.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from concurrent.futures import wait as wait_for_futures
from typing import TYPE_CHECKING

from sqlalchemy.util import await_only
from sqlalchemy.util.concurrency import in_greenlet

from pytest_arena._ledger import LIFESPAN
from pytest_arena._process import running_loop

if TYPE_CHECKING:
    from pytest_arena._ledger import Request

# Seconds. The first statement of a new session may wait for a lock of the request that waits here.
_PATIENCE = 0.1


class Openings:
    """The requests that open a connection, until their first statement has ended."""

    def __init__(self) -> None:
        self.requests: dict[Request, Future[None]] = {}

    def begin(self, request: Request | None) -> None:
        """Note that a request is about to open a connection."""
        if request is not None and request.method != LIFESPAN:
            self.requests.setdefault(request, Future())

    def end(self, request: Request | None) -> None:
        """Let the others go on: a statement of a request, or the request itself, has ended."""
        future = self.requests.pop(request, None) if request is not None else None
        if future is not None:
            future.set_result(None)

    def wait(self, request: Request) -> None:
        """Wait before a statement of a request until no other request opens a connection."""
        others = [*self.requests.values()]
        if not others or request in self.requests:
            return
        if in_greenlet():
            waiters = [asyncio.wrap_future(future) for future in others]
            await_only(asyncio.wait(waiters, timeout=_PATIENCE))
        elif running_loop() is None:  # else the other request could not go on
            wait_for_futures(others, timeout=_PATIENCE)

"""Where does an app live that is started once for the whole session?"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from pytest_arena._app._lifespan import Lifespan

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_arena._app._kind import ASGIApp

__all__ = ["SessionLifespan"]


class SessionLifespan:
    """An app's lifespan, run once, on a loop in a thread of ours.

    What it opens belongs to that loop: an app that hands connections or clients of one loop on to
    its requests needs a lifespan for each test instead.

    Example::

        session = SessionLifespan()
        run = AppRun(app, hooks=hooks, state=session.start(app))
        ...
        session.stop()
    """

    def __init__(self) -> None:
        self._lifespan: Lifespan | None = None
        self._thread: _LoopThread | None = None

    def start(self, app: ASGIApp) -> Mapping[str, Any]:
        """Start the app, unless it is up, and return the state that it hands on to requests.

        Raises:
            LifespanError: from the app's exception. Nothing stays behind; it may be tried again.
        """
        __tracebackhide__ = True
        if self._lifespan is None:
            self._thread = _LoopThread()
            try:
                self._lifespan = self._thread.begin(app)
                self._lifespan.started()
            except BaseException:
                self.stop()
                raise
        return self._lifespan.state

    def stop(self) -> None:
        """Shut the app down and end the thread. Idempotent.

        Raises:
            LifespanError: from the app's exception; the thread has ended all the same.
        """
        __tracebackhide__ = True
        lifespan, self._lifespan = self._lifespan, None
        thread, self._thread = self._thread, None
        with ExitStack() as stack:
            if thread is not None:
                stack.callback(thread.stop)
            if lifespan is not None:
                stack.callback(lifespan.close)


class _LoopThread:
    """A thread with a running event loop."""

    def __init__(self) -> None:
        self._stop = asyncio.Event()
        self._loop: Future[asyncio.AbstractEventLoop] = Future()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._main()),
            name="pytest-arena: lifespan",
            daemon=True,  # never keeps a dying process alive
        )
        self._thread.start()

    async def _main(self) -> None:
        self._loop.set_result(asyncio.get_running_loop())
        await self._stop.wait()

    def begin(self, app: ASGIApp) -> Lifespan:
        """Start the app in the loop, without waiting for it."""

        async def begin() -> Lifespan:
            return Lifespan.begin(app)

        return asyncio.run_coroutine_threadsafe(begin(), self._loop.result()).result()

    def stop(self) -> None:
        """Stop the loop and wait for the thread."""
        self._loop.result().call_soon_threadsafe(self._stop.set)
        self._thread.join()

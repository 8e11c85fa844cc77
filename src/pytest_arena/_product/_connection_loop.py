"""An event loop of pytest-arena, in which a connection lives that all loops and threads use."""

from __future__ import annotations

import asyncio
import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from sqlalchemy.util import await_only, greenlet_spawn  # 2.1 also calls it await_
from sqlalchemy.util.concurrency import in_greenlet

from pytest_arena._origin import as_own
from pytest_arena._process import seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


class _Loop(asyncio.SelectorEventLoop):
    """An event loop whose clock no test can stop."""

    def time(self) -> float:
        return seconds()


class ConnectionLoop:
    """A thread with an event loop, in which the connections of async drivers live."""

    def __init__(self) -> None:
        self._loop = _Loop()
        with as_own():
            threading.Thread(
                target=self._loop.run_forever, name="pytest-arena-loop", daemon=True
            ).start()

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function in the loop, and wait in the caller's greenlet or thread."""
        return self.run(greenlet_spawn(function, *args, **kwargs))

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine, and wait in the caller's greenlet or thread."""
        if in_greenlet():
            return await_only(self.wait(work))
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def wait(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine. A cancelled caller waits until the driver has finished."""
        tasks: list[asyncio.Task[Any] | None] = []

        async def run() -> Any:
            tasks.append(asyncio.current_task())
            return await work

        def cancel() -> None:
            for task in tasks:
                if task is not None:
                    task.cancel()

        running = asyncio.wrap_future(
            asyncio.run_coroutine_threadsafe(run(), self._loop)
        )
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            self._loop.call_soon_threadsafe(cancel)
            while not running.done():
                with suppress(BaseException):
                    await asyncio.shield(running)
            raise


_loops: list[ConnectionLoop] = []
os.register_at_fork(after_in_child=_loops.clear)  # the child has no such thread


def connection_loop() -> ConnectionLoop:
    """Return the loop of this process. Start it at the first call."""
    if not _loops:
        _loops.append(ConnectionLoop())
    return _loops[0]

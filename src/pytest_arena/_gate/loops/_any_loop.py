"""Lets tasks of any event loop and thread wait for one pool, and for one connection.

SQLAlchemy's pool queue and its mutexes are asyncio's. They bind to the first loop in which a task
waits for them. So a suite may pass for months, until one test exhausts the pool. Here a task that
waits looks again and again. So no waiter is stranded in a loop that has ended or stands still.
"""

from __future__ import annotations

import threading
from asyncio import Lock
from typing import TYPE_CHECKING, Any

from sqlalchemy.pool import Pool, QueuePool
from sqlalchemy.util import await_only  # 2.1 also calls it await_
from sqlalchemy.util.concurrency import AsyncAdaptedLock
from sqlalchemy.util.queue import AsyncAdaptedQueue, Empty

from pytest_arena._process import async_rest, seconds

if TYPE_CHECKING:
    from collections.abc import Callable

_STEP = 0.001  # seconds between two looks


def install() -> None:
    """Change the queues of async pools, and the locks of their engines' first connections."""
    queue: Any = AsyncAdaptedQueue
    queue.get_nowait = _get_nowait
    queue.get = _get
    lock: Any = AsyncAdaptedLock
    lock.mutex = property(_first_connect_mutex)


def _get_nowait(
    queue: Any, taken: Callable[[Any], Any] = AsyncAdaptedQueue.get_nowait
) -> Any:
    try:
        return taken(queue)
    except IndexError:  # another thread has taken the last item
        raise Empty from None


def _get(queue: Any, block: bool = True, timeout: float | None = None) -> Any:  # noqa: FBT001, FBT002 - SQLAlchemy's signature
    try:
        return queue.get_nowait()
    except Empty:
        if not block:
            raise
    return await_only(_wait_for_item(queue, timeout))


async def _wait_for_item(queue: Any, timeout: float | None) -> Any:  # noqa: ASYNC109 - SQLAlchemy's
    end = None if timeout is None else seconds() + timeout
    while True:
        await async_rest(_STEP)
        try:
            return queue.get_nowait()
        except Empty:
            if end is not None and seconds() >= end:
                raise


class AnyLoopMutex:
    """`asyncio.Lock` for tasks of any loop and thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.locked = self._lock.locked
        self.release = self._lock.release

    async def acquire(self) -> bool:
        """Wait until no task holds the lock, then hold it."""
        while not self._lock.acquire(blocking=False):
            await async_rest(_STEP)
        return True

    async def __aenter__(self) -> None:
        await self.acquire()

    async def __aexit__(self, *_: object) -> None:
        self.release()


def _first_connect_mutex(lock: AsyncAdaptedLock) -> AnyLoopMutex:
    # `setdefault` is atomic. With `cached_property` two threads could create one mutex each. A
    # property has precedence over the Lock that SQLAlchemy may have cached before.
    mutex: AnyLoopMutex = vars(lock).setdefault("_any_loop_mutex", AnyLoopMutex())
    return mutex


def free_locks(dbapi_connection: object) -> None:
    """Replace the lock around a connection's statements, and that of psycopg's connection.

    A lock in use is kept: a later checkout replaces it.
    """
    driver_connection = getattr(dbapi_connection, "driver_connection", None)
    for owner, name in (
        (dbapi_connection, "_execute_mutex"),
        (driver_connection, "lock"),
    ):
        lock = getattr(owner, name, None)
        if type(lock) is Lock and not lock.locked():
            setattr(owner, name, AnyLoopMutex())


def hand_out_newest(pool: Pool) -> None:
    """Let a pool hand out the connection that was returned last.

    Otherwise a request might meet the session state of the previous request or not, depending on
    the number of idle connections that earlier tests have opened.
    """
    if isinstance(pool, QueuePool):
        pool._pool.use_lifo = True  # noqa: SLF001 - no public name; `recreate` keeps it

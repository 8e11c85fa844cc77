"""Pools that are used in several event loops, one after the other.

A lock or a queue of asyncio binds to the first loop in which a task waits for it. When that loop
does not run any more, pytest-arena lets the lock forget it.
"""

from __future__ import annotations

import asyncio
from _thread import start_new_thread
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from sqlalchemy.util.concurrency import AsyncAdaptedLock, in_greenlet
from sqlalchemy.util.queue import AsyncAdaptedQueue

from pytest_arena._config._supported import WITHOUT_LOOP
from pytest_arena._process import running_loop
from pytest_arena._product._connection_loop import LoopConnection, keep_in_loop

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.engine import Dialect

    OneConnection = Callable[[Any], Any]


def install() -> None:
    """Unbind the queues of async pools, and the locks of their engines' first connections."""
    queue: Any = AsyncAdaptedQueue
    queue.get = _unbinding(AsyncAdaptedQueue.get)
    queue.put_nowait = _unbinding(AsyncAdaptedQueue.put_nowait)
    lock: Any = AsyncAdaptedLock
    lock.mutex = property(_first_connect_mutex)


def unbind(primitive: Any) -> None:
    """Let a queue or a lock forget its loop, and the waiters in it, if the loop does not run."""
    loop = getattr(primitive, "_loop", None)
    if loop is None or loop.is_running():
        return
    primitive._loop = None  # noqa: SLF001 - no public name
    for name in ("_getters", "_putters", "_waiters"):
        waiters = getattr(primitive, name, None)
        if waiters:
            waiters.clear()


def _unbinding(method: Callable[..., Any]) -> Callable[..., Any]:
    def called(queue: Any, *args: Any, **kwargs: Any) -> Any:
        unbind(queue._queue)  # noqa: SLF001 - no public name
        return method(queue, *args, **kwargs)

    return called


def _first_connect_mutex(lock: AsyncAdaptedLock) -> asyncio.Lock:
    # `setdefault` is atomic. A property has precedence over a Lock that was cached before.
    mutexes = vars(lock).setdefault("_arena_mutexes", WeakKeyDictionary())
    mutex: asyncio.Lock = mutexes.setdefault(running_loop(), asyncio.Lock())
    return mutex


def unbind_locks(dbapi_connection: object) -> None:
    """Unbind the lock around a connection's statements, and that of psycopg's connection."""
    unbind(getattr(dbapi_connection, "_execute_mutex", None))
    driver_connection = getattr(dbapi_connection, "driver_connection", None)
    unbind(getattr(driver_connection, "lock", None))


def instrument_loops(dialect: Dialect) -> None:
    """Let the connections of an async dialect work in each event loop."""
    if not dialect.is_async:
        return
    is_bound = dialect.driver not in WITHOUT_LOOP
    keep_in_loop(dialect, is_bound=is_bound)
    if is_bound:
        return
    instance: Any = dialect
    for name in ("do_terminate", "do_close"):
        setattr(instance, name, _close_without_awaiting(getattr(dialect, name)))


def _close_without_awaiting(close: OneConnection) -> OneConnection:
    """Close a connection of psycopg or aiosqlite, also outside of a greenlet.

    Outside of a greenlet psycopg's close cannot be awaited, so libpq closes the connection.
    aiosqlite's worker would answer the running loop, which may be closed soon, so a thread without
    a loop stops it. `threading.Thread` would wait for a lock, and the garbage collector may call
    this function.
    """

    def closed(dbapi_connection: Any) -> None:
        connection = dbapi_connection.driver_connection
        if in_greenlet() or isinstance(dbapi_connection, LoopConnection):
            close(dbapi_connection)
            return
        stop = getattr(connection, "stop", None)
        if stop is not None:
            start_new_thread(stop, ())
        else:
            connection.pgconn.finish()

    return closed

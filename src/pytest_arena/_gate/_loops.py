"""Pools and connections that are used in several event loops, one after the other.

A lock or a queue of asyncio binds to the first loop in which a task waits for it. When that loop
does not run any more, pytest-arena lets the lock forget it. A connection belongs to one loop. In
another loop its pool drops it without a traceback, and the app reconnects. A connection is closed
before its loop.
"""

from __future__ import annotations

import asyncio
import os
import socket
import weakref
from contextlib import suppress
from contextvars import Context
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any

from sqlalchemy.pool import Pool, QueuePool
from sqlalchemy.util.concurrency import AsyncAdaptedLock
from sqlalchemy.util.queue import AsyncAdaptedQueue

from pytest_arena._config._supported import WITHOUT_LOOP
from pytest_arena._process import alive, running_loop

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable

# The loop of each driver's connection. SQLAlchemy passes only the connection when it pings or
# closes.
_loops: weakref.WeakKeyDictionary[object, weakref.ref[AbstractEventLoop]] = (
    weakref.WeakKeyDictionary()
)


_before_close: list[Callable[[object], None]] = []


def install(before_close: Callable[[object], None]) -> None:
    """Unbind the queues of async pools, and the locks of their engines' first connections.

    ``before_close`` is called with each driver's connection that is closed with its loop.
    """
    _before_close.append(before_close)
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
    mutex: asyncio.Lock = vars(lock).setdefault("_arena_mutex", asyncio.Lock())
    unbind(mutex)
    return mutex


def unbind_locks(dbapi_connection: object) -> None:
    """Unbind the lock around a connection's statements, and that of psycopg's connection."""
    unbind(getattr(dbapi_connection, "_execute_mutex", None))
    driver_connection = getattr(dbapi_connection, "driver_connection", None)
    unbind(getattr(driver_connection, "lock", None))


def hand_out_newest(pool: Pool) -> None:
    """Let a pool hand out the connection that was returned last.

    Otherwise a request might meet the session state of the previous request or not, depending on
    the number of idle connections that earlier tests have opened.
    """
    if isinstance(pool, QueuePool):
        pool._pool.use_lifo = True  # noqa: SLF001 - no public name; `recreate` keeps it


def bind_to_loop(dbapi_connection: object) -> None:
    """Note the loop of a connection that was opened or returned, if it cannot leave that loop.

    The connection is closed before the loop. Afterwards no driver could close it: Python would warn
    of the open socket, and uvloop would wait for ever if that warning is an error.
    """
    connection = getattr(dbapi_connection, "driver_connection", None)
    loop = running_loop()
    if connection is None or loop is None or works_in_all_loops(dbapi_connection):
        return
    if type(connection).__module__.partition(".")[0] in WITHOUT_LOOP:
        return
    with suppress(TypeError):  # a driver's class without weak references
        if connection not in _loops:
            _loops[connection] = weakref.ref(loop)
            _close_with(loop)


def works_in_all_loops(dbapi_connection: object) -> bool:
    """Return whether a connection is a facade, which sends nothing when it is closed."""
    return getattr(dbapi_connection, "works_in_all_loops", False)


def is_foreign(dbapi_connection: object) -> bool:
    """Return whether a connection belongs to another loop than the running one. Costs 1 µs."""
    connection = getattr(dbapi_connection, "driver_connection", None)
    if connection is None:
        return False
    with suppress(TypeError):  # as above
        reference = _loops.get(connection)
        return reference is not None and reference() is not running_loop()
    return False


def transport_of(connection: object) -> Any:
    """Return the transport of a driver's connection, None for an unknown driver."""
    # MySQL's drivers have a writer, and asyncpg a transport.
    writer = getattr(connection, "_writer", None)
    return getattr(connection, "_transport", None) or getattr(writer, "transport", None)


def hang_up(connection: object) -> None:
    """End a connection of another loop. That loop may run, not run, or be closed."""
    loop = _loop_of(connection)
    if loop is None or loop.is_closed():
        _force_close(connection)
        return
    if not loop.is_running():
        # The loop may never run again, so shut the socket down. An open loop has not closed it.
        with suppress(Exception):  # the driver is unknown, or has closed the socket
            number = transport_of(connection).get_extra_info("socket").fileno()
            with socket.socket(fileno=os.dup(number)) as copy:
                copy.shutdown(socket.SHUT_RDWR)
    # An empty context: the call does not belong to the request that runs now.
    with suppress(RuntimeError):  # closed meanwhile
        Context().run(loop.call_soon_threadsafe, _force_close, connection)


def _loop_of(connection: object) -> AbstractEventLoop | None:
    reference = _loops.get(connection)
    if reference is None:
        return None
    return reference()


def _force_close(connection: object) -> None:
    """Close without awaiting, if the driver can: asyncpg by terminate(), MySQL's by close()."""
    end = getattr(connection, "terminate", None) or getattr(connection, "close", None)
    if end is not None and not iscoroutinefunction(end):
        with suppress(Exception):  # its loop or its socket is closed
            end()


class _ClosingLoop:
    """Replaces the ``close`` of a loop, and closes its connections first."""

    def __init__(self, loop: AbstractEventLoop) -> None:
        self._close = loop.close

    def __call__(self) -> None:
        loop: AbstractEventLoop = self._close.__self__  # type: ignore[attr-defined]  # a bound method
        if not (loop.is_closed() or loop.is_running()):
            _close_connections_of(loop)
        self._close()


def _close_with(loop: AbstractEventLoop) -> None:
    if isinstance(loop.close, _ClosingLoop):
        return
    with suppress(AttributeError):  # a loop whose methods cannot be replaced
        loop.close = _ClosingLoop(loop)  # type: ignore[method-assign]  # of this one instance


def _close_connections_of(loop: AbstractEventLoop) -> None:
    has_closed = False
    for connection in alive(_loops):
        if _loop_of(connection) is loop:
            transport = transport_of(connection)
            for note in _before_close:
                note(connection)
            _force_close(connection)
            _abort(transport)
            has_closed = True
    with suppress(RuntimeError):  # another loop runs in this thread
        if has_closed:
            # Transports close their sockets in the next pass of the loop.
            loop.call_soon(loop.stop)
            loop.run_forever()


def _abort(transport: Any) -> None:
    """Close a transport at once. A transport of TLS would wait for the server's answer."""
    if hasattr(transport, "abort"):
        with suppress(Exception):  # its socket is closed
            transport.abort()

"""Connections that belong to one event loop.

pytest-arena drops them without a traceback in other loops, and closes them before their loop.
"""

from __future__ import annotations

import os
import socket
import weakref
from contextlib import suppress
from contextvars import Context
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any

from pytest_arena._config._supported import WITHOUT_LOOP
from pytest_arena._process import alive, running_loop

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

# The loop of each driver's connection. SQLAlchemy passes only the connection when it pings or
# closes.
_loops: weakref.WeakKeyDictionary[object, weakref.ref[AbstractEventLoop]] = (
    weakref.WeakKeyDictionary()
)


def bind_to_loop(dbapi_connection: object) -> None:
    """Note the loop of a connection that was opened or returned, if it cannot leave that loop.

    The connection is closed before the loop. Afterwards no driver could close it: Python would warn
    of the open socket, and uvloop would wait for ever if that warning is an error.
    """
    connection = getattr(dbapi_connection, "driver_connection", None)
    loop = running_loop()
    if connection is None or loop is None or _moves(connection):
        return
    with suppress(TypeError):  # a driver's class without weak references
        if connection not in _loops:
            _loops[connection] = weakref.ref(loop)
            _close_with(loop)


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


def _moves(connection: object) -> bool:
    moves = getattr(transport_of(connection), "moves_between_loops", False)
    return moves or type(connection).__module__.partition(".")[0] in WITHOUT_LOOP

"""Which connections cannot leave their loop, and how are they dropped without a word?"""

from __future__ import annotations

import os
import socket
import weakref
from contextlib import suppress
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.engine import AdaptedConnection
from sqlalchemy.util.concurrency import in_greenlet

from pytest_arena._process import running_loop
from pytest_arena._values import alive

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable

    from sqlalchemy.engine import Dialect

__all__ = ["drop_quietly", "is_foreign", "note_owner", "transport_of"]

# Their connections wait with what the running loop offers, and belong to none.
_WITHOUT_LOOP: Final = frozenset({"psycopg", "aiosqlite"})

_owners: Final[weakref.WeakKeyDictionary[Any, weakref.ref[AbstractEventLoop]]] = (
    weakref.WeakKeyDictionary()
)
_quiet_ones: Final[weakref.WeakSet[Dialect]] = weakref.WeakSet()
_watched: Final[weakref.WeakSet[AbstractEventLoop]] = weakref.WeakSet()


def note_owner(dbapi_connection: object) -> None:
    """Remember in which loop a new connection was made, where it cannot leave it.

    To be called for each new connection, however it was made. When its loop is closed, it is
    closed first: afterwards nothing could be said to it any more, its socket would be collected
    with a ResourceWarning, and uvloop waits for ever where that is an error.
    """
    connection = _driver_connection(dbapi_connection)
    loop = running_loop()
    if connection is None or loop is None or _is_without_loop(connection):
        return
    with suppress(TypeError):  # a driver's class that has no weak references
        _owners[connection] = weakref.ref(loop)
        _watch(loop)


def is_foreign(dbapi_connection: object) -> bool:
    """Whether a connection belongs to another loop than the running one. Costs about 1 µs."""
    connection = _driver_connection(dbapi_connection)
    if connection is None:
        return False
    with suppress(TypeError):  # as above
        owner = _owners.get(connection)
        return owner is not None and owner() is not running_loop()
    return False


def drop_quietly(dialect: Dialect) -> None:
    """Have the pools of a dialect drop what belongs to another loop, instead of talking to it.

    SQLAlchemy pings a connection *before* any listener may look at it, and terminates one by
    saying goodbye in the running loop: either fails in another loop, with tracebacks in the log.
    Wraps three methods of the instance, once; a method call more for each ping and close.
    """
    if not dialect.is_async or dialect.driver == "aiosqlite" or dialect in _quiet_ones:
        return
    _quiet_ones.add(dialect)
    instance: Any = dialect  # its methods are replaced, its class's are not
    if dialect.driver in _WITHOUT_LOOP:
        instance.do_close = _without_awaiting(dialect.do_close)
        instance.do_terminate = _without_awaiting(dialect.do_terminate)
        return
    ping = dialect.do_ping
    instance.do_ping = lambda connection: not is_foreign(connection) and ping(connection)
    instance.do_close = _quiet(dialect.do_close)
    instance.do_terminate = _quiet(dialect.do_terminate)


def transport_of(connection: Any) -> Any:
    """Return the transport of a driver's connection, None where its place is not known."""
    found = getattr(connection, "_transport", None)  # asyncpg
    if found is None:
        found = getattr(getattr(connection, "_writer", None), "transport", None)  # MySQL's drivers
    return found


def _quiet(end: Callable[[Any], None]) -> Callable[[Any], None]:
    def close(dbapi_connection: Any) -> None:
        connection = _driver_connection(dbapi_connection)
        transport = transport_of(connection)
        if is_foreign(dbapi_connection):
            _hang_up(connection)
        else:
            try:
                end(dbapi_connection)
            except RuntimeError:
                # Somebody was still at it in a loop that is closed: a statement being cancelled.
                _hang_up(connection)
        if getattr(transport, "moves_between_loops", False) and not transport.is_closing():
            transport.abort()  # asyncpg takes a connection that the server has ended for closed

    return close


def _without_awaiting(end: Callable[[Any], None]) -> Callable[[Any], None]:
    """Psycopg's connections are closed by awaiting alone; libpq's can be, anywhere."""

    def close(dbapi_connection: Any) -> None:
        if in_greenlet():
            end(dbapi_connection)
        else:
            _driver_connection(dbapi_connection).pgconn.finish()

    return close


def _hang_up(connection: Any) -> None:
    """End a connection that belongs to another loop, whatever that one does."""
    reference = _owners.get(connection)
    owner = reference() if reference is not None else None
    if owner is None or owner.is_closed():
        _force_close(connection)
        return
    if not owner.is_running():
        # It may never run again, but it is open, and so the socket's number is still its own.
        with suppress(Exception):  # a driver whose socket is elsewhere, or closed
            _shut_down(transport_of(connection).get_extra_info("socket").fileno())
    with suppress(RuntimeError):  # closed meanwhile
        owner.call_soon_threadsafe(_force_close, connection)


def _force_close(connection: Any) -> None:
    """Have a driver do what it can without awaiting: asyncpg's terminate(), MySQL's close()."""
    end = getattr(connection, "terminate", None) or getattr(connection, "close", None)
    if end is not None and not iscoroutinefunction(end):
        with suppress(Exception):  # it finds that its loop or its socket is closed
            end()


def _watch(loop: AbstractEventLoop) -> None:
    """Have a loop close its connections before it is closed itself. Nothing else tells of it."""
    if loop in _watched:
        return
    _watched.add(loop)
    close = loop.close

    def close_all() -> None:
        if not (loop.is_closed() or loop.is_running()):
            _close_those_of(loop)
        close()

    with suppress(AttributeError):  # a loop whose methods cannot be replaced
        loop.close = close_all  # type: ignore[method-assign]  # of this one instance


def _close_those_of(loop: AbstractEventLoop) -> None:
    known = alive(_owners)
    mine = [one for one in known if (owner := _owners.get(one)) is not None and owner() is loop]
    for connection in mine:
        _force_close(connection)
    with suppress(RuntimeError):  # another loop runs in this thread
        if mine:
            # Transports close their sockets in the next round.
            loop.call_soon(loop.stop)
            loop.run_forever()


def _shut_down(number: int) -> None:
    with socket.socket(fileno=os.dup(number)) as copy:
        copy.shutdown(socket.SHUT_RDWR)


def _is_without_loop(connection: Any) -> bool:
    if getattr(transport_of(connection), "moves_between_loops", False):
        return True
    module = type(connection).__module__.partition(".")[0]
    return module in _WITHOUT_LOOP


def _driver_connection(dbapi_connection: object) -> Any:
    if isinstance(dbapi_connection, AdaptedConnection):
        return dbapi_connection.driver_connection
    return None

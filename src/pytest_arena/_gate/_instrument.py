"""Wraps the methods of an async dialect that ping or close a connection, on the instance."""

from __future__ import annotations

from _thread import start_new_thread
from typing import TYPE_CHECKING, Any

from sqlalchemy.util.concurrency import in_greenlet

from pytest_arena._config._supported import WITHOUT_LOOP
from pytest_arena._gate._loops import hang_up, is_foreign, works_in_all_loops

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.engine import Dialect

    OneConnection = Callable[[Any], Any]


def instrument_loops(dialect: Dialect) -> None:
    """Let the pools of a dialect drop connections of another event loop without a traceback.

    SQLAlchemy pings a connection before it calls any listener, and closes it by a message to the
    server. Both happen in the running loop. If the connection belongs to another loop, both log
    tracebacks.
    """
    if not dialect.is_async:
        return
    instance: Any = dialect
    close = _close_without_awaiting
    if dialect.driver not in WITHOUT_LOOP:
        instance.do_ping = _ping(dialect.do_ping)
        close = _close_in_loop
    for name in ("do_terminate", "do_close"):
        setattr(instance, name, close(getattr(dialect, name)))


def _ping(ping: OneConnection) -> OneConnection:
    def pinged(dbapi_connection: object) -> bool:
        return not is_foreign(dbapi_connection) and bool(ping(dbapi_connection))

    return pinged


def _close_in_loop(close: OneConnection) -> OneConnection:
    def closed(dbapi_connection: Any) -> None:
        connection = dbapi_connection.driver_connection
        if works_in_all_loops(dbapi_connection):
            close(dbapi_connection)
        elif is_foreign(dbapi_connection):
            hang_up(connection)
        else:
            try:
                close(dbapi_connection)
            except RuntimeError:
                # A statement was being cancelled in a loop that was closed meanwhile.
                hang_up(connection)

    return closed


def _close_without_awaiting(close: OneConnection) -> OneConnection:
    """Close a connection of psycopg or aiosqlite, also outside of a greenlet.

    Outside of a greenlet psycopg's close cannot be awaited, so libpq closes the connection.
    aiosqlite's worker would answer the running loop, which may be closed soon, so a thread without
    a loop stops it. `threading.Thread` would wait for a lock, and the garbage collector may call
    this function.
    """

    def closed(dbapi_connection: Any) -> None:
        connection = dbapi_connection.driver_connection
        if in_greenlet() or works_in_all_loops(dbapi_connection):
            close(dbapi_connection)
            return
        stop = getattr(connection, "stop", None)
        if stop is not None:
            start_new_thread(stop, ())
        else:
            connection.pgconn.finish()

    return closed

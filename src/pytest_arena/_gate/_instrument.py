"""Wraps the methods of a dialect, on the instance.

A query takes 0.5 µs longer, a write 3 µs, and the first write of a transaction some 15 µs.
Listeners to SQLAlchemy's events would take 16 µs for each connection and 3 µs for each statement.
`functools.wraps` would take a third of the time that the creation of an engine takes.
"""

from __future__ import annotations

from _thread import start_new_thread
from typing import TYPE_CHECKING, Any

from sqlalchemy.util.concurrency import in_greenlet

from pytest_arena._config._supported import WITHOUT_LOOP
from pytest_arena._gate._answers import ANSWER, apart_from_requests
from pytest_arena._gate._loops import hang_up, is_foreign
from pytest_arena._gate._pooled import PooledConnection
from pytest_arena._gate.writes._statements import may_write
from pytest_arena._origin import REQUEST

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy.engine import Dialect

    from pytest_arena._gate.writes._lost_writes import WatchingGate

    OneConnection = Callable[[Any], Any]


def instrument(dialect: Dialect, gates: Sequence[WatchingGate]) -> None:
    """Report the statements, commits and rollbacks of a dialect's engines to the current gate."""
    instance: Any = dialect
    instance.initialize = _initialize(dialect.initialize)
    instrument_loops(dialect)
    for name in ("do_execute", "do_executemany", "do_execute_no_params"):
        setattr(instance, name, _execute(getattr(dialect, name), gates))
    instance.do_commit = _commit(dialect.do_commit, gates)
    instance.do_rollback = _roll_back(dialect.do_rollback, gates)


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


def _initialize(initialize: OneConnection) -> OneConnection:
    def initialized(connection: Any) -> None:
        # The queries that SQLAlchemy sends here belong to no request.
        with apart_from_requests():
            initialize(connection)

    return initialized


def _ping(ping: OneConnection) -> OneConnection:
    def pinged(dbapi_connection: object) -> bool:
        return not is_foreign(dbapi_connection) and bool(ping(dbapi_connection))

    return pinged


# Not empty if a connection reads its statements. Each statement then takes a microsecond longer.
_READERS: list[str] = []


def read_statements() -> None:
    """Let connections read each statement before it is executed, from now on."""
    _READERS.append("a server")


def _read(context: Any, statement: str) -> str:
    """Let the statement's connection read it. Return the statement to execute."""
    if context is None:
        return statement
    connection = context.root_connection
    pooled = PooledConnection.find(connection.connection)
    if pooled is None or pooled.handle is None:
        return statement
    return pooled.handle.before_execute(statement, connection)


def _execute(
    execute: Callable[..., object], gates: Sequence[WatchingGate]
) -> Callable[..., object]:
    def executed(
        cursor: object, statement: str, *rest: object, **named: object
    ) -> None:
        last = rest[-1] if rest else None
        context = named.get("context", last)
        lost = gates[-1].lost
        answer = ANSWER.get()
        # In a thread or a job of the request, only `REQUEST` is set.
        request = answer or REQUEST.get()
        if request is not None:
            request.statements.append(statement)
        if _READERS:
            statement = _read(context, statement)
        try:
            execute(cursor, statement, *rest, **named)
        except BaseException as error:
            lost.after_failure(context, error)
            if answer is not None:
                answer.note_error(error)
            raise
        if may_write(context, statement):
            lost.after_execute(context, cursor, statement, rest[0])

    return executed


def _commit(commit: OneConnection, gates: Sequence[WatchingGate]) -> OneConnection:
    def committed(proxied: object) -> None:
        gates[-1].lost.commit(commit, proxied)

    return committed


def _roll_back(
    roll_back: OneConnection, gates: Sequence[WatchingGate]
) -> OneConnection:
    def rolled_back(proxied: object) -> None:
        gates[-1].lost.before_rollback(proxied)
        roll_back(proxied)

    return rolled_back


def _close_in_loop(close: OneConnection) -> OneConnection:
    def closed(dbapi_connection: Any) -> None:
        connection = dbapi_connection.driver_connection
        if is_foreign(dbapi_connection):
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
        if in_greenlet():
            close(dbapi_connection)
            return
        stop = getattr(connection, "stop", None)
        if stop is not None:
            start_new_thread(stop, ())
        else:
            connection.pgconn.finish()

    return closed

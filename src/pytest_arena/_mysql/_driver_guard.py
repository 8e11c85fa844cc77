"""Watches the drivers' calls that open connections, and the statements of all connections.

An engine's connection still has the arguments that the gate has written. Any other connection is
refused, redirected or admitted before a socket opens. It ends with the level that opened it. The
statements tell which tables a level may have written.
"""

from __future__ import annotations

import weakref
from functools import cache, partial, wraps
from inspect import isawaitable
from typing import TYPE_CHECKING, Any

from pytest_arena._interpreter import when_imported
from pytest_arena._mysql import _arguments as arguments
from pytest_arena._mysql._sessions import (
    begin_session,
    is_in_transaction,
    known_session,
    pid_of,
)
from pytest_arena._mysql._statements import WORDS
from pytest_arena._product._admission import UNWATCHED, Admission, change_module
from pytest_arena._product._raw_guard import Arguments, RawConnections, RawGuard
from pytest_arena._product._statements import bare, classify

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from pytest_arena._product._admission import FindCore
    from pytest_arena._product._statements import Statement

__tracebackhide__ = True  # a traceback of the app or of a test ends at its own line

CONNECTIONS = RawConnections(pid_of, is_in_transaction)
_LONG = 4096  # characters
# Of the constructors of aiomysql and mysqlclient. The others have only named parameters.
_POSITIONAL = ("host", "user", "password", "db", "port", "unix_socket")


class _DriverGuard(RawGuard):
    """Decides on each connection, and notes its statements."""

    def __init__(self, find_core: FindCore) -> None:
        super().__init__(
            find_core,
            Arguments(
                lambda _driver, _args, kwargs: arguments.target(kwargs),
                lambda _driver, _args, kwargs: arguments.is_redirected(kwargs),
                arguments.redirect,
                lambda driver, address, _args, kwargs: arguments.redirect(
                    driver, address, kwargs
                ),
            ),
            CONNECTIONS,
        )
        self.find_core = find_core
        # The admissions of connections that no engine opens, until their first statement.
        self._admissions: weakref.WeakKeyDictionary[object, Admission] = (
            weakref.WeakKeyDictionary()
        )

    def constructor(
        self, driver: str, original: Callable[..., Any]
    ) -> Callable[..., None]:
        """Return a constructor that first decides on the connection."""

        def __init__(connection: object, *args: object, **kwargs: Any) -> None:  # noqa: N807 - replaces it
            named = {**dict(zip(_POSITIONAL, args, strict=False)), **kwargs}
            admission = self.admit(driver, [], named)
            if admission is not None:
                self._admissions[connection] = admission
            original(connection, **named)
            self._begin(connection)  # a sync driver has connected

        return __init__

    def query(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Return a method that notes each statement and the number of rows that it changes."""

        def send(
            connection: object, sql: object, *args: object, **options: object
        ) -> Any:
            statement = self._sending(connection, sql)
            answer = original(connection, sql, *args, **options)
            return _then(answer, partial(_note_rows, connection, statement))

        return send

    def _sending(self, connection: Any, sql: Any) -> Statement | None:
        """Note a statement before the driver sends it."""
        self._begin(connection)
        session = known_session(connection)
        if session is None:
            return None
        if isinstance(sql, bytes | bytearray):
            sql = sql.decode(errors="surrogateescape")
        text = bare(sql, WORDS)
        # The results for long statements, which have data, are not kept.
        kind = classify if len(text) < _LONG else classify.__wrapped__
        statement = kind(text, WORDS)
        session.sending(statement, autocommits=bool(connection.get_autocommit()))
        return statement

    def _begin(self, connection: object) -> None:
        """Note a new connection that no engine has opened."""
        admission = self._admissions.get(connection)
        core = self.find_core()
        if admission is None or core is None or not pid_of(connection):
            return
        del self._admissions[connection]
        if known_session(connection) is not None:
            return  # the pool of an engine has got it
        CONNECTIONS.add(core, admission, connection)
        if admission.target is not None:
            begin_session(connection, admission.target)


def _note_rows(connection: Any, statement: Statement | None, rows: object) -> None:
    session = known_session(connection)
    if session is None or statement is None:
        return
    if rows is None and hasattr(connection, "affected_rows"):  # mysqlclient
        rows = connection.affected_rows()
    session.sent(statement, rows)


def _ending(original: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method that ends a transaction, and notes that."""

    def end(connection: object) -> Any:
        return _then(original(connection), partial(_note_end, connection))

    return end


def _note_end(connection: object, _answer: object) -> None:
    session = known_session(connection)
    if session is not None:
        session.end_transaction()


def _then(answer: Any, note: Callable[[Any], None]) -> Any:
    """Call a function with a driver's answer, also after an async driver's. Return the answer."""

    async def wait() -> Any:
        result = await answer
        note(result)
        return result

    if isawaitable(answer):
        return wait()
    note(answer)
    return answer


def _replace(
    kind: Any, name: str, make: Callable[[Callable[..., Any]], Callable[..., object]]
) -> None:
    """Replace a method of a driver's class, once, by the method that ``make`` returns.

    Raises:
        AttributeError: this version of the driver has no such method.
    """
    original = getattr(kind, name)
    if not hasattr(original, "arena_guards"):
        guarded: Any = wraps(original)(make(original))
        guarded.arena_guards = True
        setattr(kind, name, guarded)


def _guard_driver(driver: str, guard: _DriverGuard, module: ModuleType) -> None:
    kind = module.Connection
    _replace(kind, "__init__", partial(guard.constructor, driver))
    _replace(kind, "query", guard.query)
    if hasattr(kind, "prepare"):  # asyncmy executes such a statement without `query`
        _replace(kind, "prepare", guard.query)
    _replace(kind, "commit", _ending)
    _replace(kind, "rollback", _ending)


_MODULES = {
    "pymysql.connections": "pymysql",
    "aiomysql.connection": "aiomysql",
    "asyncmy.connection": "asyncmy",
    "MySQLdb.connections": "mysqldb",
}


@cache
def watch_drivers(find_core: FindCore) -> None:
    """Watch the drivers until the process ends. Imports none of them."""
    guard = _DriverGuard(find_core)
    for module, driver in _MODULES.items():
        change = partial(_guard_driver, driver, guard)
        when_imported(module, partial(change_module, find_core, change, UNWATCHED))

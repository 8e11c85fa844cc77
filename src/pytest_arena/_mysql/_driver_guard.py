"""Watches the drivers' calls that open connections, and the statements of all connections.

An engine's connection still has the arguments that the gate has written. Any other connection is
refused, redirected or admitted before a socket opens. It ends with the level that opened it. The
statements tell which tables a level may have written.
"""

from __future__ import annotations

import weakref
from functools import cache, partial, wraps
from inspect import Parameter, iscoroutinefunction, signature
from typing import TYPE_CHECKING, Any, TypeAlias

from pytest_arena._interpreter import when_imported
from pytest_arena._mysql import _arguments as arguments
from pytest_arena._mysql._sessions import (
    begin_session,
    has_written,
    is_in_transaction,
    known_session,
    note_answer,
    pid_of,
)
from pytest_arena._mysql._statements import created_or_dropped_database
from pytest_arena._origin import cause_of_connection
from pytest_arena._product._admission import UNWATCHED, Admission, change_module
from pytest_arena._product._raw_guard import Arguments, RawConnections, RawGuard

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import ModuleType

    from pytest_arena._product import Core
    from pytest_arena._product._admission import FindCore

    _Arguments: TypeAlias = tuple[tuple[object, ...], dict[str, object]]

__tracebackhide__ = True  # a traceback of the app or of a test ends at its own line

CONNECTIONS = RawConnections(pid_of)
_STATEMENT_WITHOUT_EFFECT = "DO 0"
_NOT_SENT = (
    "pytest-arena did not send the statement, because an engine on any database reaches the test's "
    "database. Delete the fixture, and name the source of the tables by"
)
# The constructor of mysqlclient has no named parameters: a function in C gets its arguments.
_OF_MYSQLCLIENT = ("host", "user", "password", "database", "port", "unix_socket")


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
        # The admissions of connections that no engine opens.
        self._admissions: weakref.WeakKeyDictionary[object, Admission] = (
            weakref.WeakKeyDictionary()
        )

    def connecting(
        self, driver: str, original: Callable[..., Any]
    ) -> Callable[..., None]:
        """Return a constructor that first decides on the connection."""

        def __init__(connection: object, *args: object, **kwargs: Any) -> None:  # noqa: N807 - replaces it
            named = {**_keywords(original, args), **kwargs}
            admission = self.admit(driver, [], named)
            if admission is not None:
                self._admissions[connection] = admission
            original(connection, **named)
            if driver == "mysqldb":
                self.connected(connection)

        return __init__

    def connected(self, connection: object, *_: object) -> None:
        """Note a connection that was opened, or opened again."""
        session = known_session(connection)
        if session is not None:
            session.note_pid(pid_of(connection))
        admission = self._admissions.get(connection)
        core = self.find_core()
        if admission is None or core is None:
            return
        CONNECTIONS.add(core, admission, connection)
        if admission.target is not None and session is None:
            begin_session(connection, admission.target)

    def sending(
        self, connection: object, sql: object, *args: object, **options: object
    ) -> _Arguments:
        """Note a statement. Return the arguments of the method that sends it.

        The test database that a fixture creates is not needed.
        """
        session = known_session(connection)
        if session is None:
            return (sql, *args), options
        text = _text_of(sql)
        core = self.find_core()
        name = created_or_dropped_database(text) if core is not None else ""
        if name and core and core.accept_fixture_database(session.target.key, name):
            _note_not_sent(core, name)
            return (_STATEMENT_WITHOUT_EFFECT, *args), options
        session.sending(text, is_begun=is_in_transaction(connection))
        return (sql, *args), options


def _note_not_sent(core: Core, name: str) -> None:
    if not any(_NOT_SENT in note for note in core.ledger.notes):
        core.ledger.note(
            f"a fixture creates or drops a test database: {cause_of_connection()}. {_NOT_SENT} "
            f"a line `{name} = <module>:<Base>` in arena_schema"
        )


def _text_of(statement: object) -> str:
    if isinstance(statement, bytes | bytearray):
        return bytes(statement).decode(errors="surrogateescape")
    return str(statement)


def _sent(connection: object, args: Sequence[object], rows: object) -> None:
    note_answer(connection, _text_of(args[0]), rows)


def _ended(connection: object, _args: Sequence[object], _answer: object) -> None:
    """Note the end of a transaction."""
    session = known_session(connection)
    if session is not None:
        session.answered(has_rows=False, autocommits=False)


def _closing(original: Callable[..., object]) -> Callable[..., object]:
    """Return a method that notes whether a transaction with changed rows ends."""

    def close(connection: object) -> object:
        session = known_session(connection)
        if session is not None and has_written(connection):
            session.close(has_written=True)
        return original(connection)

    return close


def _keywords(
    original: Callable[..., Any], args: tuple[object, ...]
) -> dict[str, object]:
    """Return positional arguments of a constructor by their names."""
    names: Sequence[str] = [
        name
        for name, parameter in signature(original).parameters.items()
        if parameter.kind is Parameter.POSITIONAL_OR_KEYWORD and name != "self"
    ]
    return dict(zip(names or _OF_MYSQLCLIENT, args, strict=False))


def _keep(_connection: object, *args: object, **options: object) -> _Arguments:
    return args, options


def _ignore(_connection: object, _args: Sequence[object], _answer: object) -> None:
    pass


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


def _around(
    original: Callable[..., Any],
    *,
    before: Callable[..., _Arguments] = _keep,
    after: Callable[[object, Sequence[object], object], None] = _ignore,
) -> Callable[..., object]:
    """Return a method that calls ``before`` and ``after`` a driver's method.

    ``before`` returns the arguments for the driver. ``after`` gets the positional arguments, and
    the driver's answer.
    """

    def method(connection: object, *args: object, **options: object) -> object:
        args, options = before(connection, *args, **options)
        answer = original(connection, *args, **options)
        after(connection, args, answer)
        return answer

    async def amethod(connection: object, *args: object, **options: object) -> object:
        args, options = before(connection, *args, **options)
        answer = await original(connection, *args, **options)
        after(connection, args, answer)
        return answer

    # asyncmy is compiled, so its coroutine functions are no Python functions.
    is_compiled = str(getattr(original, "__module__", "")).startswith("asyncmy")
    return amethod if is_compiled or iscoroutinefunction(original) else method


def _guard_driver(driver: str, guard: _DriverGuard, module: ModuleType) -> None:
    kind = module.Connection
    _replace(kind, "__init__", partial(guard.connecting, driver))
    if driver == "mysqldb":
        _replace(kind, "autocommit", partial(_around, after=_ended))
    else:
        connect = "_connect" if driver == "aiomysql" else "connect"
        _replace(kind, connect, partial(_around, after=guard.connected))
    _replace(kind, "query", partial(_around, before=guard.sending, after=_sent))
    _replace(kind, "commit", partial(_around, after=_ended))
    _replace(kind, "rollback", partial(_around, after=_ended))
    closing = ["close"]
    if driver in arguments.ASYNC_DRIVERS:
        closing.append("ensure_closed")
    for name in closing:
        _replace(kind, name, _closing)
    if driver == "asyncmy":  # which sends a prepared statement without `query`
        _replace(kind, "prepare", partial(_around, before=guard.sending))


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

"""Refuses or redirects connections that no engine opens.

pytest-arena replaces the constructor of each driver's connections, and the method that sends
statements. Engines call them, too. The guard admits a connection if it still has the arguments that
the gate has set.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial, wraps
from inspect import Parameter, iscoroutinefunction, signature
from typing import TYPE_CHECKING, Any, TypeAlias

from pytest_arena._interpreter import when_imported
from pytest_arena._mysql import _arguments as arguments
from pytest_arena._mysql.drivers._records import (
    changed_rows_of,
    give_up,
    known_record,
    note_answer,
    pid_of,
    record_of,
    text_of,
    to_send,
)
from pytest_arena._origin import is_own
from pytest_arena._product._admission import (
    UNWATCHED,
    Admission,
    SpawnedConnections,
    admit,
    change_module,
    changed_by_app,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import ModuleType

    from pytest_arena._product._admission import FindCore
    from pytest_arena._values import Address

    _Arguments: TypeAlias = tuple[tuple[object, ...], dict[str, object]]

__tracebackhide__ = True  # a traceback of the app or of a test ends at its own line


class _DriverGuard:
    """Decides on each connection before a socket is opened."""

    def __init__(self, find_core: FindCore) -> None:
        self.find_core = find_core

    def admit(self, driver: str, kwargs: dict[str, Any]) -> Admission | None:
        """Refuse, redirect or admit a connection. Return None if the guard ignores it afterwards.

        Raises:
            RefusedError: the connection may not be opened.
        """
        core = self.find_core()
        if core is None or is_own():
            return None
        address = arguments.redirected_to(kwargs)
        server = arguments.target(kwargs)
        if address is not None:
            if not arguments.are_unchanged(kwargs, address):
                raise core.ledger.refused(changed_by_app(server))
            return Admission(address)
        return admit(
            core,
            driver,
            server,
            write_address=lambda address: arguments.redirect(driver, address, kwargs),
            redirect=lambda address: arguments.redirect(driver, address, kwargs),
        )

    def ask_first(
        self, connection: object, sql: object, *args: object, **options: object
    ) -> _Arguments:
        """Return the arguments of ``query`` with the statement to send."""
        replacement = to_send(self.find_core, connection, sql)
        return (replacement or sql, *args), options

    def opened(self, admission: Admission | None, connection: object) -> None:
        """Record an admitted connection."""
        core = self.find_core()
        if admission is None or core is None:
            return
        record = record_of(connection)
        record.admit(admission)
        record.note_pid(pid_of(connection))
        if admission.target is not None:
            core.opened_raw(admission.target.key)


class _SpawnedDriverGuard(_DriverGuard):
    """Decides in a process that multiprocessing has spawned. The process has no core."""

    def __init__(self, spawned: SpawnedConnections) -> None:
        super().__init__(lambda: None)
        self._spawned = spawned

    def admit(self, driver: str, kwargs: dict[str, Any]) -> None:
        """Redirect a connection to the test's database, as in a forked process.

        Raises:
            UnknownDatabaseError: no engine of the test's process had that database.
        """
        named = arguments.target(kwargs)
        server = replace(
            named, login=None
        )  # all users get the login of the app's first user
        address = self._spawned.address_of(server)
        if address is not None:
            arguments.redirect(driver, address, kwargs)


# The replaced functions


def _do_nothing(connection: object) -> None:
    """Replace the method ``__del__``, which a class in C lacks."""


def replace_method(
    kind: Any,
    name: str,
    make: Callable[[Callable[..., Any]], Callable[..., object]],
    missing: Callable[..., Any] | None = None,
) -> None:
    """Replace a method of a driver's class, once, by the method that ``make`` returns.

    Raises:
        AttributeError: this version of the driver has no such method, and ``missing`` is None.
    """
    original = getattr(kind, name, missing) if missing else getattr(kind, name)
    if hasattr(original, "arena_guards"):
        return
    guarded: Any = wraps(original)(make(original))
    guarded.arena_guards = True
    setattr(kind, name, guarded)


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


# The constructor of mysqlclient has no named parameters: a function in C gets its arguments.
_OF_MYSQLCLIENT = (
    "host",
    "user",
    "password",
    "database",
    "port",
    "unix_socket",
    "conv",
    "connect_timeout",
    "compress",
    "named_pipe",
    "init_command",
    "read_default_file",
    "read_default_group",
)


def _guard_driver(driver: str, guard: _DriverGuard, module: ModuleType) -> None:
    kind = module.Connection
    replace_method(kind, "__init__", partial(_guarding_init, driver, guard))
    if driver == "mysqldb":
        replace_method(kind, "autocommit", partial(_around, after=_note_end))
    else:
        connect = "_connect" if driver == "aiomysql" else "connect"
        replace_method(kind, connect, partial(_around, after=_note_pid))
    query = partial(_around, before=guard.ask_first, after=_note_rows)
    replace_method(kind, "query", query)
    replace_method(kind, "commit", partial(_around, after=_note_end))
    replace_method(kind, "rollback", partial(_around, after=_note_end))
    replace_method(kind, "close", partial(_giving_up, guard))
    if driver in arguments.ASYNC_DRIVERS:
        replace_method(kind, "ensure_closed", partial(_giving_up, guard))
    if driver == "asyncmy":
        replace_method(kind, "prepare", partial(_preparing, guard))
    else:
        collected = partial(_giving_up, guard, is_collected=True)
        replace_method(kind, "__del__", collected, missing=_do_nothing)


def _guarding_init(
    driver: str, guard: _DriverGuard, original: Callable[..., Any]
) -> Callable[..., object]:
    def __init__(connection: object, *args: object, **kwargs: Any) -> None:  # noqa: N807 - replaces it
        arguments_by_name = {**_keywords(original, args), **kwargs}
        admission = guard.admit(driver, arguments_by_name)
        original(connection, **arguments_by_name)
        guard.opened(admission, connection)

    return __init__


def _is_async(method: Any) -> bool:
    # asyncmy is compiled, so its coroutine functions are no Python functions.
    module = str(getattr(method, "__module__", ""))
    return iscoroutinefunction(method) or module.startswith("asyncmy")


def _keep_arguments(
    _connection: object, *args: object, **options: object
) -> _Arguments:
    """Return the arguments of a driver's method unchanged."""
    return args, options


def _ignore_answer(connection: object, args: Sequence[object], answer: object) -> None:
    """Ignore a driver's answer."""


def _around(
    original: Callable[..., Any],
    *,
    before: Callable[..., _Arguments] = _keep_arguments,
    after: Callable[[object, Sequence[object], object], None] = _ignore_answer,
) -> Callable[..., object]:
    """Return a driver's method that calls ``before`` before it, and ``after`` after it.

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

    return amethod if _is_async(original) else method


def _note_pid(connection: object, _args: object, _answer: object) -> None:
    """Note the session's id after the driver has connected or reconnected."""
    record = known_record(connection)
    if record is not None:
        record.note_pid(pid_of(connection))


def _preparing(
    guard: _DriverGuard, original: Callable[..., Any]
) -> Callable[..., object]:
    """Return asyncmy's ``prepare``, which checks the statement and counts its database as used.

    asyncmy executes a prepared statement without ``query``.
    """

    async def prepare(connection: object, query: object) -> object:
        instead = to_send(guard.find_core, connection, query)
        core = guard.find_core()
        record = known_record(connection)
        if core is not None and record is not None and record.target is not None:
            core.opened_raw(record.target.key)
        return await original(connection, instead or query)

    return prepare


def _note_rows(connection: object, args: Sequence[object], rows: object) -> None:
    """Note the rows that a statement has changed, and the server's answer."""
    record = known_record(connection)
    if record is not None:
        statement = text_of(args[0])
        if rows is None:  # mysqlclient
            rows = changed_rows_of(connection)
        record.sent(statement, rows)
        note_answer(connection, statement)


def _note_end(connection: object, _args: object, _answer: object) -> None:
    """Note the end of a transaction."""
    record = known_record(connection)
    if record is not None:
        record.answered(has_rows=False, autocommits=False)


def _giving_up(
    guard: _DriverGuard, original: Callable[..., Any], *, is_collected: bool = False
) -> Callable[..., object]:
    """Return a method that ends a connection, and first notes the writes that are lost."""

    def end(connection: object) -> object:
        give_up(guard.find_core, connection, is_collected=is_collected)
        return original(connection)

    return end


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


def watch_spawned(
    addresses: Mapping[tuple[str, str], Address], allowed: Sequence[str]
) -> None:
    """Watch the drivers in a process that multiprocessing has spawned."""
    guard = _SpawnedDriverGuard(SpawnedConnections(addresses, allowed))
    for module, driver in _MODULES.items():
        when_imported(module, partial(_guard_driver, driver, guard))

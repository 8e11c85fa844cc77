"""Refuses or redirects connections that no engine opens.

pytest-arena replaces the constructor of each driver's connections, and the method that sends each
statement. Engines call them, too: a connection that the gate has redirected passes if its arguments
are still the gate's.
"""

from __future__ import annotations

from fnmatch import fnmatch
from functools import cache, partial, wraps
from inspect import Parameter, iscoroutinefunction, signature
from typing import TYPE_CHECKING, Any

from pytest_arena._mysql import _arguments as arguments
from pytest_arena._mysql.drivers._other_databases import other_databases
from pytest_arena._mysql.drivers._reach import reaches_beyond
from pytest_arena._mysql.drivers._records import (
    MySQLAdmission,
    changed_rows_of,
    give_up,
    known_record,
    note_answer,
    pid_of,
    record_of,
    refused_beyond,
    text_of,
    to_send,
)
from pytest_arena._mysql.drivers._texts_in_variables import (
    check_answer,
    queries_before,
)
from pytest_arena._origin import is_own, who_connects
from pytest_arena._process import when_imported
from pytest_arena._product import NOWHERE, ConnectTarget, Core, RequestedDatabase
from pytest_arena.errors import (
    ProductionDatabaseError,
    RefusedError,
    UnknownDatabaseError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import ModuleType

    from pytest_arena._mysql._arguments import MySQLTarget
    from pytest_arena._mysql.drivers._records import FindCore
    from pytest_arena._values import Address

__tracebackhide__ = True  # a traceback of the app or of a test ends at its own line


class _DriverGuard:
    """Decides on each connection before a socket is opened."""

    def __init__(self, find_core: FindCore) -> None:
        self.find_core = find_core

    def admit(self, driver: str, kwargs: dict[str, Any]) -> MySQLAdmission | None:
        """Refuse, redirect or admit a connection. Return None if nothing watches it later.

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
                raise core.ledger.refused(_changed_by_listener(server))
            return MySQLAdmission(address)
        if core.config.drivers == "off":
            return None
        core.refuse_late()
        requested = _requested(driver, server)
        inside = _target_at(core, requested)
        if inside is not None and inside.address is not None:
            arguments.name_outright(driver, inside.address, kwargs)
            return MySQLAdmission(inside.address, inside, core.serial())
        return self._admit_outside(core, requested, server, kwargs)

    def _admit_outside(
        self,
        core: Core,
        requested: RequestedDatabase,
        server: MySQLTarget,
        kwargs: dict[str, Any],
    ) -> MySQLAdmission:
        if core.files.is_allowed(server.name):
            return MySQLAdmission()
        driver = requested.dialect.driver
        if core.config.drivers == "refuse":
            refusal = _raw_connection(
                server, driver, of_app=core.is_named_by_engine(requested)
            )
            raise core.ledger.refused(refusal)
        target = core.ensure_target(requested)
        if target is None or target.address is None:
            return MySQLAdmission()
        address = arguments.address_for(target, server.login)
        arguments.redirect(driver, address, kwargs)
        return MySQLAdmission(target.address, target, core.serial())

    def check_first_statement(
        self, admission: MySQLAdmission | None, kwargs: dict[str, Any]
    ) -> None:
        """Check ``init_command``, which the driver sends while it connects.

        Raises:
            ProductionDatabaseError: the statement reaches beyond its database.
        """
        core = self.find_core()
        statement = str(kwargs.get("init_command") or "")
        if core is None or admission is None or admission.address is None:
            return
        database = admission.address.database
        beyond = reaches_beyond(statement, database, other_databases.has)
        if beyond:
            raise core.ledger.refused(refused_beyond(beyond))

    def opened(self, admission: MySQLAdmission | None, connection: object) -> None:
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
    """Decides in a process that multiprocessing has spawned, which has no core."""

    def __init__(
        self, addresses: Mapping[str, Address], allowed: Sequence[str]
    ) -> None:
        super().__init__(lambda: None)
        self._addresses = addresses
        self._allowed = allowed

    def admit(self, driver: str, kwargs: dict[str, Any]) -> None:
        """Redirect a connection to the test's database, as in a forked process.

        Raises:
            UnknownDatabaseError: no engine of the test's process had that database.
        """
        server = arguments.target(kwargs)
        address = self._addresses.get(server.database)
        if address is not None:
            arguments.redirect(driver, address, kwargs)
            return
        is_allowed = any(fnmatch(server.name, pattern) for pattern in self._allowed)
        if not is_allowed and not arguments.is_own_name(server.database):
            raise _spawned_elsewhere(server)


def _requested(driver: str, server: MySQLTarget) -> RequestedDatabase:
    from sqlalchemy.engine import make_url  # noqa: PLC0415 - the command `arena` does without it

    kind = make_url(f"mysql+{driver}://").get_dialect()
    return arguments.requested(kind(), server)


def _target_at(core: Core, requested: RequestedDatabase) -> ConnectTarget | None:
    """Return where a test's database is by its name, None for another database."""
    for database in core.provisioned():
        live = database.product.live_at(requested)
        if live is not None:
            return live.target
    return None


# The replaced functions


def _do_nothing(connection: object) -> None:
    """Replace the method ``__del__``, which a class in C does not have."""


def replace_method(
    kind: Any,
    name: str,
    make: Callable[[Callable[..., Any]], Callable[..., object]],
    missing: Callable[..., Any] | None = None,
) -> None:
    """Replace a method of a driver's class by the one that ``make`` returns, once.

    Raises:
        AttributeError: this version of the driver has no such method, and none is ``missing``.
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


# Its constructor gives all arguments to a function in C.
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
        _guard_functions_in_c(guard, kind, module)
    else:
        connect = "_connect" if driver == "aiomysql" else "connect"
        replace_method(kind, connect, _noting_pid)
    replace_method(kind, "query", partial(_asking_first, guard))
    replace_method(kind, "select_db", partial(_refusing_switch, guard))
    replace_method(kind, "commit", _ending_transaction)
    replace_method(kind, "rollback", _ending_transaction)
    replace_method(kind, "close", partial(_giving_up, guard))
    if driver in arguments.ASYNC_DRIVERS:
        replace_method(kind, "ensure_closed", partial(_giving_up, guard))
    if driver == "asyncmy":
        replace_method(kind, "prepare", partial(_preparing, guard))
    else:
        collected = partial(_giving_up, guard, is_collected=True)
        replace_method(kind, "__del__", collected, missing=_do_nothing)


def _guard_functions_in_c(guard: _DriverGuard, kind: Any, module: Any) -> None:
    """Replace the functions that mysqlclient has beside those of the other drivers."""
    replace_method(kind, "autocommit", _ending_transaction)
    for name in ("change_user", "send_query", "shutdown"):
        replace_method(kind, name, partial(_refused_method, guard, name))
    # Its connections have no Python class, and so cannot be watched.
    in_c = vars(module)["_mysql"]
    replace_method(in_c, "connect", partial(_refused_method, guard, "connect"))


def _refused_method(
    guard: _DriverGuard, name: str, original: Callable[..., Any]
) -> Callable[..., object]:
    """Return a function of mysqlclient that only pytest-arena may call."""

    def refused(*args: object, **kwargs: object) -> object:
        core = guard.find_core()
        if core is None or is_own() or core.config.drivers == "off":
            return original(*args, **kwargs)
        raise core.ledger.refused(refused_beyond(f"_mysql's function {name}"))

    return refused


def _guarding_init(
    driver: str, guard: _DriverGuard, original: Callable[..., Any]
) -> Callable[..., object]:
    def __init__(connection: object, *args: object, **kwargs: Any) -> None:  # noqa: N807 - replaces it
        arguments_by_name = {**_keywords(original, args), **kwargs}
        admission = guard.admit(driver, arguments_by_name)
        guard.check_first_statement(admission, arguments_by_name)
        original(connection, **arguments_by_name)
        guard.opened(admission, connection)

    return __init__


def _noting_pid(original: Callable[..., Any]) -> Callable[..., object]:
    """Return a driver's method that connects or reconnects, and notes the new session."""

    def note(connection: object) -> None:
        record = known_record(connection)
        if record is not None:
            record.note_pid(pid_of(connection))

    def connect(connection: object, *args: object, **kwargs: object) -> object:
        answer = original(connection, *args, **kwargs)
        note(connection)
        return answer

    async def aconnect(connection: object, *args: object, **kwargs: object) -> object:
        answer = await original(connection, *args, **kwargs)
        note(connection)
        return answer

    return aconnect if _is_async(original) else connect


def _is_async(method: Any) -> bool:
    # asyncmy is compiled: its coroutine functions are no Python functions.
    module = str(getattr(method, "__module__", ""))
    return iscoroutinefunction(method) or module.startswith("asyncmy")


def _asking_first(
    guard: _DriverGuard, original: Callable[..., Any]
) -> Callable[..., object]:
    """Return a driver's method that sends a statement, and asks pytest-arena first."""

    def query(
        connection: object, sql: object, *args: object, **kwargs: object
    ) -> object:
        for question in queries_before(connection, sql):
            original(connection, question)
            check_answer(guard.find_core, connection)
        instead = to_send(guard.find_core, connection, sql)
        rows = original(connection, instead or sql, *args, **kwargs)
        _note_rows(connection, sql, rows)
        return rows

    async def aquery(
        connection: object, sql: object, *args: object, **kwargs: object
    ) -> object:
        for question in queries_before(connection, sql):
            await original(connection, question)
            check_answer(guard.find_core, connection)
        instead = to_send(guard.find_core, connection, sql)
        rows = await original(connection, instead or sql, *args, **kwargs)
        _note_rows(connection, sql, rows)
        return rows

    return aquery if _is_async(original) else query


def _preparing(
    guard: _DriverGuard, original: Callable[..., Any]
) -> Callable[..., object]:
    """Return asyncmy's method that prepares a statement, whose executions are not noted."""

    async def prepare(connection: object, query: object) -> object:
        to_send(guard.find_core, connection, query)
        core = guard.find_core()
        record = known_record(connection)
        if core is not None and record is not None and record.target is not None:
            core.opened_raw(record.target.key)
        return await original(connection, query)

    return prepare


def _note_rows(connection: object, sql: object, rows: object) -> None:
    record = known_record(connection)
    if record is not None:
        if rows is None:
            rows = changed_rows_of(connection)
        record.sent(text_of(sql), rows)
        note_answer(connection, text_of(sql))


def _ending_transaction(original: Callable[..., Any]) -> Callable[..., object]:
    """Return the method that commits or rolls back, and notes that."""

    def end(connection: object, *args: object) -> object:
        answer = original(connection, *args)
        _note_end(connection)
        return answer

    async def aend(connection: object, *args: object) -> object:
        answer = await original(connection, *args)
        _note_end(connection)
        return answer

    return aend if _is_async(original) else end


def _note_end(connection: object) -> None:
    record = known_record(connection)
    if record is not None:
        record.answered(has_rows=False, autocommits=False)


def _refusing_switch(
    guard: _DriverGuard, original: Callable[..., Any]
) -> Callable[..., object]:
    """Return the method that changes the database of a connection. Only the same one is allowed."""

    def check(connection: object, database: object) -> None:
        core = guard.find_core()
        record = known_record(connection)
        admission = record.admission if record is not None else None
        if core is None or admission is None or admission.address is None:
            return
        if database != admission.address.database:
            raise core.ledger.refused(refused_beyond(f"USE {database}"))

    def select_db(connection: object, db: object) -> object:
        check(connection, db)
        return original(connection, db)

    async def aselect_db(connection: object, db: object) -> object:
        check(connection, db)
        return await original(connection, db)

    return aselect_db if _is_async(original) else select_db


def _giving_up(
    guard: _DriverGuard, original: Callable[..., Any], *, is_collected: bool = False
) -> Callable[..., object]:
    """Return a method that ends a connection. It first notes the writes that are lost."""

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
        when_imported(module, partial(_change, guard, driver))


def watch_spawned(addresses: Mapping[str, Address], allowed: Sequence[str]) -> None:
    """Watch the drivers in a process that multiprocessing has spawned."""
    guard = _SpawnedDriverGuard(addresses, allowed)
    for module, driver in _MODULES.items():
        when_imported(module, partial(_change, guard, driver))


def _change(guard: _DriverGuard, driver: str, module: ModuleType) -> None:
    """Put the guard into a driver's module. Note a version that has other functions."""
    try:
        _guard_driver(driver, guard, module)
    except AttributeError as error:
        core = guard.find_core()
        if core is not None:
            core.ledger.note(
                f"connections that {driver} opens without an engine are not watched: "
                f"this version has other methods ({error})"
            )


# The guard's messages


def _raw_connection(target: MySQLTarget, driver: str, *, of_app: bool) -> RefusedError:
    """Return the error for a driver's connection to a database that is not a test's."""
    kind = ProductionDatabaseError if of_app else UnknownDatabaseError
    return kind(
        f"refused: a connection to {target.name} by {driver}, and not by the app's engine",
        why="pytest-arena redirects only engines to the test's database. The writes of this "
        "connection would stay in a database that may be a real one",
        cause=who_connects(),
        fix="arena_drivers = redirect   (it then opens the test's database)\n"
        f"or use the app's engine, db_session or arena.url{_allowing(target)}",
    )


def _spawned_elsewhere(target: MySQLTarget) -> UnknownDatabaseError:
    """Return the error for a connection in a process that multiprocessing has spawned."""
    return UnknownDatabaseError(
        f"refused: a connection to {target.name} in a process that multiprocessing has spawned",
        why="no test database for it existed when the process started, so pytest-arena cannot "
        "redirect the connection",
        cause=who_connects(),
        fix="start the process in a fixture or a test, with the app imported there\n"
        f"or give it arena.url{_allowing(target)}",
    )


def _changed_by_listener(target: MySQLTarget) -> UnknownDatabaseError:
    """Return the error for an engine's connection whose arguments a listener has changed."""
    return UnknownDatabaseError(
        f"refused: an engine's connection to {target.name}, which is not inside the arena",
        why="a do_connect listener of the app changed its target after pytest-arena had "
        "redirected it into the test's database; what the test did would stay there",
        cause=who_connects(),
        fix=f"change only the session's settings in the listener{_allowing(target)}",
    )


def _allowing(target: MySQLTarget) -> str:
    # A host that pytest-arena has written into the environment.
    if NOWHERE in target.name:
        return ""
    return f"; or, if tests may reach it:\narena_allow = {target.name}"

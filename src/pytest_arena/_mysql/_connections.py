"""Opens the drivers' connections on the test's database."""

from __future__ import annotations

import weakref
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import TYPE_CHECKING, Any, cast

from pytest_arena._mysql import FACTS
from pytest_arena._mysql import _arguments as arguments
from pytest_arena._mysql._clients import client_target
from pytest_arena._mysql.accounts import ACCOUNT_PREFIX
from pytest_arena._mysql.drivers import _records as records
from pytest_arena._mysql.drivers._driver_guard import watch_drivers
from pytest_arena._mysql.drivers._spawned_drivers import SpawnedDrivers
from pytest_arena._product import (
    ConnectTarget,
    Core,
    OpenConnection,
    Product,
    ReadSnapshot,
    RequestedDatabase,
)
from pytest_arena.errors import ArenaError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy.engine import Connection, Dialect

    from pytest_arena._config._read import Config
    from pytest_arena._mysql._mysql_isolation import MySQLIsolation
    from pytest_arena._mysql.drivers._records import RawMySQLConnection
    from pytest_arena._values import Address


_SESSION_SETTINGS = ("charset", "init_command", "sql_mode")


class MySQLConnections:
    """Connections of PyMySQL, aiomysql, asyncmy and mysqlclient."""

    def describe(
        self, dialect: Dialect, cargs: object, cparams: Any
    ) -> RequestedDatabase | None:
        """Return the database that a driver's arguments name."""
        if dialect.driver not in arguments.DRIVERS or cargs:
            return None
        return arguments.requested(dialect, arguments.target(cparams))

    def session_arguments(
        self, dialect: Dialect, cargs: object, cparams: Any
    ) -> dict[str, object]:
        """Return the settings of the session. All drivers have the same names for them."""
        del dialect, cargs
        return {name: cparams[name] for name in _SESSION_SETTINGS if name in cparams}

    def lead(
        self,
        core: Core,
        dialect: Dialect,
        target: ConnectTarget | None,
        cargs: list[Any],
        cparams: dict[str, object],
    ) -> Callable[[object], OpenConnection | None]:
        """Lead a connection to the target."""
        del cargs
        if target is not None and target.address is not None:
            login = arguments.target(cparams).login
            address = arguments.address_for(target, login)
            arguments.redirect(dialect.driver, address, cparams)
            # The build of a template waits for locks as long as it needs to.
            if core.config.lock_timeout and target.database is not None:
                arguments.bound_locks(core.config.lock_timeout, cparams)
            # SQLAlchemy reads it from its first connection, and qualifies names with it.
            dialect.default_schema_name = target.address.database
        # A later listener of the app may open another connection.
        is_last = len(dialect.dispatch.do_connect) == 1

        def opened(dbapi_connection: object) -> OpenConnection | None:
            if not is_last:
                return None
            if target is None:
                return OpenConnection()
            handle = MySQLHandle(target, dbapi_connection, dialect)
            return OpenConnection(target, handle)

        return opened

    def recognize(self, core: Core, dbapi_connection: object) -> OpenConnection | None:
        """Look for the connection's database by its name, which is unique."""
        driver = driver_connection(dbapi_connection)
        if not _is_ours(driver):
            return None
        record = records.known_record(driver)
        admission = record.admission if record is not None else None
        if admission is not None and admission.address is None:
            return OpenConnection()  # arena_allow admits it
        name = _database_of(driver)
        if not name and admission is not None and admission.address is not None:
            name = admission.address.database  # an older mysqlclient does not show it
        for database in core.provisioned():
            target = database.target
            address = target.address
            is_of_product = database.product.name == FACTS.name
            if is_of_product and address is not None and address.database == name:
                return OpenConnection(target, MySQLHandle(target, dbapi_connection))
        host = _attribute(driver, "host") or "localhost"
        port = _attribute(driver, "port") or arguments.PORT
        return OpenConnection(outside=f"mysql://{host}:{port}/{name}")

    def watch(self, core: Callable[[], Core | None]) -> None:
        """Watch the constructors of the drivers' connections, and their statements."""
        watch_drivers(core)

    def end_raw(self, core: Core, serial: int | None) -> list[str]:
        """End the sessions of a level's connections, and of those to replaced databases.

        A connection of a wider fixture whose session the level has changed is ended, too. Return
        the lines of lost writes.
        """
        lost: list[str] = []
        for raw in records.raw_connections():
            record = raw.record
            is_of_level = raw.serial == serial
            may_have_lost = is_of_level or record.writes.written_in(serial or 0)
            has_lost = may_have_lost and records.has_written(raw.driver)
            if has_lost:
                lost.append(_line_of(raw))
            if is_of_level:
                _end_raw(raw)
            elif has_lost:
                _end_wide(core, raw, f"it was left inside a transaction ({lost[-1]})")
            elif raw.is_stale:
                _end_wide(core, raw, "its database was replaced")
            elif serial in record.altered:
                line = record.altered[serial]
                _end_wide(core, raw, f"its session was changed ({line})")
                record.forget_changes(serial)
        return lost

    def raw_transactions(self) -> list[str]:
        """Return the lines of raw connections that are inside a transaction."""
        return [
            _line_of(raw)
            for raw in records.raw_connections()
            if records.is_in_transaction(raw.driver)
        ]

    def explain(self, error: BaseException, ended: Sequence[str]) -> str:
        """Explain a missing right, and an error of a connection that pytest-arena has ended."""
        original = getattr(error, "orig", None) or error
        if type(original).__module__.partition(".")[0] not in FACTS.drivers:
            return ""
        text = str(original)
        if ACCOUNT_PREFIX in text and any(sign in text for sign in _DENIALS):
            return _DENIED
        is_of_engine = original is not error
        if not ended or is_of_engine or not any(sign in text for sign in _ENDS):
            return ""
        return _ENDED.format("\n".join(dict.fromkeys(ended[-3:])))

    def owns(self, name: str) -> bool:
        """Return whether a name has the form of pytest-arena's databases."""
        _, _, database = name.rpartition("/")
        return arguments.is_own_name(database)

    def named_by_client(
        self, program: str, words: Sequence[str], variables: Mapping[str, str]
    ) -> tuple[str, ...]:
        """Return the database by the rules of the clients: arguments, option file, variables."""
        target = client_target(program, words, variables)
        if target is None or self.owns(target.name):
            return ()
        return (target.name,)

    def in_spawned(
        self, core: Core, engines: Sequence[RequestedDatabase]
    ) -> SpawnedDrivers | None:
        """Return the test's databases by the names of databases in the app's URLs."""
        del engines
        if core.config.drivers == "off":
            return None
        addresses: dict[str, Address] = {}
        for database in core.provisioned():
            target = database.target
            if database.product.name == FACTS.name and target.address is not None:
                address = arguments.address_for(target, database.login)
                addresses.update(dict.fromkeys(database.tails, address))
        return SpawnedDrivers(addresses, core.config.allow)


_ENDS = ("(2013,", "(2006,", "(0,", "(1927,", "Not connected", "Already closed")
# The server denies a right on a database, a table, a column, the server, or a program.
_DENIALS = ("(1044,", "(1142,", "(1143,", "(1227,", "(1370,")
_DENIED = f"""\
the app works as {ACCOUNT_PREFIX}… in tests, with the rights that the user in its URL has
next: GRANT the missing right to the app's user, in the schema or on this server
or, if only the test needs it: arena.session(past_policies=True)"""
_ENDED = """\
pytest-arena has ended a connection that outlives its tests:
{}
next: open it in a fixture of scope="function", or use the app's engine, which connects again"""


def driver_connection(dbapi_connection: object) -> Any:
    """Return the driver's connection inside SQLAlchemy's adapted connection."""
    return getattr(dbapi_connection, "driver_connection", dbapi_connection)


def _is_ours(connection: object) -> bool:
    """Return whether the class, or a base of a class of the app, is of a known driver."""
    packages = {kind.__module__.partition(".")[0] for kind in type(connection).__mro__}
    return not packages.isdisjoint(FACTS.drivers)


def _attribute(connection: object, name: str) -> Any:
    value = getattr(connection, f"_{name}", None)  # asyncmy, aiomysql
    return value or getattr(connection, name, None)


def _database_of(connection: object) -> str:
    name = _attribute(connection, "db") or ""
    return name.decode() if isinstance(name, bytes) else str(name)


connections = MySQLConnections()


def open_product(core: Core, config: Config) -> Product:
    """Return the product of a run."""
    # To import a driver does not import the product.
    from pytest_arena._mysql._product import MySQL  # noqa: PLC0415 - see above

    return MySQL(core, config)


class MySQLHandle:
    """A connection of PyMySQL, aiomysql, asyncmy or mysqlclient.

    A driver cannot be used from another thread or outside its event loop. pytest-arena ends a
    session over its control connection, by the server's id.
    """

    __slots__ = ("_dialect", "_record", "_reference", "_target")
    reads_statements = False  # the guard of the driver reads them

    def __init__(
        self,
        target: ConnectTarget,
        dbapi_connection: object,
        dialect: Dialect | None = None,
    ) -> None:
        driver = driver_connection(dbapi_connection)
        self._dialect = dialect
        self._target = target
        self._reference = weakref.ref(driver)
        self._record = records.record_of(driver)
        self._record.lead_to(target, records.pid_of(driver))

    def is_of(self, dbapi_connection: object) -> bool:
        """Return whether this is the connection."""
        return self._reference() is driver_connection(dbapi_connection)

    @property
    def in_transaction(self) -> bool:
        """Whether an open transaction has changed rows."""
        driver = self._reference()
        if driver is None:
            return False
        return records.has_written(driver) or records.has_lost(driver)

    @property
    def is_begun(self) -> bool:
        """Whether a transaction is open, by the server's last answer."""
        driver = self._reference()
        return driver is not None and records.is_in_transaction(driver)

    @property
    def snapshot(self) -> ReadSnapshot | None:
        """The snapshot of the open transaction. Other levels than REPEATABLE READ have none."""
        default = getattr(self._dialect, "default_isolation_level", None)
        level = self._record.isolation_level or default
        has_snapshot = level == "REPEATABLE READ" and self.is_begun
        return self._record.snapshot if has_snapshot else None

    def changes(self) -> int:
        """Return 0: the drivers count rows of one statement only."""
        return 0

    def has_written(self, dbapi_connection: object, since: int) -> bool:
        """Return whether the open transaction has changed rows. No round trip."""
        del dbapi_connection, since
        return self.in_transaction

    def interrupt(self) -> None:
        """Cancel the running statement."""
        self._kill(cancel=True)

    def alone(self, seconds: float = 0) -> AbstractContextManager[bool]:
        """Yield True: pytest-arena does not use the connection itself."""
        del seconds
        return nullcontext(enter_result=True)

    def roll_back(self) -> None:
        """End the session, which ends the transaction and releases its locks."""
        self._kill(cancel=False)
        self._record.kill()

    end = roll_back

    def _kill(self, *, cancel: bool) -> None:
        if self._reference() is not None:
            _kill(self._target, self._record.pid, cancel=cancel)

    def attached(self) -> tuple[ConnectTarget, ...]:
        """Return nothing: a connection to a server has one database."""
        return ()

    def taken(self, *, is_first: bool) -> int:
        """Note a checkout."""
        del is_first
        self._record.rest(None)
        return 0  # see `changes`

    def executing(self, statement: str, connection: Connection) -> str:
        """Return the statement: the guard of the driver checks it."""
        del connection
        return statement

    def returned(self) -> None:
        """Note the return to the pool."""
        self._record.rest(self._target.key)

    def session(self, dbapi_connection: object) -> object:
        """Return the number of statements that changed the session, and the driver's autocommit."""
        del dbapi_connection
        driver = self._reference()
        if driver is None or records.is_closed(driver):
            return None
        return self._record.session_changes, bool(driver.get_autocommit())

    @property
    def has_leftovers(self) -> bool:
        """Return False: a temporary table or a variable counts as a changed session."""
        return False


def _kill(target: ConnectTarget, pid: int, *, cancel: bool) -> None:
    if target.database is None or not pid:
        return
    isolation = cast("MySQLIsolation | None", target.database.isolation)
    if isolation is not None:
        with suppress(ArenaError):  # a server that does not answer has ended it
            isolation.end(pid, cancel=cancel)


def _line_of(raw: RawMySQLConnection) -> str:
    """Return the line that last wrote by a raw connection, else the line that opened it."""
    line = raw.record.writes.line or raw.record.opened_at
    return str(line or "a pool of a driver")


def _end_raw(raw: RawMySQLConnection) -> None:
    _kill(raw.target, raw.record.pid, cancel=False)
    raw.record.kill()
    raw.record.end()


def _end_wide(core: Core, raw: RawMySQLConnection, reason: str) -> None:
    """End a connection of a wider fixture. A later error names the reason."""
    opened_at = raw.record.opened_at or "by a pool"
    core.ledger.ended_connections.append(f"{reason}; opened: {opened_at}")
    _end_raw(raw)

"""Where do the connections of PostgreSQL's drivers land, and what is open?"""

from __future__ import annotations

import asyncio
import re
import weakref
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy.util import await_only
from sqlalchemy.util.concurrency import in_greenlet

from pytest_arena._postgresql import _arguments as arguments
from pytest_arena._postgresql._clients import client_target
from pytest_arena._postgresql._control import TOO_MANY_CLIENTS, WAITED
from pytest_arena._postgresql._identity import (
    driver_connection,
    has_written,
    identity,
    name_of,
)
from pytest_arena._postgresql._session_functions import ALTERING_CALLS
from pytest_arena._postgresql.drivers import _statements as drivers
from pytest_arena._postgresql.drivers._raw_guard import watch_drivers
from pytest_arena._postgresql.drivers._spawned_connections import SpawnedConnections
from pytest_arena._postgresql.moving._moving_trial import prepare
from pytest_arena._postgresql.moving._transport import at_checkin
from pytest_arena._process import rest, seconds
from pytest_arena._product import (
    ConnectTarget,
    Core,
    Database,
    OpenConnection,
    Product,
    RequestedDatabase,
)
from pytest_arena._values import STATEMENT_START as START
from pytest_arena._values import without_comments
from pytest_arena.errors import ArenaError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy.engine import Connection, Dialect

    from pytest_arena._config._read import Config
    from pytest_arena._postgresql._identity import Identity
    from pytest_arena._postgresql._product import PostgreSQL
    from pytest_arena._postgresql.isolation import ServerIsolation
    from pytest_arena._values import Address

# Arguments by which an app opens its connections itself, whatever the others say.
_OWN_WAYS = ("connection_factory", "connection_class")


class PostgreSQLConnections:
    """Connections of asyncpg, psycopg and psycopg2."""

    def describe(
        self, dialect: Dialect, cargs: Any, cparams: Any
    ) -> RequestedDatabase | None:
        """The servers and the database, as libpq and asyncpg read them."""
        if dialect.driver not in arguments.DRIVERS:
            return None
        meant = arguments.target(dialect.driver, cargs, cparams)
        return arguments.requested(dialect, meant)

    def lead(
        self,
        core: Core,
        dialect: Dialect,
        target: ConnectTarget | None,
        cargs: list[Any],
        cparams: dict[str, Any],
    ) -> Callable[[Any], OpenConnection | None]:
        """By the address; asyncpg's move between loops from here on."""
        if target is not None and target.address is not None:
            login = arguments.target(dialect.driver, cargs, cparams).login
            address = arguments.address_for(target, login)
            arguments.lead(dialect.driver, address, cargs, cparams)
            # The build of a template waits for locks as long as it needs to.
            if core.config.lock_timeout and target.database is not None:
                arguments.bound_locks(dialect.driver, core.config.lock_timeout, cparams)
            prepare(dialect, cparams, tell=core.ledger.note)
            _connect_in_turn(dialect, core)
        # What this listener sets up holds, unless another one has the last word after it.
        has_own_way = any(map(cparams.get, _OWN_WAYS))
        is_last = len(dialect.dispatch.do_connect) == 1 and not has_own_way

        def opened(dbapi_connection: Any) -> OpenConnection | None:
            if not is_last:
                return None
            if target is None:
                return OpenConnection()
            return OpenConnection(target, ServerHandle(core, target, dbapi_connection))

        return opened

    def recognize(self, core: Core, dbapi_connection: Any) -> OpenConnection | None:
        """Whatever name it was opened by: the server says which one it is, and which database."""
        connection = driver_connection(dbapi_connection)
        admission = drivers.admission_of(connection)
        if admission is not None and admission.address is None:
            return OpenConnection()  # as arena_allow has it
        found = identity(dbapi_connection)
        if found is None:
            return None
        target = _target_of(core, found)
        if target is None:
            return OpenConnection(outside=name_of(dbapi_connection, found))
        drivers.note_pooled(connection)
        return OpenConnection(target, ServerHandle(core, target, dbapi_connection))

    def watch(self, core: Callable[[], Core | None]) -> None:
        """Each connection of a driver, by the functions that all of them go through."""
        watch_drivers(core)

    def end_raw(self, serial: int) -> None:
        """Their backends."""
        for pid, raw in drivers.raw_connections():
            if raw.target is not None and raw.serial == serial and pid:
                _end(raw.target, pid, cancel=False)

    def owns(self, database: str) -> bool:
        """By the form of the name, also while it is being built."""
        return arguments.is_own_name(database)

    def named_by_client(
        self, program: str, words: Sequence[str], variables: Mapping[str, str]
    ) -> tuple[str, ...]:
        """By libpq's rules: arguments, a service, variables, defaults."""
        target = client_target(program, words, variables)
        if target is None or self.owns(target.database):
            return ()
        return target.names

    def in_spawned(
        self, core: Core, engines: Sequence[RequestedDatabase]
    ) -> SpawnedConnections | None:
        """By the names of the database and of the user: an engine there has the app's URL."""
        if core.config.drivers == "off":
            return None
        addresses: dict[tuple[str, str], Address] = {}
        for database in _databases(core):
            # An engine whose URL names no user has the database's first login.
            logins = {None, database.login}
            logins |= {
                each.login
                for each in engines
                if database.product.identify(each)[0] == database.key
            }
            for login in logins:
                address = arguments.address_for(database.target, login)
                user = login.user if login else ""
                addresses.update({(name, user): address for name in database.tails})
        return SpawnedConnections(addresses, core.config.allow)


_in_turn: weakref.WeakSet[Dialect] = weakref.WeakSet()
_STEP = 0.1  # seconds


def _connect_in_turn(dialect: Dialect, core: Core) -> None:
    """Have an engine wait for a connection where the server has none free, as arena does."""
    if dialect in _in_turn:
        return
    _in_turn.add(dialect)
    connect = dialect.connect

    def connecting(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        end = seconds() + core.config.turn_timeout
        while True:
            try:
                return connect(*args, **kwargs)
            except Exception as error:
                if not TOO_MANY_CLIENTS.search(str(error)) or seconds() > end:
                    raise
            _wait(core)

    dialect.connect = connecting  # type: ignore[method-assign]  # of this one instance


def _wait(core: Core) -> None:
    core.ledger.note(WAITED)
    if in_greenlet():
        core.spare()  # in another thread somebody might take one of them at this moment
        await_only(asyncio.sleep(_STEP))
    else:
        rest(_STEP)


def _databases(core: Core) -> list[Database]:
    return [
        database
        for database in core.provisioned()
        if database.product.name == "postgresql"
    ]


def _target_of(core: Core, identity: Identity) -> ConnectTarget | None:
    for database in _databases(core):
        target = cast("PostgreSQL", database.product).target_of(database, identity)
        if target is not None:
            return target
    return None


connections = PostgreSQLConnections()


def open_product(core: Core, config: Config) -> Product:
    """Return the product of a run. A driver that is only imported does not pay for it."""
    from pytest_arena._postgresql._product import PostgreSQL  # noqa: PLC0415 - as said

    return PostgreSQL(core, config)


# One connection.

_IDLE = 0  # libpq's PQTRANS_IDLE: no transaction is open


class ServerHandle:
    """A connection of asyncpg, psycopg or psycopg2.

    No driver can be told anything from another thread or outside its event loop; the server can,
    on the arena's own connection and by the number of the backend.
    """

    __slots__ = (
        "_core",
        "_has_numbers",
        "_has_old_numbers",
        "_pid",
        "_reference",
        "_states",
        "_target",
    )
    reads_statements = True

    def __init__(
        self, core: Core, target: ConnectTarget, dbapi_connection: Any
    ) -> None:
        driver = driver_connection(dbapi_connection)
        self._core = core
        self._target = target
        self._reference = weakref.ref(driver)
        self._pid = drivers.pid_of(driver)
        self._states = 0  # how many statements have changed what the session is
        self._has_numbers = False  # whether the session may know numbers of sequences
        self._has_old_numbers = False  # whether it may know those of an earlier level

    def is_of(self, dbapi_connection: Any) -> bool:
        """Whether this is the very connection."""
        return self._reference() is driver_connection(dbapi_connection)

    @property
    def in_transaction(self) -> bool:
        """Whether it has written in a transaction that is open.

        Drivers begin one at the first SELECT. Only the server knows whether anything was written,
        which is asked where the driver says that one is open.
        """
        isolation = _isolation_at(self._target) if self.is_begun else None
        return isolation is not None and self._pid in isolation.writers()

    @property
    def is_begun(self) -> bool:
        """Whether the driver says that one is open, whatever was done in it."""
        driver = self._reference()
        return driver is not None and _is_open(driver)

    def changes(self) -> int:
        """No driver counts them."""
        return 0

    def interrupt(self) -> None:
        """Cancel its statement."""
        if self._reference() is not None:
            _end(self._target, self._pid, cancel=True)

    def alone(self, seconds: float = 0) -> AbstractContextManager[bool]:  # noqa: ARG002 - it is never busy
        """It is never entered from here."""
        return nullcontext(enter_result=True)

    def roll_back(self) -> None:
        """End its backend, and with it its transaction and its locks."""
        if self._reference() is not None:
            _end(self._target, self._pid, cancel=False)

    end = roll_back

    def attached(self) -> tuple[ConnectTarget, ...]:
        """A connection to a server has one database."""
        return ()

    def has_written(self, dbapi_connection: Any, since: int) -> bool:  # noqa: ARG002 - no driver counts
        """Ask the server on the connection itself."""
        return has_written(dbapi_connection)

    def taken(self, *, is_first: bool) -> None:
        """Note that it is out of its pool; its session may know numbers of the level before."""
        drivers.note_taken(self._reference())
        if is_first:
            self._has_old_numbers = self._has_numbers

    def executing(self, statement: str, connection: Connection) -> str:
        """Refuse what reaches beyond; count what the session carries to its next transaction."""
        __tracebackhide__ = True
        bare = statement
        if "--" in statement or "/*" in statement:
            bare = without_comments(statement)
        isolation = _isolation_at(self._target)
        calls = isolation.session_functions if isolation is not None else None
        is_changed = calls is not None and calls.search(bare) is not None
        self._states += is_changed or alters_session(bare)
        if not _KNOWS_NO_NUMBER.match(bare):
            if self._has_old_numbers:
                self._forget_numbers(connection)
            self._has_numbers = True
        return drivers.statement_to_send(self._core, self._target, statement)

    def _forget_numbers(self, connection: Connection) -> None:
        """Make the session forget the numbers that it has drawn from sequences."""
        self._has_old_numbers = False
        # A lost connection fails in the statement that follows, where SQLAlchemy handles it.
        with suppress(Exception), closing(connection.connection.cursor()) as cursor:
            cursor.execute("DISCARD SEQUENCES")

    def returned(self) -> None:
        """Note that it is in its pool. Its socket leaves the loop, if it can move."""
        drivers.note_returned(self._reference(), self._target.key)
        at_checkin(self._reference())

    def session(self) -> object:
        """How many statements have changed it."""
        return self._states


def _isolation_at(target: ConnectTarget) -> ServerIsolation | None:
    if target.database is None:
        return None
    return cast("ServerIsolation | None", target.database.isolation)


def _end(target: ConnectTarget, pid: int, *, cancel: bool) -> None:
    isolation = _isolation_at(target)
    if isolation is not None:
        with suppress(ArenaError):  # a server that does not answer has ended it
            isolation.end(pid, cancel=cancel)


def _is_open(driver: Any) -> bool:
    if (ask := getattr(driver, "is_in_transaction", None)) is not None:  # asyncpg
        return not driver.is_closed() and bool(ask())
    info = getattr(driver, "info", None)  # psycopg, psycopg2
    return (
        not getattr(driver, "closed", False)
        and getattr(info, "transaction_status", 0) != _IDLE
    )


# What outlives a transaction on a connection: settings, roles, listeners, locks, prepared things.
_ALTERING = (
    r"(?:SET(?!\s+(?:LOCAL|TRANSACTION|CONSTRAINTS)\b)|RESET|DISCARD|LISTEN|UNLISTEN|PREPARE|"
    r"DECLARE|LOAD|DO\b|EXPLAIN\b(?=[^;]*\bTEMP)|CREATE\s+(?:OR\s+REPLACE\s+)?(?:LOCAL\s+|GLOBAL\s+)?TEMP)"
)
_ALTERS = re.compile(START + _ALTERING, re.IGNORECASE | re.DOTALL)
_ALTERS_LATER = re.compile(";" + START + _ALTERING, re.IGNORECASE | re.DOTALL)
_CALLS = re.compile(ALTERING_CALLS, re.IGNORECASE)


# It calls no function that could draw or return a number of a sequence. SET TRANSACTION has to be
# the first statement of its transaction, and LOCK comes before the transaction's snapshot.
_KNOWS_NO_NUMBER = re.compile(
    START + r"(?:SET\b|(?:SELECT|SHOW|LOCK)\b[^(]*\Z)", re.IGNORECASE
)


def alters_session(statement: str) -> bool:
    """Whether a statement may change what a session carries to the next transaction. Costs 1 µs."""
    return bool(
        _ALTERS.match(statement)
        or _CALLS.search(statement)
        or (";" in statement and _ALTERS_LATER.search(statement))
    )

"""Opens the drivers' connections on the test's database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from sqlalchemy.util import await_only
from sqlalchemy.util.concurrency import in_greenlet

from pytest_arena._postgresql import DRIVERS, FACTS
from pytest_arena._postgresql import _arguments as arguments
from pytest_arena._postgresql._control import TOO_MANY_CLIENTS, WAITED
from pytest_arena._postgresql._driver_guard import (
    CONNECTIONS,
    WORDS,
    is_in_transaction,
    pid_of,
    watch_drivers,
)
from pytest_arena._postgresql._identity import (
    identity,
    name_of,
)
from pytest_arena._postgresql._rollback import SharedTransaction, shared_at
from pytest_arena._process import async_rest, rest, seconds
from pytest_arena._product import (
    ConnectTarget,
    Core,
    OpenConnection,
    Product,
    RequestedDatabase,
)
from pytest_arena._product._raw_guard import EngineConnection, driver_connection
from pytest_arena._product._server_targets import address_for
from pytest_arena._values import TURN_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.engine import Dialect

    from pytest_arena._config._read import Config
    from pytest_arena._postgresql._identity import Identity
    from pytest_arena._postgresql._isolation import ServerIsolation
    from pytest_arena._postgresql._product import PostgreSQL

# With one of these arguments the app's code opens the connection, perhaps to another database.
_FACTORIES = ("connection_factory", "connection_class")


class PostgreSQLConnections:
    """Connections of asyncpg, psycopg and psycopg2."""

    def open_product(self, core: Core, config: Config) -> Product:
        """Return the product of a run. An import of the driver does not import it."""
        from pytest_arena._postgresql._product import (  # noqa: PLC0415 - as said
            PostgreSQL,
        )

        return PostgreSQL(core, config)

    def describe(
        self, dialect: Dialect, cargs: object, cparams: Any
    ) -> RequestedDatabase | None:
        """Return the database that a driver's arguments name."""
        if dialect.driver not in DRIVERS:
            return None
        server = arguments.target(dialect.driver, cargs, cparams)
        return server.requested(dialect)

    def redirect(
        self,
        core: Core,
        dialect: Dialect,
        target: ConnectTarget | None,
        cargs: list[Any],
        cparams: dict[str, object],
    ) -> Callable[[object], OpenConnection | None]:
        """Redirect the arguments. Return a function that describes the connection once open."""
        if target is not None and target.address is not None:
            login = arguments.target(dialect.driver, cargs, cparams).login
            address = address_for(target, login)
            arguments.redirect(dialect.driver, address, cargs, cparams)
            # The build of a template has no limit, and no database of a test.
            if core.config.lock_timeout and target.database is not None:
                arguments.bound_locks(dialect.driver, core.config.lock_timeout, cparams)
            if not isinstance(dialect.connect, _Connect):
                connect = _Connect(dialect, core)
                dialect.connect = connect  # type: ignore[method-assign]  # of this instance
        # A later listener or a factory of the app may open another connection.
        has_factory = any(map(cparams.get, _FACTORIES))
        has_last_word = len(dialect.dispatch.do_connect) == 1 and not has_factory

        def opened(dbapi_connection: object) -> OpenConnection | None:
            if not has_last_word:
                return None
            if target is None:
                return OpenConnection()
            if isinstance(dbapi_connection, SharedTransaction):
                shared = SharedHandle(core, target, dbapi_connection)
                return OpenConnection(target, shared)
            return OpenConnection(
                target, PostgreSQLHandle(core, target, dbapi_connection)
            )

        return opened

    def recognize(self, core: Core, dbapi_connection: object) -> OpenConnection | None:
        """Ask the server for its identity and its database. Names in arguments may differ."""
        connection = driver_connection(dbapi_connection)
        raw = CONNECTIONS.find(connection)
        if raw is not None and raw.target is None:
            return OpenConnection()  # `arena_allow` has admitted it
        own_identity = identity(dbapi_connection)
        if own_identity is None:
            return None
        target = self._target_of(core, own_identity)
        if target is None:
            return OpenConnection(outside=name_of(dbapi_connection, own_identity))
        CONNECTIONS.give_to_pool(connection)
        return OpenConnection(target, PostgreSQLHandle(core, target, dbapi_connection))

    def watch(self, core: Callable[[], Core | None]) -> None:
        """Watch the functions that open every connection of a driver."""
        watch_drivers(core)

    def _target_of(self, core: Core, identity: Identity) -> ConnectTarget | None:
        for database in core.provisioned():
            if database.product.name == FACTS.name:
                product = cast("PostgreSQL", database.product)
                target = product.target_of(database, identity)
                if target is not None:
                    return target
        return None

    def end_raw(self, serial: int | None) -> None:
        """End the connections that no engine has opened in a level."""
        CONNECTIONS.end(serial)

    def raw_transactions(self) -> list[str]:
        """Return the lines that opened raw connections which are inside a transaction."""
        return CONNECTIONS.transactions()


_RETRY_SECONDS = 0.1


class _Connect:
    """The ``connect`` of a dialect. It returns a facade for a shared database.

    Otherwise it waits while the server has no free connection.
    """

    def __init__(self, dialect: Dialect, core: Core) -> None:
        self._dialect = dialect
        self._connect = dialect.connect
        self._core = core

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        address = getattr(kwargs.get("host"), "address", None)
        shared = shared_at(address) if address is not None else None
        if shared is not None:
            return shared.facade(self._dialect, self._connect, args, kwargs)
        end = seconds() + TURN_SECONDS
        while True:
            try:
                return self._connect(*args, **kwargs)
            except Exception as error:
                if not TOO_MANY_CLIENTS.search(str(error)) or seconds() > end:
                    raise
            self._core.ledger.note(WAITED)
            if in_greenlet():
                # In another thread a checkout might take an idle connection at this moment.
                self._core.end_idle_connections()
                await_only(async_rest(_RETRY_SECONDS))
            else:
                rest(_RETRY_SECONDS)


connections = PostgreSQLConnections()


class PostgreSQLHandle(EngineConnection):
    """A connection of asyncpg, psycopg or psycopg2."""

    __slots__ = ()
    words = WORDS

    def __init__(
        self, core: Core, target: ConnectTarget, dbapi_connection: object
    ) -> None:
        pid = pid_of(driver_connection(dbapi_connection))
        super().__init__(core, target, dbapi_connection, pid)

    @property
    def in_transaction(self) -> bool:
        """Whether an open transaction has written.

        Drivers begin a transaction at the first SELECT. Only the server knows whether it has
        written.
        """
        if not self.is_begun:
            return False
        isolation = _isolation_at(self._target)
        return isolation is not None and self._pid in isolation.writers()

    @property
    def is_begun(self) -> bool:
        """Whether a transaction is open, by what the driver knows."""
        driver = self._reference()
        return driver is not None and is_in_transaction(driver)

    def is_aborted(self, dbapi_connection: Any) -> bool:
        """Ask the server over the connection: a failed transaction accepts no statement."""
        cursor = dbapi_connection.cursor()
        try:
            cursor.execute("SELECT 1")
        except Exception:  # noqa: BLE001 - each driver has its own
            return True
        finally:
            cursor.close()
        return False


class SharedHandle(PostgreSQLHandle):
    """A facade of the isolation ``rollback``."""

    __slots__ = ("_facade",)

    def __init__(
        self, core: Core, target: ConnectTarget, facade: SharedTransaction
    ) -> None:
        super().__init__(core, target, facade)
        self._facade = facade

    @property
    def in_transaction(self) -> bool:
        """Whether the open transaction has written."""
        return self._facade.shared.writer is self._facade

    @property
    def is_begun(self) -> bool:
        """Whether a transaction is open."""
        return self._facade.is_begun

    def is_aborted(self, dbapi_connection: object) -> bool:
        """Return False: a failed statement is undone alone."""
        del dbapi_connection
        return False

    def interrupt(self) -> None:
        """Do nothing: the statement belongs to the connection of all."""

    def roll_back(self) -> None:
        """End the transaction. The pool drops the facade."""
        self._facade.close()

    def note_checkout(self) -> None:
        """Note a checkout. The `connect` listeners are over."""
        self._facade.is_connecting = False


def _isolation_at(target: ConnectTarget) -> ServerIsolation | None:
    if target.database is None:
        return None
    return cast("ServerIsolation | None", target.database.isolation)

"""Opens the drivers' connections on the test's database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_arena._config._supported import facts_of_driver
from pytest_arena._mysql import FACTS
from pytest_arena._mysql import _arguments as arguments
from pytest_arena._mysql._driver_guard import CONNECTIONS, watch_drivers
from pytest_arena._mysql._sessions import begin_session, pid_of
from pytest_arena._mysql._statements import WORDS
from pytest_arena._product import (
    ConnectTarget,
    Core,
    OpenConnection,
    Product,
    RequestedDatabase,
)
from pytest_arena._product._raw_guard import EngineConnection, driver_connection
from pytest_arena._product._server_targets import address_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.engine import Dialect

    from pytest_arena._config._read import Config


class MySQLConnections:
    """Connections of PyMySQL, aiomysql, asyncmy and mysqlclient."""

    def open_product(self, core: Core, config: Config) -> Product:
        """Return the product of a run. An import of the driver does not import it."""
        from pytest_arena._mysql._product import (  # noqa: PLC0415 - as said
            MySQL,
        )

        return MySQL(core, config)

    def describe(
        self, dialect: Dialect, cargs: object, cparams: Any
    ) -> RequestedDatabase | None:
        """Return the database that a driver's arguments name."""
        if dialect.driver not in arguments.DRIVERS or cargs:
            return None
        return arguments.target(cparams).requested(dialect)

    def redirect(
        self,
        core: Core,
        dialect: Dialect,
        target: ConnectTarget | None,
        cargs: list[Any],
        cparams: dict[str, object],
    ) -> Callable[[object], OpenConnection | None]:
        """Redirect a connection to the target."""
        del cargs
        if target is not None and target.address is not None:
            login = arguments.target(cparams).login
            address = address_for(target, login)
            arguments.redirect(dialect.driver, address, cparams)
            # The build of a template has no limit, and no database of a test.
            if core.config.lock_timeout and target.database is not None:
                arguments.bound_locks(core.config.lock_timeout, cparams)
            # SQLAlchemy reads this name from its first connection, and qualifies names with it.
            dialect.default_schema_name = target.address.database
        # A later listener of the app may open another connection.
        is_last = len(dialect.dispatch.do_connect) == 1

        def opened(dbapi_connection: object) -> OpenConnection | None:
            if not is_last:
                return None
            if target is None:
                return OpenConnection()
            return OpenConnection(target, MySQLHandle(core, target, dbapi_connection))

        return opened

    def recognize(self, core: Core, dbapi_connection: object) -> OpenConnection | None:
        """Find the connection's database by its unique name."""
        driver = driver_connection(dbapi_connection)
        if facts_of_driver(driver) is not FACTS:
            return None
        raw = CONNECTIONS.find(driver)
        if raw is not None and raw.target is None:
            return OpenConnection()  # `arena_allow` has admitted it
        name = _database_of(driver)
        for database in core.provisioned():
            target = database.target
            if target.address is not None and target.address.database == name:
                CONNECTIONS.give_to_pool(driver)
                return OpenConnection(
                    target, MySQLHandle(core, target, dbapi_connection)
                )
        host = _attribute(driver, "host") or "localhost"
        port = _attribute(driver, "port") or arguments.PORT
        return OpenConnection(outside=f"mysql://{host}:{port}/{name}")

    def watch(self, core: Callable[[], Core | None]) -> None:
        """Watch the constructors and the statements of the drivers' connections."""
        watch_drivers(core)

    def end_raw(self, serial: int | None) -> None:
        """End the connections that no engine has opened in a level."""
        CONNECTIONS.end(serial)

    def raw_transactions(self) -> list[str]:
        """Return the lines that opened raw connections which are inside a transaction."""
        return CONNECTIONS.transactions()


def _attribute(connection: object, name: str) -> Any:
    value = getattr(connection, f"_{name}", None)  # asyncmy, aiomysql
    return value or getattr(connection, name, None)


def _database_of(connection: object) -> str:
    name = _attribute(connection, "db") or ""
    if isinstance(name, bytes):
        return name.decode()
    return str(name)


connections = MySQLConnections()


class MySQLHandle(EngineConnection):
    """A connection of PyMySQL, aiomysql, asyncmy or mysqlclient."""

    __slots__ = ("_session",)
    words = WORDS

    def __init__(
        self, core: Core, target: ConnectTarget, dbapi_connection: object
    ) -> None:
        driver = driver_connection(dbapi_connection)
        super().__init__(core, target, dbapi_connection, pid_of(driver))
        self._session = begin_session(driver, target)

    @property
    def in_transaction(self) -> bool:
        """Whether an open transaction has changed rows."""
        return self._session.has_written

    @property
    def is_begun(self) -> bool:
        """Whether a transaction is open, by its statements."""
        return self._session.is_begun

    def roll_back(self) -> None:
        """End the session, which ends the transaction and releases its locks."""
        super().roll_back()
        self._session.end_transaction()

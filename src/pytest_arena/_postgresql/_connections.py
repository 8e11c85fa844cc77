"""Opens the drivers' connections on the test's database."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from pytest_arena._interpreter import patch
from pytest_arena._postgresql import DRIVERS, FACTS
from pytest_arena._postgresql import _arguments as arguments
from pytest_arena._postgresql._driver_guard import (
    CONNECTIONS,
    WORDS,
    is_in_transaction,
    pid_of,
    watch_drivers,
)
from pytest_arena._postgresql._rollback import SharedTransaction, shared_at
from pytest_arena._product._server_connections import (
    EngineConnection,
    ServerConnections,
    ServerTarget,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.engine import Dialect

    from pytest_arena._product import ConnectTarget, Core
    from pytest_arena._values import Address


def _connect(dialect: Dialect, connect: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Connect as the dialect does. Return a facade for a shared database."""
    __tracebackhide__ = True
    address = getattr(kwargs.get("host"), "address", None)
    shared = shared_at(address) if address is not None else None
    if shared is None:
        return connect(*args, **kwargs)
    return shared.facade(dialect, connect, args, kwargs)


class PostgreSQLHandle(EngineConnection):
    """A connection of asyncpg, psycopg or psycopg2."""

    words = WORDS
    pid_of = staticmethod(pid_of)

    @property
    def has_uncommitted_writes(self) -> bool:
        """Whether an open transaction has written.

        Drivers begin a transaction at the first SELECT. Only the server knows whether it has
        written.
        """
        if not self.is_begun:
            return False
        isolation = self._target.isolation
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

    def __init__(self, target: ConnectTarget, facade: SharedTransaction) -> None:
        super().__init__(target, facade)
        self._facade = facade

    @property
    def has_uncommitted_writes(self) -> bool:
        """Whether the open transaction has written."""
        return self._facade.shared.writer is self._facade

    @property
    def is_begun(self) -> bool:
        """Whether a transaction is open."""
        return self._facade.is_begun

    def interrupt(self) -> None:
        """Do nothing: the statement belongs to the connection of all."""

    def roll_back(self) -> None:
        """End the transaction. The pool drops the facade."""
        self._facade.close()

    def note_checkout(self) -> None:
        """Note a checkout. The `connect` listeners are over."""
        self._facade.is_connecting = False


class PostgreSQLConnections(ServerConnections):
    """Connections of asyncpg, psycopg and psycopg2."""

    words = WORDS
    facts = FACTS
    drivers: ClassVar[tuple[str, ...]] = DRIVERS
    arguments: ClassVar = arguments
    raw = CONNECTIONS
    factories: ClassVar[tuple[str, ...]] = ("connection_factory", "connection_class")
    watch = staticmethod(watch_drivers)

    def opened(self, connection: Any) -> ServerTarget:
        """Ask psycopg and psycopg2, because a factory of the app may change arguments."""
        info = getattr(connection, "info", None)
        if info is None:
            return super().opened(connection)
        return ServerTarget(FACTS.name, f"{info.host or info.hostaddr}:{info.port}", info.dbname)

    def handle(self, target: ConnectTarget, dbapi_connection: object) -> PostgreSQLHandle:
        """Return the handle of a connection, or of a facade of the isolation ``rollback``."""
        if isinstance(dbapi_connection, SharedTransaction):
            return SharedHandle(target, dbapi_connection)
        return PostgreSQLHandle(target, dbapi_connection)

    def prepare(self, core: Core, dialect: Dialect, address: Address) -> None:
        """Let the dialect connect to a shared database."""
        del address
        is_shared = core.config.isolation == "rollback"
        if is_shared and not isinstance(dialect.connect, partial):
            patch(dialect, "connect", partial(_connect, dialect, dialect.connect))


connections = PostgreSQLConnections()

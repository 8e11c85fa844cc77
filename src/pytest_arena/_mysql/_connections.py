"""Opens the drivers' connections on the test's database."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pytest_arena._mysql import FACTS
from pytest_arena._mysql import _arguments as arguments
from pytest_arena._mysql._driver_guard import (
    CONNECTIONS,
    WORDS,
    begin_session,
    pid_of,
    watch_drivers,
)
from pytest_arena._product._server_connections import (
    EngineConnection,
    ServerConnections,
    driver_connection,
)

if TYPE_CHECKING:
    from sqlalchemy.engine import Dialect

    from pytest_arena._product import ConnectTarget, Core
    from pytest_arena._values import Address


class MySQLHandle(EngineConnection):
    """A connection of PyMySQL, aiomysql, asyncmy or mysqlclient."""

    words = WORDS
    pid_of = staticmethod(pid_of)

    def __init__(self, target: ConnectTarget, dbapi_connection: object) -> None:
        super().__init__(target, dbapi_connection)
        self._session = begin_session(driver_connection(dbapi_connection), target)

    @property
    def has_uncommitted_writes(self) -> bool:
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


class MySQLConnections(ServerConnections):
    """Connections of PyMySQL, aiomysql, asyncmy and mysqlclient."""

    words = WORDS
    facts = FACTS
    drivers: ClassVar[tuple[str, ...]] = arguments.DRIVERS
    arguments: ClassVar = arguments
    raw = CONNECTIONS
    watch = staticmethod(watch_drivers)

    def handle(self, target: ConnectTarget, dbapi_connection: object) -> MySQLHandle:
        """Return the handle of a connection."""
        return MySQLHandle(target, dbapi_connection)

    def prepare(self, core: Core, dialect: Dialect, address: Address) -> None:
        """Name the database, with which SQLAlchemy qualifies names.

        SQLAlchemy reads the name from the engine's first connection.
        """
        del core
        dialect.default_schema_name = address.database


connections = MySQLConnections()

"""Records of the drivers' connections to servers. The end of a level ends some of them."""

from __future__ import annotations

import weakref
from abc import abstractmethod
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from pytest_arena._origin import user_line
from pytest_arena._product import RawWrites
from pytest_arena._product._server_targets import address_for
from pytest_arena._product._spawned_drivers import SpawnedDrivers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from pytest_arena._product import (
        ConnectTarget,
        Core,
        Database,
        Key,
        RequestedDatabase,
    )
    from pytest_arena._product._admission import Admission
    from pytest_arena._values import Address, CodeLine


class ConnectionRecord:
    """The facts about a connection of a driver."""

    def __init__(self) -> None:
        self.admission: Admission | None = None  # None for a connection of an engine
        # The database of an idle connection in a pool of an engine.
        self.idle_key: Key | None = None
        # The number of statements and of driver calls that have changed the session.
        self.session_changes = 0
        # The attributes below are set for a connection that no engine has opened.
        self.opened_at: CodeLine | None = None
        self.writes = RawWrites()  # of the last transaction
        # By the serial of a level: the line that has changed the session in it.
        self.altered: dict[int, CodeLine | None] = {}

    @property
    def is_stale(self) -> bool:
        """Whether its database was replaced or dropped since it began to connect."""
        if self.admission is None or self.admission.target is None:
            return False
        target = self.admission.target
        database = target.database
        return database is not None and database.target.generation != target.generation

    def admit(self, admission: Admission) -> None:
        """Note the admission."""
        self.admission = admission
        if admission.target is not None:
            self.opened_at = user_line()

    def join_pool(self) -> None:
        """Note that no level ends it, because a pool has it or pytest-arena has ended it."""
        if self.admission is not None:
            self.admission = replace(self.admission, target=None)

    def note_idle(self, key: Key | None) -> None:
        """Note that it is idle in an engine's pool. With None, note that the pool hands it out."""
        self.idle_key = key

    def forget_changes(self, serial: int) -> None:
        """Note that the session was restored to its state before a level."""
        self.altered.pop(serial, None)


RecordT = TypeVar("RecordT", bound=ConnectionRecord)


class RawConnection(NamedTuple, Generic[RecordT]):
    """An open connection that no engine has opened, and no engine's pool has."""

    target: ConnectTarget
    serial: int  # of the level to which it belongs
    driver: Any
    record: RecordT

    @property
    def line(self) -> str:
        """The line of the first write in its transaction, else the line that opened it."""
        line = self.record.writes.line or self.record.opened_at
        return str(line or "a pool of a driver")


class ConnectionRecords(Generic[RecordT]):
    """The records of a product's connections. A record ends with its connection."""

    def __init__(
        self, new_record: Callable[[], RecordT], is_closed: Callable[[Any], bool]
    ) -> None:
        self._new_record = new_record
        self._is_closed = is_closed
        self.by_connection: weakref.WeakKeyDictionary[object, RecordT] = (
            weakref.WeakKeyDictionary()
        )

    def of(self, driver_connection: object) -> RecordT:
        """Return the record of a driver's connection. The first call creates it."""
        known = self.by_connection.get(driver_connection)
        return known or self.by_connection.setdefault(
            driver_connection, self._new_record()
        )

    def known(self, driver_connection: object) -> RecordT | None:
        """Return the record of a driver's connection, None for one that is not recorded."""
        try:
            return self.by_connection.get(driver_connection)
        except TypeError:  # an app's object that is not hashable
            return None

    def all(self) -> list[tuple[Any, RecordT]]:
        """Return the connections with their records."""
        # Copied, because other threads change the dictionary.
        connections = [reference() for reference in self.by_connection.keyrefs()]
        return [
            (connection, self.of(connection))
            for connection in connections
            if connection is not None
        ]

    def raw(self) -> list[RawConnection[RecordT]]:
        """Return the open connections that no engine has opened."""
        connections = []
        for connection, record in self.all():
            admission = record.admission
            if admission is None or admission.target is None:
                continue
            if not self._is_closed(connection):
                raw = RawConnection(
                    admission.target, admission.serial, connection, record
                )
                connections.append(raw)
        return connections


class ServerConnections(Generic[RecordT]):
    """Connections of the drivers of a server's product."""

    product: str
    guard_module: str  # the module that watches the drivers, also in spawned processes
    records: ConnectionRecords[RecordT]

    @abstractmethod
    def _is_in_transaction(self, driver: Any) -> bool:
        """Return whether a transaction is open, as the driver knows it."""

    @abstractmethod
    def _has_written(self, raw: RawConnection[RecordT]) -> bool:
        """Return whether the open transaction of a connection has written."""

    @abstractmethod
    def _reset(self, raw: RawConnection[RecordT], serial: int | None) -> str:
        """Reset the session if the level has changed it. Return why it must end, or ""."""

    @abstractmethod
    def _end(self, raw: RawConnection[RecordT]) -> None:
        """End the session of a connection."""

    def _end_wide(self, raw: RawConnection[RecordT]) -> None:
        """End the session of a wider fixture's connection."""
        self._end(raw)

    def end_raw(self, core: Core, serial: int | None) -> list[str]:
        """End the sessions of a level's connections, and of connections to replaced databases.

        Reset or end a connection of a wider fixture if the level has changed its session. Return
        the lines of lost writes.
        """
        lost = []
        for raw in self.records.raw():
            is_of_level = raw.serial == serial
            may_have_lost = is_of_level or raw.record.writes.written_in(serial or 0)
            has_lost = may_have_lost and self._has_written(raw)
            if has_lost:
                lost.append(raw.line)
            if is_of_level:
                self._end(raw)
                continue
            if has_lost:
                reason = f"it was left inside a transaction ({raw.line})"
            elif raw.record.is_stale:
                reason = "its database was replaced"
            else:
                reason = self._reset(raw, serial)
            if reason:
                # The report of a later error names the reason.
                opened_at = raw.record.opened_at or "by a pool"
                core.ledger.ended_connections.append(f"{reason}; opened: {opened_at}")
                self._end_wide(raw)
        return lost

    def raw_transactions(self) -> list[str]:
        """Return the lines of raw connections that are inside a transaction."""
        return [
            raw.line
            for raw in self.records.raw()
            if self._is_in_transaction(raw.driver)
        ]

    def _databases(self, core: Core) -> list[Database]:
        return [
            database
            for database in core.provisioned()
            if database.product.name == self.product
        ]

    def in_spawned(
        self, core: Core, engines: Sequence[RequestedDatabase]
    ) -> SpawnedDrivers | None:
        """Return the guard of spawned processes, None with ``arena_drivers = off``."""
        if core.config.drivers == "off":
            return None
        addresses: dict[tuple[str, str], Address] = {}
        for database in self._databases(core):
            # An engine whose URL names no user has the database's first login.
            logins = {None, database.login}
            for requested in engines:
                if database.product.identify(requested)[0] == database.key:
                    logins.add(requested.login)
            for login in logins:
                address = address_for(database.target, login)
                user = login.user if login else ""
                addresses.update({(name, user): address for name in database.tails})
        return SpawnedDrivers(
            self.product, self.guard_module, addresses, core.config.allow
        )


class ServerHandle(Generic[RecordT]):
    """An open connection of an engine to a server.

    A driver's connection cannot be used in another thread or event loop. So pytest-arena asks the
    server about it, and ends its session, by the control connection.
    """

    __slots__ = ("_record", "_reference", "_target")

    def __init__(
        self,
        target: ConnectTarget,
        dbapi_connection: object,
        records: ConnectionRecords[RecordT],
    ) -> None:
        driver = driver_connection(dbapi_connection)
        self._target = target
        self._reference = weakref.ref(driver)
        self._record = records.of(driver)

    def is_of(self, dbapi_connection: object) -> bool:
        """Return whether this is the handle's connection."""
        return self._reference() is driver_connection(dbapi_connection)

    def changes(self) -> int:
        """Return 0: no driver counts the changed rows of a transaction."""
        return 0

    def alone(self, seconds: float = 0) -> AbstractContextManager[bool]:
        """Yield True, because pytest-arena does not use the connection itself."""
        del seconds
        return nullcontext(enter_result=True)


def driver_connection(dbapi_connection: object) -> Any:
    """Return the driver's connection inside SQLAlchemy's adapted connection."""
    return getattr(dbapi_connection, "driver_connection", dbapi_connection)

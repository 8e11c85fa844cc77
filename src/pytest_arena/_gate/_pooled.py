"""The record of a pooled connection: its target, its settings and its uncommitted writes."""

from __future__ import annotations

import os
import weakref
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from pytest_arena._origin import REQUEST, Call, call_of_test, is_of_tests
from pytest_arena._values import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sqlalchemy.pool import ConnectionPoolEntry

    from pytest_arena._product import ConnectTarget, Handle, Key, OpenConnection
    from pytest_arena._values import CodeLine

    # Describes an open connection. Returns None if a listener of the app may have replaced it.
    Identify = Callable[[object], OpenConnection | None]

INFO = "pytest_arena"  # the key of a `PooledConnection` in its entry's ``info``


class HasInfo(Protocol):
    """A pool's entry, or the connection that the pool hands out."""

    @property
    def info(self) -> dict[object, Any]:
        """Values of the app and of libraries. SQLAlchemy clears them when the entry reconnects."""


class TableWrite(NamedTuple):
    """Rows that one statement has written to a table."""

    table: str
    rows: int  # 0 if the driver does not count them
    is_insert: bool
    serial: int  # of its level


def tables_of(writes: Iterable[TableWrite]) -> tuple[str, ...]:
    """Return the names of the tables, each once."""
    return tuple(dict.fromkeys(write.table for write in writes))


def _rows_of(writes: Iterable[TableWrite]) -> int:
    return sum(write.rows or 1 for write in writes)


def wrote(tables: Iterable[str], rows: int) -> str:
    """Return words such as ``wrote stock (1 row)``."""
    return f"wrote {', '.join(tables)} ({counted(rows, 'row')})"


@dataclass(slots=True, eq=False)
class PendingWrites:
    """Uncommitted writes of an open transaction, by statements that SQLAlchemy ran.

    Writes that were rolled back to a savepoint are removed.
    """

    line: CodeLine | None  # of the first write
    serial: int  # of the level of the first write
    writes: list[TableWrite] = field(default_factory=list)
    # Whether a statement has failed since the last rollback to a savepoint.
    has_failed: bool = False
    is_over: bool = False  # whether the transaction was committed or rolled back
    key: Key | None = None  # of the database
    # The `RequestAnswer` of the request that began the transaction.
    request: object = None
    # The test's call of app code that wrote outside of a request.
    call: Call = ()
    # The number of writes before each savepoint.
    _savepoints: list[int] = field(default_factory=list)

    def __str__(self) -> str:
        tables = ", ".join(tables_of(self.writes))
        rows = counted(_rows_of(self.writes), "uncommitted row")
        return f"{rows} ({tables}), written at {self.place}"

    @property
    def words(self) -> str:
        """Words such as ``wrote stock (1 row)``."""
        return wrote(tables_of(self.writes), _rows_of(self.writes))

    @property
    def place(self) -> str:
        """The line of the first write."""
        return str(self.line or "a line that cannot be seen")

    def add(self, write: TableWrite) -> None:
        """Add a write of the open transaction."""
        self.writes.append(write)

    def set_savepoint(self) -> None:
        """Note that a savepoint is set."""
        self._savepoints.append(len(self.writes))

    def release_savepoint(self) -> int:
        """Forget the last savepoint. Return the number of writes before it.

        It is 0 if the savepoint was set before the first write.
        """
        return self._savepoints.pop() if self._savepoints else 0

    def roll_back_to_savepoint(self) -> None:
        """Forget the writes and the failure since the last savepoint."""
        del self.writes[self.release_savepoint() :]
        self.has_failed = False

    def fail(self) -> None:
        """Note that a statement has failed."""
        self.has_failed = True

    def end(self) -> None:
        """Note that the transaction was committed or rolled back."""
        self.is_over = True


@dataclass(slots=True, eq=False, weakref_slot=True)
class PooledConnection:
    """The record of a connection in a pool, created before the connection is opened.

    An entry of the pool gets a new record each time that it connects.
    """

    entry: weakref.ref[ConnectionPoolEntry]
    # The database that it reaches. None for a database that pytest-arena does not replace.
    target: ConnectTarget | None = None
    # The product's view of the connection. None for an unknown driver.
    handle: Handle | None = None
    # The key of its database on a server, once the connection is open.
    key: Key | None = None
    # The product's function that describes the open connection. None once it was called.
    identify: Identify | None = None
    process: int = field(default_factory=os.getpid)
    thread: int | None = None  # the thread that opens it or has it checked out
    is_stale: bool = False  # whether its pool drops it at the next checkout
    is_ended: bool = False  # whether `retire` was called
    is_used: bool = False  # whether it was checked out since the level began
    # Its settings and temporary objects, as the product describes them. None until they are read.
    settings: object = None
    # Serials of wide fixtures that changed the settings.
    settings_kept_by: tuple[int, ...] = ()
    pending_writes: PendingWrites | None = None
    # The driver's count of changed rows at the checkout, or after the last transaction.
    changes: int = 0

    @classmethod
    def create(cls, entry: ConnectionPoolEntry) -> PooledConnection:
        """Create the record of a connecting entry, and attach it to the entry."""
        earlier = cls.find(entry)
        thread = earlier.thread if earlier is not None else None
        pooled = cls(weakref.ref(entry), thread=thread)
        entry.info[INFO] = pooled
        return pooled

    @staticmethod
    def find(owner: HasInfo) -> PooledConnection | None:
        """Return the record of a pool's entry, or of the connection that it hands out."""
        try:
            pooled: PooledConnection | None = owner.info.get(INFO)
        except (AttributeError, NotImplementedError):
            return None  # the first connection of an engine has no pool
        return pooled

    @property
    def is_current(self) -> bool:
        """Whether its entry exists, and has not connected again since."""
        entry = self.entry()
        return entry is not None and entry.info.get(INFO) is self

    def targets(self) -> tuple[ConnectTarget, ...]:
        """Return its target, if pytest-arena has redirected it."""
        return () if self.target is None else (self.target,)

    # Opening

    def begin_connect(
        self, target: ConnectTarget | None, identify: Identify | None
    ) -> None:
        """Note that SQLAlchemy is about to open the connection."""
        self.target = target
        self.identify = identify

    def note_opened(self, live: OpenConnection) -> None:
        """Note the description of the open connection by its product."""
        self.target = live.target
        self.handle = live.handle
        self.key = None
        if live.handle is not None and live.target is not None and live.target.address:
            self.key = live.target.key
        self.identify = None

    # Checkouts and settings

    def occupy(self, thread: int) -> None:
        """Note that a thread opens it or checks it out."""
        self.thread = thread

    def release(self) -> None:
        """Note that no thread uses it."""
        self.thread = None

    def begin_use(self) -> None:
        """Note a checkout. The first one reads the settings of a new connection."""
        is_first = not self.is_used
        self.is_used = True
        self.pending_writes = None
        if self.handle is None:
            return
        self.changes = self.handle.note_checkout(is_first=is_first)
        if self.settings is None and self.target and not self.target.is_passing:
            self.settings = self.handle.session(self._dbapi_connection)

    def retire(self) -> None:
        """Roll back. The pool drops the connection at the next checkout. Idempotent."""
        self.is_stale = True
        if not self.is_ended:
            self.is_ended = True
            self.roll_back()

    def roll_back(self) -> None:
        """End its transaction. The connection may be unusable afterwards."""
        if self.handle is not None:
            self.handle.roll_back()

    def is_altered(self, serial: int) -> bool:
        """Return whether a level has changed its settings, or they belong to the level's fixture.

        Call this while the connection is checked out.
        """
        return serial in self.settings_kept_by or self._new_settings() is not None

    def keep_held_settings(self, serial: int) -> None:
        """Keep the settings that a wide fixture has made, while the connection is checked out."""
        now = self._new_settings()
        if now is not None:
            self.settings_kept_by += (serial,)
            self.settings = now

    def keep_until_returned(self) -> None:
        """Keep its settings while it is checked out. Its pool drops it at the next checkout."""
        self.settings = self._new_settings() or self.settings
        self.is_stale = True

    def _new_settings(self) -> object:
        """Return its settings if they have changed, else None."""
        if self.handle is None or self.settings is None:
            return None
        now = self.handle.session(self._dbapi_connection)
        return None if now == self.settings else now

    def keep_settings(self, serial: int) -> None:
        """Keep the settings that a wide fixture has made, until the fixture ends."""
        if not self.is_used:
            return
        if self.handle is None or self.target is None:
            return
        now = self.handle.session(self._dbapi_connection)
        if now is None:
            return
        if now != self.settings:
            self.settings_kept_by += (serial,)
        self.settings = now
        self.is_used = False

    def end_level(self, serial: int, *, is_stale: bool) -> bool:
        """Mark it as stale if its settings changed in the level, or the level's fixture set them.

        With ``is_stale`` mark it without reading its settings. Call this only while the connection
        is in its pool. Return whether it is stale.
        """
        is_over = serial in self.settings_kept_by
        if self.handle is None or self.target is None or not (self.is_used or is_over):
            return False
        if not is_stale:
            # None if it belongs to another thread, so that no settings can be read.
            now = self.handle.session(self._dbapi_connection)
            is_changed = now is None or now != self.settings
            # A raw script may have begun a transaction that the pool does not know.
            is_stale = is_changed or self.handle.is_begun
        if is_over or is_stale:
            self.is_stale = True
        self.is_used = False
        if is_over:
            # The pool opens a new connection, which also lacks the settings of the fixtures below.
            # The next checkout reports that.
            position = self.settings_kept_by.index(serial)
            self.settings_kept_by = self.settings_kept_by[:position]
        return self.is_stale

    @property
    def _dbapi_connection(self) -> object:
        entry = self.entry()
        return entry.dbapi_connection if entry is not None else None

    # Writes

    def begin_writes(self, line: CodeLine | None, serial: int) -> PendingWrites:
        """Note the first write of a transaction."""
        request = REQUEST.get()
        call: Call = ()
        if request is None and line is not None and not is_of_tests(line.file):
            call = call_of_test()
        key = self.target.key if self.target is not None else None
        self.pending_writes = PendingWrites(
            line,
            serial,
            request=request,
            call=call,
            key=key,
        )
        return self.pending_writes

    def fail_writes(self) -> None:
        """Note that a statement has failed."""
        if self.pending_writes is not None:
            self.pending_writes.fail()

    def end_writes(self) -> None:
        """Note that the transaction is over."""
        if self.pending_writes is not None:
            self.pending_writes.end()
        self.pending_writes = None
        if self.handle is not None:
            self.changes = self.handle.changes()

    def rows_written(self) -> int:
        """Return the least number of rows that the open transaction has written."""
        writes = self.pending_writes.writes if self.pending_writes is not None else []
        has_unknown = any(not write.rows for write in writes)
        if has_unknown and self.handle is not None:
            count = self.handle.changes() - self.changes
            if count:
                return count
        return sum(write.rows or 1 for write in writes)

    def has_open_writes(self, dbapi_connection: object) -> bool:
        """Ask the database whether the transaction has uncommitted writes.

        The app may have committed them without SQLAlchemy.
        """
        if self.handle is None or not self.handle.is_begun:
            return False
        if self.pending_writes is not None and self.pending_writes.has_failed:
            return True  # PostgreSQL accepts no query in a failed transaction
        try:
            return self.handle.has_written(dbapi_connection, self.changes)
        except Exception:  # noqa: BLE001 - the connection is closed or busy
            return False

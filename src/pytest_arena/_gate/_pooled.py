"""One record for each pooled connection."""

from __future__ import annotations

import os
import sys
import weakref
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from pytest_arena._gate._unnamed import (
    LOCKS,
    MAY_WRITE,
    NOTIFIES,
    TEMPORARY,
    WRITES,
)
from pytest_arena._origin import REQUEST
from pytest_arena._values import Contents, counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sqlalchemy.pool import ConnectionPoolEntry

    from pytest_arena._product import ConnectTarget, Handle, Key, OpenConnection
    from pytest_arena._values import CodeLine

INFO = "pytest_arena"  # the key of a `PooledConnection` in its entry's ``info``


class HasInfo(Protocol):
    """A pool's entry, or the connection that the pool hands out."""

    @property
    def info(self) -> dict[object, Any]:
        """Notes of any library. SQLAlchemy clears them when it connects again."""


class TableWrite(NamedTuple):
    """Rows that one statement has written to a table."""

    table: str
    rows: int  # 0 if the driver does not count them
    is_insert: bool


def tables_of(writes: Iterable[TableWrite]) -> tuple[str, ...]:
    """Return the names of the tables, each once."""
    return tuple(dict.fromkeys(write.table for write in writes))


def wrote(tables: Iterable[str], rows: int) -> str:
    """Return the tables and rows that were written, as ``wrote stock (1 row)``."""
    return f"wrote {', '.join(tables)} ({counted(rows, 'row')})"


@dataclass(slots=True, eq=False)
class PendingWrites:
    """Uncommitted writes of an open transaction, by statements that SQLAlchemy ran.

    Writes that were rolled back to a savepoint are not among them.
    """

    line: CodeLine | None  # of the first write
    serial: int  # of the level of the first write
    writes: list[TableWrite] = field(default_factory=list)
    has_failed: bool = (
        False  # a statement failed, and no savepoint was rolled back since
    )
    is_over: bool = False  # committed, or rolled back
    # The id of the error that the app handled at the first write, 0 for none.
    handled_error: int = 0
    request: object = (
        None  # the `RequestAnswer` of the request that began the transaction
    )
    _savepoints: dict[str, int] = field(default_factory=dict)  # writes before each

    def __str__(self) -> str:
        tables = ", ".join(tables_of(self.writes))
        rows = counted(self._rows, "uncommitted row")
        return f"{rows} ({tables}), written at {self.place}"

    @property
    def words(self) -> str:
        """The tables and rows that were written, as ``wrote stock (1 row)``."""
        return wrote(tables_of(self.writes), self._rows)

    @property
    def place(self) -> str:
        """The line of the first write."""
        return str(self.line or "a line that cannot be seen")

    @property
    def _rows(self) -> int:
        return sum(write.rows or 1 for write in self.writes)

    def add(self, write: TableWrite) -> None:
        """Add what a statement has written."""
        self.writes.append(write)

    def mark_savepoint(self, name: str) -> None:
        """Note that a savepoint is set."""
        self._savepoints[name] = len(self.writes)

    def roll_back_to(self, savepoint: str) -> None:
        """Forget writes, and a failure, since a savepoint."""
        del self.writes[self._savepoints.get(savepoint, 0) :]
        self.has_failed = False

    def fail(self) -> None:
        """Note that a statement has failed: the app has to roll back before its next statement."""
        self.has_failed = True

    def end(self) -> None:
        """Note that the transaction is committed, or rolled back."""
        self.is_over = True

    def reopen(self) -> None:
        """Note that the database has not committed the transaction yet."""
        self.is_over = False


@dataclass(slots=True)
class UnnamedWrite:
    """Possible writes of a request's open transaction by statements that name no table."""

    serial: int  # of the level in which it began
    words: str = ""  # of the first such statement, as ``called write_it()``
    line: CodeLine | None = None  # of that statement
    kind: str = ""  # of that statement, as `_unnamed` names it
    # PostgreSQL gives the transaction an id for them too.
    has_locks: bool = False
    has_temporary: bool = False

    def note(self, kind: str, words: str) -> bool:
        """Note a statement. Return whether it is the one to name: the first sure one."""
        self.has_locks |= kind == LOCKS
        self.has_temporary |= kind == TEMPORARY
        is_sure = kind in {WRITES, NOTIFIES}
        is_named = (is_sure and self.kind in {"", MAY_WRITE}) or (
            kind == MAY_WRITE and not self.kind
        )
        if is_named:
            self.kind = kind
            self.words = words
        return is_named

    def note_line(self, line: CodeLine | None) -> None:
        """Note where that statement was sent."""
        self.line = line


class ConnectionInfo:
    """The values that an app had in ``Connection.info``, without the record of pytest-arena."""

    def __init__(self, info: dict[object, object]) -> None:
        self._values = {key: value for key, value in info.items() if key != INFO}
        self._inner = Contents(self._values)

    def restore(self, info: dict[object, object]) -> None:
        """Put the former values back."""
        self._inner.restore()
        for key in [*info]:
            if key != INFO and key not in self._values:
                del info[key]
        info.update(self._values)


@dataclass(slots=True, eq=False, weakref_slot=True)
class PooledConnection:
    """A connection of a pool, from before it is opened.

    A new one is made each time that SQLAlchemy connects an entry.
    """

    entry: weakref.ref[ConnectionPoolEntry]
    # Where it lands. None: in a database outside of the arena.
    target: ConnectTarget | None = None
    # How pytest-arena reaches it. None for a driver that is not known.
    handle: Handle | None = None
    key: Key | None = None  # of its database on a server, once it is open
    identify: Callable[[object], OpenConnection | None] | None = (
        None  # until it is open
    )
    process: int = field(default_factory=os.getpid)
    thread: int | None = None  # that opens it, or has it checked out
    is_stale: bool = False  # its pool drops it at the next checkout
    is_used: bool = False  # since the level began
    # Settings and temporary objects, as the product describes them. None: not yet known.
    settings: object = None
    kept_by: tuple[int, ...] = ()  # serials of wide fixtures that changed the settings
    # What was in `Connection.info`: at the first checkout, and after each wide fixture that used
    # the connection, with its serial.
    infos: list[tuple[int | None, ConnectionInfo]] = field(default_factory=list)
    pending_writes: PendingWrites | None = None
    unnamed: UnnamedWrite | None = None
    temporary_tables: set[str] = field(default_factory=set)  # that requests created
    changes: int = 0  # that the driver had counted when the transaction began

    @classmethod
    def create(cls, entry: ConnectionPoolEntry) -> PooledConnection:
        """Create the record of a pool's entry that connects, and attach it to the entry."""
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
            return None  # SQLAlchemy inspects a server by a connection without a pool
        return pooled

    @property
    def is_current(self) -> bool:
        """Whether its entry exists, and has not connected again since."""
        entry = self.entry()
        return entry is not None and entry.info.get(INFO) is self

    def targets(self) -> tuple[ConnectTarget, ...]:
        """Return where it lands, and the databases that it has attached."""
        attached = self.handle.attached() if self.handle is not None else ()
        if self.target is None:
            return attached
        return (self.target, *attached)

    # Opening it.

    def lead(self, target: ConnectTarget | None) -> None:
        """Note where it is about to be led."""
        self.target = target

    def identify_by(self, identify: Callable[[object], OpenConnection | None]) -> None:
        """Note the function of the product that recognizes the connection when it is open."""
        self.identify = identify

    def become(self, live: OpenConnection) -> None:
        """Note what its product knows of the open connection."""
        self.target = live.target
        self.handle = live.handle
        self.key = None
        if live.handle is not None and live.target is not None and live.target.address:
            self.key = live.target.key
        self.identify = None

    # Using it.

    def occupy(self, thread: int) -> None:
        """Note that a thread opens it, or checks it out."""
        self.thread = thread

    def release(self) -> None:
        """Note that no thread has it."""
        self.thread = None

    def begin_use(self) -> None:
        """Note a checkout. The first one reads the settings of a new connection."""
        if not self.infos:
            self._keep_info(None)
        is_first = not self.is_used
        self.is_used = True
        self.pending_writes = None
        self.unnamed = None
        if self.handle is None:
            return
        self.changes = self.handle.taken(is_first=is_first)
        if self.settings is None and self.target and not self.target.is_passing:
            self.settings = self.handle.session()

    def mark_stale(self) -> None:
        """Let its pool drop it at the next checkout."""
        self.is_stale = True

    def keep_settings(self, serial: int) -> None:
        """Keep what a wide fixture has set in it, as long as the fixture lives."""
        if not self.is_used:
            return
        self._keep_info(serial)
        if self.handle is None or self.target is None:
            return
        now = self.handle.session()
        if now is None:
            return
        if now != self.settings:
            self.kept_by += (serial,)
        self.settings = now
        self.is_used = False

    def end_level(self, serial: int) -> bool:
        """Mark it as stale if its settings changed in the level, or end with it.

        Returns whether it was not stale before. Call it while the connection is in its pool.
        """
        self._restore_info(serial)
        is_over = serial in self.kept_by
        if self.handle is None or self.target is None or not (self.is_used or is_over):
            return False
        was_stale = self.is_stale
        # One that cannot be asked, because it belongs to another thread, is dropped as well.
        now = self.handle.session()
        if is_over or now is None or now != self.settings:
            self.is_stale = True
        self.is_used = False
        if is_over:
            # The fixtures below lose their settings too. A note says so at the next checkout.
            self.kept_by = self.kept_by[: self.kept_by.index(serial)]
        return self.is_stale and not was_stale

    def _keep_info(self, serial: int | None) -> None:
        entry = self.entry()
        if entry is not None:
            self.infos.append((serial, ConnectionInfo(entry.info)))

    def _restore_info(self, serial: int) -> None:
        """Restore ``Connection.info``, also at the end of a fixture that has filled it."""
        for number, (owner, _) in enumerate(self.infos):
            if owner == serial:
                del self.infos[number:]
                break
        entry = self.entry()
        if self.infos and entry is not None:
            _, before = self.infos[-1]
            before.restore(entry.info)

    # Writing by it.

    def begin_writes(self, line: CodeLine | None, serial: int) -> PendingWrites:
        """Note the first write of a transaction."""
        error = sys.exception()
        handled_error = id(error) if error is not None else 0
        self.pending_writes = PendingWrites(
            line, serial, request=REQUEST.get(), handled_error=handled_error
        )
        return self.pending_writes

    def begin_unnamed(self, serial: int) -> UnnamedWrite:
        """Return what its transaction may have written by statements that name no table."""
        if self.unnamed is None:
            self.unnamed = UnnamedWrite(serial)
        return self.unnamed

    def forget_unnamed(self) -> None:
        """Note that these statements are over, or rolled back."""
        self.unnamed = None

    def fail_writes(self) -> None:
        """Note that a statement has failed."""
        if self.pending_writes is not None:
            self.pending_writes.fail()
        self.unnamed = None  # the server has given up the transaction

    def end_writes(self) -> None:
        """Note that the transaction is over."""
        self.unnamed = None
        if self.pending_writes is not None:
            self.pending_writes.end()
        self.pending_writes = None
        if self.handle is not None:
            self.changes = self.handle.changes()

    def rows_written(self) -> int:
        """Return how many rows the open transaction has written, at least."""
        writes = self.pending_writes.writes if self.pending_writes is not None else []
        has_unknown = any(not write.rows for write in writes)
        if has_unknown and self.handle is not None:
            counted = self.handle.changes() - self.changes
            if counted:
                return counted
        return sum(write.rows or 1 for write in writes)

    def has_open_writes(self, dbapi_connection: object) -> bool:
        """Return whether the database has uncommitted writes of the transaction.

        The app may have committed them without SQLAlchemy.
        """
        if self.handle is None or not self.handle.is_begun:
            return False
        try:
            return self.handle.has_written(dbapi_connection, self.changes)
        except Exception:  # noqa: BLE001 - a driver's: it is closed, busy, or its transaction is broken
            return False

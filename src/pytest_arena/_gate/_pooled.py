"""The record of a pooled connection: its target, and its uncommitted writes."""

from __future__ import annotations

import os
import weakref
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pytest_arena._origin import REQUEST

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.pool import ConnectionPoolEntry

    from pytest_arena._ledger import Request
    from pytest_arena._product import ConnectTarget, Handle, Key, OpenConnection
    from pytest_arena._values import CodeLine

    # Describes an open connection. Returns None if a listener of the app may have replaced it.
    Identify = Callable[[object], OpenConnection | None]

INFO = "pytest_arena"  # the key of a `PooledConnection` in its entry's ``info``


@dataclass(slots=True, eq=False)
class PendingWrites:
    """Uncommitted writes of an open transaction, by statements that SQLAlchemy ran.

    Writes that were rolled back to a savepoint are removed.
    """

    line: CodeLine | None  # of the first write
    serial: int  # of the level of the first write
    key: Key | None  # of the database
    request: Request | None  # that wrote first
    # Each written table with the serial of the level.
    writes: list[tuple[str, int]] = field(default_factory=list)
    # Whether a statement has failed since the last rollback to a savepoint.
    has_failed: bool = False
    # The number of writes before each savepoint.
    savepoints: list[int] = field(default_factory=list)

    def __str__(self) -> str:
        return f"uncommitted rows ({self._tables}), written at {self.place}"

    @property
    def words(self) -> str:
        """Words such as ``wrote stock``."""
        return f"wrote {self._tables}"

    @property
    def place(self) -> str:
        """The line of the first write."""
        return str(self.line or "a line that cannot be seen")

    @property
    def _tables(self) -> str:
        return ", ".join(dict.fromkeys(table for table, _ in self.writes))

    def end_savepoint(self) -> int:
        """Forget the last savepoint. Return the number of writes before it."""
        return self.savepoints.pop() if self.savepoints else 0


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
    # The product's function that describes the open connection. None once it was called.
    identify: Identify | None = None
    process: int = field(default_factory=os.getpid)
    is_stale: bool = False  # whether its pool drops it at the next checkout
    # The serial of the last level in which a statement has altered its session.
    altered_in: int | None = None
    pending_writes: PendingWrites | None = None
    # The request that began the transaction before it was answered.
    begun_by: Request | None = None

    @classmethod
    def create(cls, entry: ConnectionPoolEntry) -> PooledConnection:
        """Create the record of a connecting entry, and attach it to the entry."""
        pooled = cls(weakref.ref(entry))
        entry.info[INFO] = pooled
        return pooled

    @staticmethod
    def find(owner: Any) -> PooledConnection | None:
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

    @property
    def key(self) -> Key | None:
        """The key of its database on a server, None for a file."""
        if self.target is None or self.handle is None or not self.target.address:
            return None
        return self.target.key

    def note_opened(self, live: OpenConnection) -> None:
        """Note the description of the open connection by its product."""
        self.target = live.target
        self.handle = live.handle
        self.identify = None

    def retire(self) -> None:
        """Roll back, which releases locks. The pool drops the connection at the next checkout."""
        if not self.is_stale and self.handle is not None:
            self.handle.roll_back()
        self.is_stale = True

    def begin_writes(self, line: CodeLine | None, serial: int) -> PendingWrites:
        """Note the first write of a transaction."""
        key = self.target.key if self.target is not None else None
        self.pending_writes = PendingWrites(line, serial, key, REQUEST.get())
        return self.pending_writes

"""The pooled connections and the sessions: their owners, their databases and their writes."""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections import Counter
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy.util import await_only
from sqlalchemy.util.concurrency import in_greenlet

from pytest_arena._ledger import LIFESPAN
from pytest_arena._origin import NO_LINE, user_line
from pytest_arena._owner import Owned, owner_here
from pytest_arena._process import alive, running_loop
from pytest_arena._product._connection_loop import connection_loop

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.engine import Connection, Dialect
    from sqlalchemy.orm import Session
    from sqlalchemy.pool import ConnectionPoolEntry

    from pytest_arena._ledger import Request
    from pytest_arena._owner import Owner
    from pytest_arena._product import ConnectTarget, Handle, Key, OpenConnection
    from pytest_arena._values import CodeLine

    # Describes an open connection. Returns None if a listener of the app may have replaced it.
    Identify = Callable[[object], OpenConnection | None]

# The key of a `PooledConnection` in the ``info`` of its entry, and of the record of a session.
INFO = "pytest_arena"
# Seconds. A running statement may wait for a lock of the request that waits here.
_PATIENCE = 0.1


@dataclass(slots=True, eq=False)
class PendingWrites:
    """Uncommitted writes of an open transaction, by statements that SQLAlchemy ran.

    Writes that were rolled back to a savepoint are removed.
    """

    line: CodeLine | None  # of the first write
    level: Owner | None  # the owner of the level of the first write
    request: Request | None  # that wrote first
    tables: list[str] = field(default_factory=list)  # one for each write
    # Whether a statement has failed since the last rollback to a savepoint.
    has_failed: bool = False

    def __str__(self) -> str:
        return f"uncommitted rows ({self._tables}), written at {self.place}"

    @property
    def words(self) -> str:
        """Words such as ``wrote stock``."""
        return f"wrote {self._tables}"

    @property
    def place(self) -> str:
        """The line of the first write."""
        return str(self.line or NO_LINE)

    @property
    def _tables(self) -> str:
        return ", ".join(dict.fromkeys(self.tables))


@dataclass(slots=True, eq=False)
class PooledConnection(Owned):
    """The record of a connection in a pool, created before the connection is opened.

    An entry of the pool gets a new record each time that it connects. Its owner and its line are
    those of the last checkout.
    """

    _entry: weakref.ref[ConnectionPoolEntry] = field(kw_only=True)
    # The database that it reaches. None for a database that pytest-arena does not replace.
    target: ConnectTarget | None = None
    # The product's view of the connection. None for an unknown driver.
    handle: Handle | None = None
    # The product's function that describes the open connection. None once it was called.
    identify: Identify | None = None
    process: int = field(default_factory=os.getpid)
    is_stale: bool = False  # whether its pool drops it at the next checkout
    is_altered: bool = False  # whether a statement has altered its session
    pending_writes: PendingWrites | None = None
    thread: int = 0  # of the last checkout
    # Whether it has committed since its checkout. None until SQLAlchemy sends a statement: before,
    # code may use the driver's connection.
    has_committed: bool | None = None
    # The session that uses it. Weak, so that the collector finds a session that code has dropped.
    session: weakref.ref[SessionRecord] | None = None
    usage: DatabaseUsage | None = None  # of its database, since the first checkout
    dialect: Dialect | None = None  # None for a sync engine, and for sync code

    @classmethod
    def create(cls, entry: ConnectionPoolEntry) -> PooledConnection:
        """Create the record of a connecting entry, and attach it to the entry."""
        pooled = cls(_entry=weakref.ref(entry))
        entry.info[INFO] = pooled
        return pooled

    @property
    def entry(self) -> ConnectionPoolEntry | None:
        """The entry of its pool, None if the entry has connected again since."""
        entry = self._entry()
        return entry if entry is not None and entry.info.get(INFO) is self else None

    @property
    def is_open(self) -> bool:
        """Whether its entry has it, and it is not closed."""
        return getattr(self.entry, "dbapi_connection", None) is not None

    @property
    def proxied(self) -> Any:
        """The connection that the pool has handed out, None if it no longer exists."""
        # SQLAlchemy has no public name for this weak reference.
        reference = getattr(self.entry, "fairy_ref", None)
        return None if reference is None else reference()

    def note_opened(self, live: OpenConnection) -> None:
        """Note the description of the open connection by its product."""
        self.target = live.target
        self.handle = live.handle
        self.identify = None

    @property
    def session_record(self) -> SessionRecord | None:
        """The record of the session that uses it."""
        return self.session() if self.session is not None else None

    @property
    def place(self) -> CodeLine | str:
        """The line of the first write in the open transaction, else of the checkout."""
        writes = self.pending_writes
        # Prefer the write: the checkout may be of an earlier test, if a session outlives its test.
        return (writes and writes.line) or self.line or NO_LINE

    @property
    def is_in_background(self) -> bool:
        """Whether a lifespan or a thread of a wide fixture uses it, and returns it."""
        owner = self.owner
        if owner is None or owner.is_test or owner.is_over:
            return False
        return not owner.is_wide or self.thread != threading.get_ident()

    @property
    def has_uncommitted_writes(self) -> bool:
        """Whether it has an open transaction with writes."""
        return self.handle is not None and self.handle.has_uncommitted_writes

    def has_begun_in(self, level: Owner) -> bool:
        """Return whether its open transaction has its first write in the level of this owner."""
        if self.pending_writes is not None:
            return self.pending_writes.level is level
        return self.owner is level

    def close(self) -> None:
        """Close it. Its pool opens another one at the next checkout."""
        if self.is_altered and not self.is_stale and self.handle is not None:
            self.handle.roll_back()  # a server releases the locks of a closed session later
        self.is_stale = True
        is_on_server = self.target is not None and self.target.address is not None
        # A connection of SQLite may belong to the thread that opened it.
        if self.entry and (is_on_server or self.thread == threading.get_ident()):
            self.entry.invalidate()


def pooled_of(connection: Connection) -> PooledConnection | None:
    """Return the record of the pooled connection that a Core connection has checked out."""
    if connection.closed or connection.invalidated:
        return None  # the property would open another connection
    pooled: PooledConnection | None = connection.info.get(INFO)
    return pooled


class RunningStatements:
    """The requests of one turn of which a statement runs, or is about to run.

    It keeps requests at once in step, so that each has read before one of them writes. A request
    sends its second statement when the first ones of the others have ended, and so on. Without
    this wait one request may be over before another one has read. A pool may have an open
    connection for only one of them. A machine may run only one of their sessions on the server:
    the threads of pytest-arena make this more likely than it is without the plugin.
    """

    def __init__(self) -> None:
        self.late: list[Request] = []  # earlier requests whose work has committed meanwhile
        self._ends: dict[Any, Future[None]] = {}
        self._is_patient = True

    def begin(self, request: Request | None) -> None:
        """Note that a request opens or takes a connection, or sends a statement."""
        if request is not None and request.method != LIFESPAN and request not in self._ends:
            self._ends[request] = Future()

    def end(self, request: Request | None) -> None:
        """Let the others go on: a statement of a request, or the request itself, has ended."""
        end = self._ends.pop(request, None)
        if end is not None:
            end.set_result(None)

    def wait(self, request: Request) -> None:
        """Wait before a statement of a request until the earlier ones of the others have ended.

        No two requests wait for each other, because each waits for smaller numbers.
        """
        earlier = []
        for other, end in [*self._ends.items()]:
            if max(1, len(other.statements)) < len(request.statements):
                earlier.append(end)
        # Sync code in an event loop would block the others.
        if earlier and self._is_patient and (in_greenlet() or running_loop() is None):
            connection_loop().call(self._wait, earlier)

    def _wait(self, ends: list[Future[None]]) -> None:
        """Wait in the loop of pytest-arena, whose clock no test can stop."""
        _, running = await_only(asyncio.wait([*map(asyncio.wrap_future, ends)], timeout=_PATIENCE))
        if running:  # the app locks rows, or a statement is slow
            self._is_patient = False


class Registry:
    """All pooled connections of the process, their checkouts, and the uses of databases.

    Thread-safe.
    """

    def __init__(self) -> None:
        self.checkouts = 0  # the number of checkouts so far
        self.has_used = False  # whether the test has used a database
        # Whether a driver ever opened a connection without an engine.
        self.has_raw = False
        self.has_others = False  # whether another process may use the databases
        self.lock = threading.RLock()
        self.running = RunningStatements()
        self.schedule: Any = None  # the running `Schedule` or `Interruption`: of a higher layer
        # A record keeps no connection alive.
        self._checked_out: dict[PooledConnection, None] = {}
        # The Core connections. Their owners have created them.
        self.core_connections: weakref.WeakKeyDictionary[Connection, Owned] = (
            weakref.WeakKeyDictionary()
        )
        self._usages: dict[Key, DatabaseUsage] = {}
        # The connections that end with a level, by its owner: of engines that were created in it,
        # and those whose sessions a statement has altered.
        self._until: dict[Owner | None, weakref.WeakSet[PooledConnection]] = {}

    def close_after(self, level: Owner | None, pooled: PooledConnection) -> None:
        """Close a connection at the end of the level of this owner."""
        self._until.setdefault(level, weakref.WeakSet()).add(pooled)

    def end_level(self, level: Owner) -> None:
        """Close the connections that end with a level. One that is in use ends after its return.

        A temporary table of a test would hide a real table from the next test. A lock would block
        the next test. An app factory would add the connections of its engine to those of all tests.
        """
        for pooled in [*self._until.pop(level, ())]:
            if pooled in self._checked_out:
                pooled.is_stale = True
            # A connection that was refused is not described, and its pool does not have it.
            elif pooled.is_open and pooled.identify is None and pooled.process == os.getpid():
                pooled.close()

    def before_sending(self, connection: Connection, statement: str) -> PooledConnection | None:
        """Return the record of the connection on which SQLAlchemy is about to send a statement.

        Each statement, each COMMIT and each ROLLBACK passes here. A race lets one at a time pass.
        """
        pooled = pooled_of(connection)
        if self.schedule is not None:
            self.schedule.before_step(statement, pooled)
        return pooled

    def set_busy(self, *, is_busy: bool) -> None:
        """Report to a race that a connection is opened, or that a statement has ended."""
        if self.schedule is not None:
            self.schedule.set_busy(is_busy=is_busy)

    def check_out(self, pooled: PooledConnection) -> None:
        """Note that a pool hands out a connection to the running code."""
        pooled.line = user_line()
        pooled.owner = owner_here()
        pooled.thread = threading.get_ident()
        pooled.has_committed = None
        if pooled.usage is None and pooled.target is not None:
            pooled.usage = self.usage_of(pooled.target.key)
        with self.lock:
            self._checked_out[pooled] = None
            self.checkouts += 1
            if pooled.usage is not None:
                self.has_used = True
                pooled.usage.number += 1
                pooled.usage.checked_out += 1

    def check_in(self, pooled: PooledConnection) -> None:
        """Note that a connection was returned to its pool, or was closed."""
        with self.lock:  # another thread may read the usage now
            if pooled in self._checked_out and pooled.usage is not None:
                pooled.usage.checked_out -= 1
                pooled.usage.number += 1  # after a possible use
                if pooled.has_committed is not False:
                    pooled.usage.changes += 1
                    if pooled.session_record is not None:
                        pooled.session_record.changes += 1
                pooled.session = None
            self._checked_out.pop(pooled, None)

    def checked_out(self) -> list[PooledConnection]:
        """Return the connections that are checked out."""
        if not self._checked_out:  # the usual case
            return []
        # No event reports that a pool has connected an entry again, or lost its connection.
        return [pooled for pooled in [*self._checked_out] if pooled.is_open]

    def pending_writes(self) -> set[PendingWrites]:
        """Return the uncommitted writes of all connections."""
        writes = set()
        for pooled in self.checked_out():
            if pooled.pending_writes is not None:
                writes.add(pooled.pending_writes)
        return writes

    def invalidate(self, pooled: PooledConnection) -> None:
        """Invalidate a connection. Its Core connection opens another one at its next use.

        A transaction that has only read ends here. The app must roll back one with writes.
        """
        self.check_in(pooled)
        for connection in alive(self.core_connections):
            if pooled_of(connection) is pooled:
                transaction = connection.get_transaction()
                connection.invalidate()
                if transaction is not None and pooled.pending_writes is None:
                    transaction.rollback()  # sends nothing now

    def held_by_others(self) -> list[PooledConnection | None]:
        """Return the connections that sessions and Core connections hold that outlive tests.

        A wide fixture may check out its connection in a test, and keep it.
        """
        of_sessions = [
            pooled for session, pooled in held_by_sessions() if record_of(session).outlives_tests
        ]
        cores = [*self.core_connections.items()]
        return [*of_sessions, *(pooled_of(each) for each, core in cores if core.outlives_tests)]

    def usage_of(self, key: Key) -> DatabaseUsage:
        """Return the record of the uses of a database. Create it at the first call."""
        with self.lock:  # two threads get the same record
            return self._usages.setdefault(key, DatabaseUsage(self))

    def opened_raw(self, key: Key) -> None:
        """Note a connection that was opened without an engine."""
        self.has_raw = True
        self.may_be_used(key)

    def may_be_used(self, key: Key) -> None:
        """Note that a database may be used without a checkout from now on."""
        self.has_used = True
        self.usage_of(key).is_unwatched = True


class DatabaseUsage:
    """Counts the uses of one database, as far as pools show them.

    A connection that is checked out, or was opened without a pool, may be used at any time. After
    the start of another process, all databases may be used at any time.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self.number = 0
        self.checked_out = 0  # the number of its checked-out connections
        self.changes = 0  # the number of checkouts that may have changed rows
        self.is_unwatched = False  # whether it may be used at any time

    def __call__(self) -> int:
        """Return a number that differs from the last one if the database may have been used."""
        with self._registry.lock:
            if self.checked_out or self.is_unwatched or self._registry.has_others:
                self.number += 1
            return self.number

    def changes_beside(self, session: SessionRecord) -> int:
        """Return a number that differs from the last one if others may have changed rows.

        Others are all connections but those of this session, and other processes.
        """
        registry = self._registry
        with registry.lock:
            has_others = self.checked_out > len(session.connections)
            self.changes += has_others or self.is_unwatched or registry.has_others
            return self.changes - session.changes

    def may_have_others(self) -> bool:
        """Return whether another process may use the database."""
        return self._registry.has_others

    def is_in_transaction(self) -> bool:
        """Return whether a connection that is checked out has an open transaction."""
        checkouts = self._registry.checked_out()
        return any(each.handle.is_begun for each in checkouts if each.handle and each.usage is self)


# Sessions that have begun a transaction, until `sessions_in_use` finds them empty. A search of all
# sessions could be slow: a framework's cache may keep the sessions of all tests.
BEGUN: weakref.WeakSet[Session] = weakref.WeakSet()


@dataclass(slots=True, eq=False, weakref_slot=True)
class SessionRecord(Owned):
    """What is known of one session. Its owner has created it.

    Its line added or flushed the first object since the last commit.
    """

    # Whether a request or an import of the app created it. A session without a record was created
    # by an import before the run.
    is_of_app: bool = True
    changed_by: Request | None = None  # the request that did so first
    # Whether a task of a wide fixture has begun the last transaction.
    is_used_by_wide_fixture: bool = False
    # The request that began the transaction before it was answered.
    begun_by: Request | None = None
    # The connections of the transaction.
    connections: set[Connection] = field(default_factory=set)
    changes: int = 0  # the number of its checkouts that may have changed rows


def record_of(session: Session) -> SessionRecord:
    """Return the record of a session."""
    record: SessionRecord = session.info.setdefault(INFO, SessionRecord())
    return record


def sessions_in_use() -> list[Session]:
    """Return the sessions that hold an instance, or have begun a transaction."""
    in_use = []
    for session in alive(BEGUN):
        BEGUN.discard(session)
        # Checked after the removal, because another thread may begin a transaction now.
        if session.in_transaction() or session.identity_map:
            BEGUN.add(session)
            in_use.append(session)
    return in_use


def has_changed_tests_session(request: Request) -> bool:
    """Return whether a request has left changes in a session of a test or a fixture."""
    records = map(record_of, alive(BEGUN))
    return any(each.changed_by is request and not each.is_of_app for each in records)


def held_by_sessions() -> list[tuple[Session, PooledConnection]]:
    """Return each session in a transaction with each of its pooled connections."""
    held = []
    for session in alive(BEGUN):
        for connection in [*record_of(session).connections]:
            pooled = pooled_of(connection)
            if pooled is not None:
                held.append((session, pooled))
    return held


def unflushed_words(session: Session, *, has_changed: bool = True) -> str:
    """Return words such as ``added Order (2), changed Stock``, "" without unflushed objects."""
    words = []
    parts = {
        "added": list(session.new),
        "changed": [each for each in session.dirty if has_changed and session.is_modified(each)],
        "deleted": list(session.deleted),
    }
    for verb, instances in parts.items():
        for name, count in Counter(type(instance).__name__ for instance in instances).items():
            number = f" ({count:,})" if count > 1 else ""
            words.append(f"{verb} {name}{number}")
    return ", ".join(words)


def unflushed_by_tests() -> list[str]:
    """Return a line for each session whose unflushed objects a test or a fixture has added."""
    lines = []
    for session in sessions_in_use():
        record = record_of(session)
        is_of_arena = type(session).__module__.startswith("pytest_arena.")
        if not record.line or record.changed_by or is_of_arena:
            continue
        with suppress(RuntimeError):  # another thread uses the session
            words = unflushed_words(session)
            if words:
                lines.append(f"{words} and did not commit it: {record.line}")
    return lines

"""The pooled connections, their checkouts, and the uses of databases."""

from __future__ import annotations

import asyncio
import threading
import weakref
from asyncio import current_task
from contextlib import contextmanager, suppress
from contextvars import Context
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import IllegalStateChangeError

from pytest_arena._gate._orm_sessions import held_by_sessions, owner_of_session
from pytest_arena._gate._pending import connections_of
from pytest_arena._gate._pooled import PooledConnection
from pytest_arena._origin import REQUEST, user_line
from pytest_arena._owner import (
    Owner,
    is_runner_of_anyio,
    outlives_tests,
    owner_here,
)
from pytest_arena._process import alive, running_loop
from pytest_arena._product import nothing

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable, Iterable, Iterator

    from sqlalchemy.engine import Connection
    from sqlalchemy.orm import Session
    from sqlalchemy.pool import ConnectionPoolEntry

    from pytest_arena._gate._pooled import PendingWrites, TableWrite
    from pytest_arena._product import ConnectTarget, Handle, Key
    from pytest_arena._values import CodeLine

    TaskReference = Callable[[], asyncio.Task[object] | None]

# Seconds that the replacement of a database waits for threads with a connection.
_LONGEST_USE = 1.0
# Seconds that a connecting thread waits for the replacement of a database.
_LONGEST_REPLACEMENT = 10.0


class Registry:
    """All pooled connections of the process, and their checkouts. Thread-safe.

    The registry knows the owner of each Core connection. A Core connection of a wider fixture may
    check out another pooled connection in a test, and still belongs to no test.

    Each database has one `DatabaseUsage`.
    """

    def __init__(self) -> None:
        self.checkouts = 0  # the number of checkouts so far
        # Whether a driver ever opened a connection without an engine.
        self.has_raw = False
        self.lock = threading.RLock()
        self._connections: weakref.WeakSet[PooledConnection] = weakref.WeakSet()
        self._checkouts: dict[ConnectionPoolEntry, Checkout] = {}
        self._core_connections: weakref.WeakKeyDictionary[Connection, Owner | None] = (
            weakref.WeakKeyDictionary()
        )
        self._usages: dict[Key, DatabaseUsage] = {}
        self._used: set[DatabaseUsage] = set()  # since `forget_uses`
        self.has_others = False  # whether another process may use the databases
        # Threads that keep a connection for long. No replacement waits for them. None is the
        # thread of an idle connection.
        self._slow: set[int | None] = {None}
        # The thread that replaces a database. Others wait on the condition.
        self._replacing: int | None = None
        self._condition = threading.Condition(self.lock)

    def add(self, pooled: PooledConnection) -> None:
        """Add a connection that a pool has."""
        self._connections.add(pooled)

    def reserve(self, pooled: PooledConnection) -> None:
        """Note that this thread is about to open a connection, or to check it out.

        Block while another thread replaces a database. A thread that already has a connection is
        not blocked, because it may need both to finish.
        """
        here = threading.get_ident()
        with self.lock:
            if self._replacing is not None:
                self._condition.wait_for(
                    lambda: (
                        self._replacing in {None, here} or here in self.active_threads()
                    ),
                    _LONGEST_REPLACEMENT,
                )
            self._connections.add(pooled)
            pooled.occupy(here)

    def active_threads(self) -> set[int | None]:
        """Return the threads that open a connection or have one, and do not keep it for long."""
        return {pooled.thread for pooled in self._current()} - self._slow

    @contextmanager
    def replacing_database(self) -> Iterator[None]:
        """Wait until no other thread has a connection, and block new connections in this block.

        If a thread keeps a connection for longer than a second, no later call waits for it.
        """
        here = threading.get_ident()
        before = self._replacing
        self._replacing = here
        try:
            with self.lock:
                self._condition.wait_for(
                    lambda: self.active_threads() <= {here}, _LONGEST_USE
                )
                self._slow |= self.active_threads() - {here}
            yield
        finally:
            with self.lock:
                self._replacing = before
                self._condition.notify_all()

    # Checkouts.

    def check_out(
        self,
        pooled: PooledConnection,
        entry: ConnectionPoolEntry,
        targets: Iterable[ConnectTarget],
    ) -> None:
        """Note that a pool hands out a connection to these targets."""
        usages = []
        for target in targets:
            usages.append(self.usage_of(target.key))
        checkout = Checkout(pooled, entry, user_line(), usages)
        self.checkouts += 1
        with self.lock:
            self._checkouts[entry] = checkout
            for usage in usages:
                self._used.add(usage)
                usage.begin_use(is_checkout=True)

    def find(self, entry: ConnectionPoolEntry) -> Checkout | None:
        """Return the checkout of a pool's entry, None if the connection is not checked out."""
        return self._checkouts.get(entry)

    def check_in(self, entry: ConnectionPoolEntry) -> None:
        """Note that a connection was returned to its pool, or was closed."""
        with self.lock:
            checkout = self._end_checkout(entry)
            pooled = checkout.connection if checkout else PooledConnection.find(entry)
            if pooled is not None:
                pooled.release()
            if self._replacing is not None:
                self._condition.notify_all()

    def _end_checkout(self, entry: ConnectionPoolEntry) -> Checkout | None:
        with self.lock:  # another thread may read the usage now
            checkout = self._checkouts.pop(entry, None)
            if checkout is not None:
                for usage in checkout.usages:
                    usage.check_in()
            return checkout

    def detach(self, checkout: Checkout) -> None:
        """Note a detached connection. No event reports its later uses."""
        with self.lock:
            for usage in checkout.usages:
                usage.unwatch()
            self._end_checkout(checkout.entry)

    def checked_out(self) -> list[Checkout]:
        """Return the connections that are checked out."""
        return [*self._checkouts.values()]

    def invalidate(self, checkout: Checkout) -> bool:
        """Invalidate a connection. Its Core connection opens another one at its next use.

        Return whether a transaction is lost, so that the app must roll back before the next use.
        The transaction of a session ends here. A session that has only read loses nothing. A Core
        connection that has only read loses its transaction if the transaction has a ``with`` block.
        """
        if self.find(checkout.entry) is not checkout:
            return False  # returned meanwhile
        # This comes first: `_let_reconnect` may check out a connection.
        self._end_checkout(checkout.entry)
        proxied = checkout.proxied
        if proxied is None:
            return False
        holder = self._holder_of(proxied)
        if holder is None:
            proxied.invalidate()
            return False
        sessions = [session for session, held in held_by_sessions() if held is holder]
        has_written = bool(checkout.writes)
        is_in_block = holder._trans_context_manager is not None  # noqa: SLF001 - no public name
        has_begun = checkout.handle is None or checkout.handle.is_begun
        must_roll_back = has_written or (has_begun and is_in_block)
        is_lost = _let_reconnect(holder, must_roll_back=must_roll_back)
        for session in sessions:
            _end_transaction(session, has_written=has_written)
        return is_lost and (has_written or is_in_block)

    def invalidate_in_loop(self, checkout: Checkout) -> None:
        """Invalidate a connection in its event loop, if that loop runs."""
        loop = checkout.loop
        if loop is not None and loop.is_running():
            # An empty context: the call belongs to no test.
            Context().run(loop.call_soon_threadsafe, self.invalidate, checkout)

    def is_raw(self, checkout: Checkout) -> bool:
        """Return whether a connection is in use without a Core connection or a session."""
        proxied = checkout.proxied
        return proxied is not None and self._holder_of(proxied) is None

    def can_reconnect(self, checkout: Checkout) -> bool:
        """Return whether the holder of a connection can open another one without an error.

        A session can, and a Core connection outside of a transaction.
        """
        if self._holder_of(checkout.proxied) is None:
            return False
        held = [entry_of(connection) for _, connection in held_by_sessions()]
        is_begun = checkout.handle is not None and checkout.handle.is_begun
        return checkout.entry in held or not is_begun

    def _holder_of(self, proxied: object) -> Connection | None:
        for holder in alive(self._core_connections):
            if _proxied(holder) is proxied:
                return holder
        return None

    def note_core_connection(self, connection: Connection) -> None:
        """Note a Core connection that the app or a session has created."""
        self._core_connections[connection] = owner_here()

    def held_by_others(self) -> list[object]:
        """Return the pool entries that sessions and Core connections hold that outlive tests.

        A session of a wider fixture may check out its connection in a test, and keep it.
        """
        holders = [
            holder
            for holder in alive(self._core_connections)
            if outlives_tests(self._core_connections.get(holder))
        ]
        for session, connection in held_by_sessions():
            if outlives_tests(owner_of_session(session)):
                holders.append(connection)
        return list(map(entry_of, holders))

    # Connections that are in their pools.

    def _current(self) -> list[PooledConnection]:
        current = []
        for pooled in alive(self._connections):
            if pooled.is_current:
                current.append(pooled)
        return current

    def idle(self) -> Iterator[PooledConnection]:
        """Yield the connections that are in their pools, each locked against other threads.

        Skip connections that another thread uses.
        """
        for pooled in self._current():
            entry = pooled.entry()
            if pooled.handle is None or entry is None:
                continue
            with pooled.handle.alone() as is_alone:
                is_in_pool = is_alone and entry not in self._checkouts
                if is_in_pool and entry.dbapi_connection is not None:
                    yield pooled

    def forget(self, key: Key) -> None:
        """Close the idle connections to a dropped database.

        Otherwise each of them would keep a file open as long as the app keeps its engine.
        """
        for pooled in self.idle():
            if pooled.target and pooled.target.key == key and pooled.handle:
                self._connections.discard(pooled)
                pooled.handle.end()

    # Uses of databases.

    def usage_of(self, key: Key) -> DatabaseUsage:
        """Return the record of the uses of a database. Create it at the first call."""
        usage = self._usages.get(key)
        if usage is None:
            with self.lock:  # two threads get the same record
                usage = self._usages.setdefault(key, DatabaseUsage(self))
                if self.has_others:
                    usage.unwatch()
        return usage

    def forget_uses(self) -> None:
        """Forget which databases were used until now."""
        self._used.clear()

    @property
    def has_used(self) -> bool:
        """Whether any database was used since `forget_uses`."""
        return bool(self._used)

    def was_used(self, key: Key) -> bool:
        """Return whether a database was used since `forget_uses`."""
        return self._usages.get(key) in self._used

    @property
    def is_quiet(self) -> bool:
        """Whether no connection is in use, and none can be used without a checkout."""
        return not (self._checkouts or self.has_raw or self.has_others)

    def opened_raw(self, key: Key) -> None:
        """Note a connection that was opened without an engine."""
        self.has_raw = True
        self.may_be_used(key)

    def may_be_used(self, key: Key) -> None:
        """Note that a database may be used without a checkout from now on."""
        usage = self.usage_of(key)
        with self.lock:
            self._used.add(usage)
            usage.unwatch()

    def open_to_others(self) -> None:
        """Note that another process is about to start. It may use all databases."""
        with self.lock:
            self.has_others = True
            for usage in [*self._usages.values()]:
                usage.unwatch()


class DatabaseUsage:
    """Counts the uses of one database, as far as pools show them.

    A connection that is checked out, or was opened without a pool, may be used at any time. After
    the start of another process, all databases may be used at any time.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._number = 0
        self._checked_out = 0  # the number of its checked-out connections
        self._is_unwatched = False  # whether it may be used at any time

    def __call__(self) -> int:
        """Return a number that differs from the last one if the database may have been used.

        It changes at a checkout and a checkin, and at each call while a connection is checked out.
        It changes at each call after a connection was opened without a pool, or was detached from
        its pool. The same holds after the start of another process.
        """
        with self._registry.lock:
            if self._checked_out or self._is_unwatched:
                self._number += 1
            return self._number

    def may_have_others(self) -> bool:
        """Return whether another process may use the database."""
        return self._registry.has_others

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Replace the database in this block, without connections of other threads."""
        with self._registry.replacing_database():
            yield

    # The registry calls these methods, with its lock.

    def begin_use(self, *, is_checkout: bool = False) -> None:
        """Note that the database is about to be used, with or without a checkout."""
        self._number += 1
        if is_checkout:
            self._checked_out += 1

    def check_in(self) -> None:
        """Note that a connection was returned or closed, after a possible use."""
        self._checked_out -= 1
        self._number += 1

    def unwatch(self) -> None:
        """Note that the database may be used without a checkout from now on."""
        self._is_unwatched = True
        self.begin_use()


def _this_task() -> TaskReference:
    """Return a weak reference to the current task. A strong one would keep a leak alive."""
    task = None
    if running_loop() is not None:
        task = current_task()
    if task is None:
        return nothing
    return weakref.ref(task)


@dataclass(frozen=True, slots=True)
class Checkout:
    """A connection that was checked out of its pool, and not returned."""

    connection: PooledConnection
    entry: ConnectionPoolEntry
    line: CodeLine | None
    # The usages of the databases that it reaches.
    usages: list[DatabaseUsage] = field(default_factory=list)
    # The thread that checked it out.
    thread: int = field(default_factory=threading.get_ident)
    owner: Owner | None = field(default_factory=owner_here)
    request: object = field(default_factory=REQUEST.get)
    loop: AbstractEventLoop | None = field(default_factory=running_loop)
    _task: TaskReference = field(default_factory=_this_task)

    @property
    def is_in_background(self) -> bool:
        """Whether a task or a thread of a wider fixture or a lifespan uses it, and returns it."""
        owner = self.owner
        if owner is None or owner.is_test or owner.is_over:
            return False
        if not owner.is_wide or self.thread != threading.get_ident():
            return True
        task = self._task()
        return task is not None and not (task.done() or is_runner_of_anyio(task))

    @property
    def handle(self) -> Handle | None:
        """The product's handle of the connection."""
        return self.connection.handle

    @property
    def in_transaction(self) -> bool:
        """Whether it has an open transaction with writes."""
        return self.handle is not None and self.handle.in_transaction

    @property
    def proxied(self) -> Any:
        """The connection that the pool has handed out, None if it no longer exists."""
        # SQLAlchemy has no public name for this weak reference.
        reference = getattr(self.entry, "fairy_ref", None)
        if reference is None:
            return None
        return reference()

    @property
    def pending_writes(self) -> PendingWrites | None:
        """Uncommitted writes of its open transaction."""
        return self.connection.pending_writes

    @property
    def writes(self) -> list[TableWrite]:
        """The uncommitted writes of its open transaction."""
        return self.pending_writes.writes if self.pending_writes is not None else []

    def is_of(self, serial: int) -> bool:
        """Return whether the owner of a level has checked it out."""
        return self.owner is not None and self.owner.serial == serial

    def has_begun_in(self, serial: int) -> bool:
        """Return whether its open transaction has its first write in a level."""
        if self.pending_writes is not None:
            return self.pending_writes.serial == serial
        return self.is_of(serial)


def entry_of(connection: Connection) -> object:
    """Return the pool's entry of the connection that a Core connection has checked out."""
    return getattr(_proxied(connection), "_connection_record", None)


def _end_transaction(session: Session, *, has_written: bool) -> None:
    """End the transaction of a session whose connection was invalidated.

    A transaction that only read is closed. A rollback would expire instances, which an
    `AsyncSession` cannot load again.
    """
    transaction = session.get_transaction()
    may_have_written = has_written or len(connections_of(session)) > 1
    with suppress(IllegalStateChangeError):  # a task is inside a call of the session
        if may_have_written or transaction is None or session.in_nested_transaction():
            session.rollback()
        else:
            transaction.close()


def _let_reconnect(holder: Connection, *, must_roll_back: bool) -> bool:
    """Let a Core connection open another connection at its next use.

    Return whether it was in a transaction. If ``must_roll_back``, its user must roll back first.
    """
    transaction = holder.get_transaction()
    level = holder.get_execution_options().get("isolation_level")
    is_inside = transaction is not None and level != "AUTOCOMMIT"
    holder.invalidate()
    if is_inside and must_roll_back:
        return True
    if transaction is not None:
        transaction.rollback()  # sends nothing, because the connection is invalidated
    if level is not None and not holder.dialect.is_async:
        # This opens a connection with the isolation level. An async connection would have to be
        # awaited. It opens later, with the engine's level.
        holder.execution_options(isolation_level=level)
    return is_inside


def _proxied(connection: Connection) -> Any:
    return connection._dbapi_connection  # noqa: SLF001 - the public property may open one

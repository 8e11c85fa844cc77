"""The pooled connections, their checkouts, and the uses of databases."""

from __future__ import annotations

import asyncio
import threading
import weakref
from asyncio import current_task
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import IllegalStateChangeError

from pytest_arena._gate._orm_sessions import (
    connections_of,
    held_by_sessions,
    owner_of_session,
)
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
    from collections.abc import Callable, Iterator

    from sqlalchemy.engine import Connection
    from sqlalchemy.orm import Session
    from sqlalchemy.pool import ConnectionPoolEntry

    from pytest_arena._gate._pooled import PendingWrites, PooledConnection
    from pytest_arena._product import Handle, Key
    from pytest_arena._values import CodeLine

    TaskReference = Callable[[], asyncio.Task[object] | None]


class Registry:
    """All pooled connections of the process, their checkouts, and the uses of databases.

    Thread-safe. The registry knows the owner of each Core connection. A Core connection of a wider
    fixture may check out another pooled connection in a test, and still belongs to no test.
    """

    def __init__(self) -> None:
        self.checkouts = 0  # the number of checkouts so far
        # Whether a driver ever opened a connection without an engine.
        self.has_raw = False
        self.has_others = False  # whether another process may use the databases
        self.lock = threading.RLock()
        self._connections: weakref.WeakSet[PooledConnection] = weakref.WeakSet()
        self._checkouts: dict[ConnectionPoolEntry, Checkout] = {}
        self._core_connections: weakref.WeakKeyDictionary[Connection, Owner | None] = (
            weakref.WeakKeyDictionary()
        )
        self._usages: dict[Key, DatabaseUsage] = {}

    def add(self, pooled: PooledConnection) -> None:
        """Add a connection that a pool has or opens."""
        self._connections.add(pooled)

    # Checkouts.

    def check_out(self, pooled: PooledConnection, entry: ConnectionPoolEntry) -> None:
        """Note that a pool hands out a connection."""
        usage = None
        if pooled.target is not None:
            usage = self.usage_of(pooled.target.key)
        checkout = Checkout(pooled, entry, user_line(), usage)
        with self.lock:
            self.checkouts += 1
            self._checkouts[entry] = checkout
            if usage is not None:
                usage.was_used = True
                usage.number += 1
                usage.checked_out += 1

    def find(self, entry: ConnectionPoolEntry) -> Checkout | None:
        """Return the checkout of a pool's entry, None if the connection is not checked out."""
        return self._checkouts.get(entry)

    def check_in(self, entry: ConnectionPoolEntry) -> None:
        """Note that a connection was returned to its pool, or was closed."""
        with self.lock:  # another thread may read the usage now
            checkout = self._checkouts.pop(entry, None)
            if checkout is not None and checkout.usage is not None:
                checkout.usage.checked_out -= 1
                checkout.usage.number += 1  # after a possible use

    def detach(self, checkout: Checkout) -> None:
        """Note a detached connection. No event reports its later uses."""
        with self.lock:
            if checkout.usage is not None:
                checkout.usage.unwatch()
            self.check_in(checkout.entry)

    def checked_out(self) -> list[Checkout]:
        """Return the connections that are checked out."""
        return [*self._checkouts.values()]

    def invalidate(self, checkout: Checkout) -> bool:
        """Invalidate a connection. Its Core connection opens another one at its next use.

        Return whether a transaction with writes is lost, so that the app must roll back before the
        next use. A transaction that has only read ends here.
        """
        if self.find(checkout.entry) is not checkout:
            return False  # returned meanwhile
        self.check_in(checkout.entry)
        proxied = checkout.proxied
        if proxied is None:
            return False
        holder = self._holder_of(proxied)
        if holder is None:
            proxied.invalidate()
            return False
        sessions = [session for session, held in held_by_sessions() if held is holder]
        transaction = holder.get_transaction()
        has_written = checkout.pending_writes is not None
        holder.invalidate()
        if transaction is not None and not has_written:
            transaction.rollback()  # sends nothing, because the connection is invalidated
        for session in sessions:
            _end_transaction(session, has_written=has_written)
        return has_written

    def invalidate_in_loop(self, checkout: Checkout) -> None:
        """Invalidate a connection in its event loop, if that loop runs."""
        loop = checkout.loop
        if loop is not None and loop.is_running():
            # An empty context: the call belongs to no test.
            Context().run(loop.call_soon_threadsafe, self.invalidate, checkout)

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

    def idle(self) -> Iterator[PooledConnection]:
        """Yield the open connections that are in their pools."""
        for pooled in alive(self._connections):
            entry = pooled.entry()
            if entry is None or pooled.handle is None or not pooled.is_current:
                continue
            if entry not in self._checkouts and entry.dbapi_connection is not None:
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
        with self.lock:  # two threads get the same record
            return self._usages.setdefault(key, DatabaseUsage(self))

    def forget_uses(self) -> None:
        """Forget which databases were used until now."""
        for usage in [*self._usages.values()]:
            usage.was_used = False

    @property
    def has_used(self) -> bool:
        """Whether any database was used since `forget_uses`."""
        return any(usage.was_used for usage in [*self._usages.values()])

    def was_used(self, key: Key) -> bool:
        """Return whether a database was used since `forget_uses`."""
        return key in self._usages and self._usages[key].was_used

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
        with self.lock:
            self.usage_of(key).unwatch()


class DatabaseUsage:
    """Counts the uses of one database, as far as pools show them.

    A connection that is checked out, or was opened without a pool, may be used at any time. After
    the start of another process, all databases may be used at any time.
    """

    def __init__(self, registry: Registry) -> None:
        self.was_used = False  # since `Registry.forget_uses`
        self._registry = registry
        self.number = 0
        self.checked_out = 0  # the number of its checked-out connections
        self._is_unwatched = False  # whether it may be used at any time

    def __call__(self) -> int:
        """Return a number that differs from the last one if the database may have been used."""
        with self._registry.lock:
            if self.checked_out or self._is_unwatched or self._registry.has_others:
                self.number += 1
            return self.number

    def may_have_others(self) -> bool:
        """Return whether another process may use the database."""
        return self._registry.has_others

    # The registry calls these methods.

    def unwatch(self) -> None:
        """Note that the database may be used without a checkout from now on."""
        self.was_used = True
        self._is_unwatched = True


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
    usage: DatabaseUsage | None = None
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


def _proxied(connection: Connection) -> Any:
    return connection._dbapi_connection  # noqa: SLF001 - the public property may open one

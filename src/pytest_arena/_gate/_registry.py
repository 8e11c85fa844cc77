"""The pooled connections of this process: which exist, which are checked out, who uses databases.

It owns each `PooledConnection` while its pool has it.
"""

from __future__ import annotations

import threading
import weakref
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_arena._gate._orm_sessions import held_by_sessions
from pytest_arena._gate._pooled import Checkout, PooledConnection
from pytest_arena._process import alive
from pytest_arena._product import ConnectTarget, Key, nothing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import FrameType

    from sqlalchemy.engine import Connection
    from sqlalchemy.pool import ConnectionPoolEntry

# Seconds for which a thread may go on using a database before another database replaces it.
_SHORT = 1.0
# Seconds for which a thread that connects waits until a database is replaced.
_LONG = 10.0


class Registry:
    """All pooled connections of the process, and their checkouts. Any thread calls it.

    A connection of SQLAlchemy's Core checks a connection out of a pool, and may check out another
    one later. Each is known with the serial of the level in which it was made: a connection that a
    wider fixture has made belongs to no test, also if it checks out another one in a test.

    The uses of each database on a server are counted as far as pools show them. A connection that
    is checked out, or was opened without a pool, may be used at any time. So may all databases once
    there are other processes.
    """

    def __init__(self) -> None:
        self.used: set[Key] = set()  # keys of the databases since it was last cleared
        self.checkouts = 0  # how many there were
        self.has_raw = False  # whether a connection was ever opened without an engine
        # Threads whose test is over, by the frame in which they work.
        self.late: dict[int, FrameType] = {}
        self.lock = threading.RLock()
        self._connections: weakref.WeakSet[PooledConnection] = weakref.WeakSet()
        self._checkouts: dict[ConnectionPoolEntry, Checkout] = {}
        self._holders: weakref.WeakKeyDictionary[Connection, int] = (
            weakref.WeakKeyDictionary()
        )
        self._early_threads: frozenset[threading.Thread] = frozenset()
        self._has_others = False
        self._unwatched: set[Key] = set()
        self._renamed: dict[Key, Key] = {}
        self._uses: Counter[Key] = Counter()
        self._before_next: dict[Key, Callable[[], None]] = {}
        # Threads that keep a connection for long. Nothing waits for them.
        self._slow: set[int | None] = {None}
        # The thread that replaces a database, and the condition for which others wait.
        self._replacing: int | None = None
        self._condition = threading.Condition(self.lock)

    # Threads.

    def note_early_threads(self) -> None:
        """Note the threads that are older than all tests and fixtures, without the main thread."""
        main = threading.main_thread()
        self._early_threads = frozenset(threading.enumerate()) - {main}

    def when_began(self, thread: threading.Thread) -> str:
        """Return words for when a thread began, "" if it is not older than the test."""
        if thread in self._early_threads:
            return "before the first test"
        # A library's thread: pytest-arena does not know whose job it does.
        work = getattr(thread, "arena_work", None)
        return "in an earlier test" if work is not None and work.is_over else ""

    def add(self, pooled: PooledConnection) -> None:
        """Add a connection that a pool has."""
        self._connections.add(pooled)

    def reserve(self, pooled: PooledConnection) -> None:
        """Note that this thread is about to open a connection, or to check it out.

        Waits while another thread replaces a database. A thread that already has a connection does
        not wait, because it may need both to finish.
        """
        here = threading.get_ident()
        with self.lock:
            if self._replacing is not None:
                self._condition.wait_for(lambda: self._may_connect(here), _LONG)
            self._connections.add(pooled)
            pooled.occupy(here)

    def _may_connect(self, thread: int) -> bool:
        return self._replacing in {None, thread} or thread in self.active_threads()

    def active_threads(self) -> set[int | None]:
        """Return the threads that open a connection or have one, and do not keep it for long."""
        return {pooled.thread for pooled in self._current()} - self._slow

    @contextmanager
    def replacing_database(self) -> Iterator[None]:
        """Let no other thread have, or open, a connection while a database is replaced.

        A thread that keeps a connection for longer than a second is not waited for again.
        """
        here = threading.get_ident()
        before = self._replacing
        self._replacing = here
        try:
            with self.lock:
                self._condition.wait_for(
                    lambda: self.active_threads() <= {here}, _SHORT
                )
                self._slow |= self.active_threads() - {here}
            yield
        finally:
            with self.lock:
                self._replacing = before
                self._condition.notify_all()

    # Checkouts.

    def check_out(self, checkout: Checkout, targets: Iterable[ConnectTarget]) -> None:
        """Note that a pool is about to hand out a connection."""
        self.checkouts += 1
        self._checkouts[checkout.entry] = checkout
        with self.lock:
            for target in targets:
                self.used.add(target.key)
                # Also a connection that a listener or a creator of the app has made.
                if target.address is not None:
                    key = self._renamed.get(target.key, target.key)
                    self._uses[key] += 1
                    self._call_before_use(key)

    def find(self, entry: ConnectionPoolEntry) -> Checkout | None:
        """Return the checkout of a pool's entry. None if it is in its pool, or gone."""
        return self._checkouts.get(entry)

    def check_in(self, entry: ConnectionPoolEntry) -> None:
        """Note that a connection is in its pool again, or gone. It may have been used until now."""
        # Another thread may ask now. The connection must be checked out or counted then.
        with self.lock:
            checkout = self._checkouts.get(entry)
            if checkout is None:
                pooled = PooledConnection.find(entry)
            else:
                pooled = checkout.connection
                if pooled.key is not None:
                    self._uses[self._renamed.get(pooled.key, pooled.key)] += 1
            self._checkouts.pop(entry, None)
            if pooled is not None:
                pooled.release()
            if self._replacing is not None:
                self._condition.notify_all()

    def detach(self, checkout: Checkout) -> None:
        """Note that the app keeps a connection for good. No event reports its uses."""
        key = checkout.connection.key
        if key is not None:
            self._unwatch(key)  # first: see `check_in`
        self._checkouts.pop(checkout.entry, None)

    def taken(self) -> list[Checkout]:
        """Return the connections that are checked out."""
        return [*self._checkouts.values()]

    def take_away(self, checkout: Checkout) -> bool:
        """Take a connection away from its holder, which opens another one at its next use.

        Returns whether it was inside a transaction, which is lost: the holder has to roll it back
        first. A session is rolled back here, and nothing is lost if it has only read.
        """
        # First: the holder may check it out again at once.
        self._checkouts.pop(checkout.entry, None)
        proxied = checkout.proxied
        if proxied is None:
            return False
        holder = self._holder_of(proxied)
        if holder is None:
            proxied.invalidate()
            return False
        sessions = [session for session, held in held_by_sessions() if held is holder]
        has_written = checkout.writes > 0
        has_begun = has_written or checkout.handle is None or checkout.handle.is_begun
        is_lost = _let_reconnect(holder, has_begun=has_begun)
        for session in sessions:
            session.rollback()
        return is_lost and (has_written or not sessions)

    def _holder_of(self, proxied: object) -> Connection | None:
        for holder in alive(self._holders):
            if _proxied(holder) is proxied:
                return holder
        return None

    def hold(self, connection: Connection, serial: int) -> None:
        """Note that ``engine.connect()`` was called in a level, by the app or by a session."""
        self._holders[connection] = serial

    def entries_of_others(self, serial: int) -> list[object]:
        """Return the pool's entries whose holders were made in another level than this one."""
        return [
            entry_of(holder)
            for holder in alive(self._holders)
            if self._holders.get(holder) != serial
        ]

    # Connections that are in their pools.

    def _current(self) -> list[PooledConnection]:
        return [pooled for pooled in alive(self._connections) if pooled.is_current]

    def idle(self) -> Iterator[PooledConnection]:
        """Yield the connections that are in their pools, and keep each there meanwhile.

        A connection that another thread checks out or closes must not be touched.
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
        """Close the idle connections to a database that is gone.

        An engine that the app keeps would keep a file open with each of them.
        """
        for pooled in self.idle():
            if pooled.target and pooled.target.key == key and pooled.handle:
                self._connections.discard(pooled)
                pooled.handle.end()

    # Uses of databases.

    @property
    def is_quiet(self) -> bool:
        """Whether no connection can be used without a checkout."""
        return not (self._checkouts or self.has_raw or self._has_others)

    def opened_raw(self, key: Key) -> None:
        """Note a connection that was opened without an engine."""
        self.has_raw = True
        self.may_be_used(key)

    def may_be_used(self, key: Key) -> None:
        """Note that a database may be used at any time from here on, without a checkout."""
        self.used.add(key)
        self._unwatch(key)

    def open_to_others(self) -> None:
        """Note that another process is about to start, which may use all databases."""
        with self.lock:
            self._has_others = True
            for key in list(self._before_next):
                self._call_before_use(key)

    def rename(self, old: Key, new: Key) -> None:
        """Give a database another key. Its uses are found by the old key, too."""
        with self.lock:
            self._renamed[old] = new
            self._uses[new] += self._uses.pop(old, 0) + 1
            if old in self._unwatched:
                self._unwatched.add(new)
            self._call_before_use(old)

    def count_uses(self, key: Key) -> int:
        """Return a number that changes if the database may have been used since the last call."""
        with self.lock:
            key = self._renamed.get(key, key)
            if self._may_be_in_use(key):
                self._uses[key] += 1
            return self._uses[key]

    def call_before_use(self, key: Key, call: Callable[[], None]) -> bool:
        """Call a function once before a database is used the next time.

        Only the last function counts, and it must not raise. Returns False if the database may be
        in use now: the function is not called then.
        """
        with self.lock:
            key = self._renamed.get(key, key)
            if self._may_be_in_use(key):
                return False
            self._before_next[key] = call
            return True

    def _may_be_in_use(self, key: Key) -> bool:
        if self._has_others or key in self._unwatched:
            return True
        for checkout in [*self._checkouts.values()]:
            used = checkout.connection.key
            if used is not None and self._renamed.get(used, used) == key:
                return True
        return False

    def _unwatch(self, key: Key) -> None:
        with self.lock:
            key = self._renamed.get(key, key)
            self._unwatched.add(key)
            self._call_before_use(key)

    def _call_before_use(self, key: Key) -> None:
        self._before_next.pop(key, nothing)()


@dataclass(frozen=True, slots=True)
class DatabaseUsage:
    """When one database was used."""

    registry: Registry
    key: Key

    def __call__(self) -> int:
        """Return a number that has changed since the last call if the database may have been used.

        That is the case after a checkout or a return, as long as a connection is checked out, after
        a connection was opened without a pool or detached from it, and once there are other
        processes.
        """
        return self.registry.count_uses(self.key)

    def before_next(self, call: Callable[[], None]) -> bool:
        """Call a function before the next use. Returns False if it may be in use now."""
        return self.registry.call_before_use(self.key, call)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Replace the database: other threads have no connection meanwhile, and open none."""
        with self.registry.replacing_database():
            yield


def entry_of(connection: Connection) -> object:
    """Return the pool's entry of the connection that a Core connection has checked out."""
    return getattr(_proxied(connection), "_connection_record", None)


def _let_reconnect(holder: Connection, *, has_begun: bool) -> bool:
    """Let a holder open another connection at its next use.

    Returns whether it was inside a transaction. ``has_begun``: the database knows of one.
    """
    transaction = holder.get_transaction()
    level = holder.get_execution_options().get("isolation_level")
    is_inside = transaction is not None and level != "AUTOCOMMIT"
    holder.invalidate()
    if is_inside and has_begun:
        return True
    if transaction is not None:
        transaction.rollback()  # of SQLAlchemy alone: the database does not know of it
    if level is not None and not holder.dialect.is_async:
        # A new connection would not have the level. This opens one. An async one would have to be
        # awaited, and has the engine's level.
        holder.execution_options(isolation_level=level)
    return is_inside


def _proxied(connection: Connection) -> Any:
    # The public property opens a connection if there is none.
    return connection._dbapi_connection  # noqa: SLF001 - the public property opens one

"""The pooled connections, their checkouts, and the uses of databases."""

from __future__ import annotations

import asyncio
import threading
import weakref
from asyncio import current_task
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pytest_arena._gate._answers import ANSWER
from pytest_arena._gate._orm_sessions import held_by_sessions
from pytest_arena._gate._pooled import PooledConnection
from pytest_arena._origin import (
    WORK,
    is_of_wide_fixture,
    lifespans_with_jobs,
    start_of,
    user_line,
)
from pytest_arena._process import alive, running_loop
from pytest_arena._product import nothing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import FrameType

    from sqlalchemy.engine import Connection
    from sqlalchemy.pool import ConnectionPoolEntry

    from pytest_arena._gate._pooled import PendingWrites
    from pytest_arena._origin import RunningLifespan, ThreadStart, Work
    from pytest_arena._product import ConnectTarget, Handle, Key, RawWrites
    from pytest_arena._values import CodeLine

    TaskReference = Callable[[], asyncio.Task[object] | None]

# Seconds for which the replacement of a database waits for threads that have a connection.
_LONGEST_USE = 1.0
# Seconds for which a thread that connects waits until a database is replaced.
_LONGEST_REPLACEMENT = 10.0


def _ignore(*_: object) -> None:
    """Note nothing, because there is no gate yet."""


class Registry:
    """All pooled connections of the process, and their checkouts. Any thread calls it.

    A Core connection checks a pooled connection out, and may check out another one later. The
    registry knows the serial of the level in which each Core connection was made. A Core connection
    of a wider fixture belongs to no test, even if it checks out another connection in a test.

    Each database has one `DatabaseUsage`.
    """

    def __init__(self) -> None:
        self.checkouts = 0  # how many there were
        self.has_raw = False  # whether a connection was ever opened without an engine
        # Called with the writes of such a connection that ends without a commit, and with
        # whether the garbage collector ends it.
        self.lost_raw: Callable[[RawWrites, bool], None] = _ignore
        # Called with a driver's connection of a pool, and each COPY that it sends.
        self.copied: Callable[[object, str], None] = _ignore
        # Threads that still work for a test that is over, each with the frame of that work.
        self.late: dict[int, FrameType] = {}
        # Lifespans that have ended, and whose threads have not.
        self.ended_lifespans: set[RunningLifespan] = set()
        self.lock = threading.RLock()
        self._connections: weakref.WeakSet[PooledConnection] = weakref.WeakSet()
        self._checkouts: dict[ConnectionPoolEntry, Checkout] = {}
        self._holders: weakref.WeakKeyDictionary[Connection, int] = (
            weakref.WeakKeyDictionary()
        )
        self._early_threads: frozenset[threading.Thread] = frozenset()
        self._usages: dict[Key, DatabaseUsage] = {}
        self._used: set[DatabaseUsage] = set()  # since `forget_uses`
        self._has_others = False
        # Threads that keep a connection for long. Nothing waits for them.
        self._slow: set[int | None] = {None}
        # The thread that replaces a database, and the condition for which others wait.
        self._replacing: int | None = None
        self._condition = threading.Condition(self.lock)

    def report_lost_to(
        self,
        lost_raw: Callable[[RawWrites, bool], None],
        copied: Callable[[object, str], None],
    ) -> None:
        """Call these functions with writes that no engine has sent.

        ``lost_raw`` gets those of connections that no engine has opened, ``copied`` each COPY of a
        driver's connection in a pool.
        """
        self.lost_raw = lost_raw
        self.copied = copied

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
        start: ThreadStart | None = getattr(thread, "arena_start", None)
        is_late = start is not None and start.work is not None and start.work.is_over
        return "in an earlier test" if is_late else ""

    def refuse_ended_lifespans(self) -> None:
        """Note the lifespans that have ended and whose threads or queued jobs have not.

        Their threads get no connection from here on. Call this after the shutdown of a lifespan,
        which waits for some of them.
        """
        lifespans = lifespans_with_jobs()
        for thread in threading.enumerate():
            lifespan = start_of(thread).lifespan
            if lifespan is not None:
                lifespans.add(lifespan)
        self.ended_lifespans = {each for each in lifespans if not each.is_up}

    def is_of_ended_lifespan(self) -> bool:
        """Return whether the user's code runs in a thread of a lifespan that has ended."""
        if start_of(threading.current_thread()).lifespan not in self.ended_lifespans:
            return False
        return user_line() is not None  # a library's thread may serve all tests

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
                self._condition.wait_for(
                    lambda: self._may_connect(here), _LONGEST_REPLACEMENT
                )
            self._connections.add(pooled)
            pooled.occupy(here)

    def _may_connect(self, thread: int) -> bool:
        return self._replacing in {None, thread} or thread in self.active_threads()

    def active_threads(self) -> set[int | None]:
        """Return the threads that open a connection or have one, and do not keep it for long."""
        return {pooled.thread for pooled in self._current()} - self._slow

    @contextmanager
    def replacing_database(self) -> Iterator[None]:
        """Wait until no other thread has a connection. Let none open one in this block.

        It does not wait again for a thread that keeps a connection for longer than a second.
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
        serial: int,
    ) -> None:
        """Note that a pool is about to hand out a connection to these targets, in a level."""
        usages = []
        answer = ANSWER.get()
        for target in targets:
            usages.append(self.usage_of(target.key))
            if answer is not None:
                answer.database_keys.add(target.key)
        checkout = Checkout(pooled, entry, user_line(), serial, usages)
        self.checkouts += 1
        with self.lock:
            self._checkouts[entry] = checkout
            for usage in usages:
                self._used.add(usage)
                usage.begin_use(is_checkout=True)

    def find(self, entry: ConnectionPoolEntry) -> Checkout | None:
        """Return the checkout of a pool's entry. None if it is in its pool, or gone."""
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
        # With the lock, because another thread may read the usage now.
        with self.lock:
            checkout = self._checkouts.pop(entry, None)
            if checkout is not None:
                for usage in checkout.usages:
                    usage.check_in()
            return checkout

    def detach(self, checkout: Checkout) -> None:
        """Note that the app takes a connection out of its pool. No event reports its later uses."""
        with self.lock:
            for usage in checkout.usages:
                usage.unwatch()
            self._end_checkout(checkout.entry)

    def checked_out(self) -> list[Checkout]:
        """Return the connections that are checked out."""
        return [*self._checkouts.values()]

    def invalidate(self, checkout: Checkout) -> bool:
        """Invalidate a connection. Its holder opens another one at its next use.

        Returns whether a transaction is lost, so that the holder has to roll back before its next
        use. A session is rolled back here. If it has only read, nothing is lost.
        """
        # Ended first, because the holder may check it out again at once.
        self._end_checkout(checkout.entry)
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
        entries = []
        for holder in alive(self._holders):
            if self._holders.get(holder) != serial:
                entries.append(entry_of(holder))
        return entries

    # Connections that are in their pools.

    def _current(self) -> list[PooledConnection]:
        current = []
        for pooled in alive(self._connections):
            if pooled.is_current:
                current.append(pooled)
        return current

    def idle(self) -> Iterator[PooledConnection]:
        """Yield the connections that are in their pools. Exclude other threads from each meanwhile.

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
        """Close the idle connections to a dropped database.

        Otherwise each of them would keep a file open as long as the app keeps its engine.
        """
        for pooled in self.idle():
            if pooled.target and pooled.target.key == key and pooled.handle:
                self._connections.discard(pooled)
                pooled.handle.end()

    # Uses of databases.

    def usage_of(self, key: Key) -> DatabaseUsage:
        """Return the record of a database, which is new at its first use."""
        usage = self._usages.get(key)
        if usage is None:
            # With the lock, so that two threads get the same record.
            with self.lock:
                usage = self._usages.setdefault(key, DatabaseUsage(self))
                if self._has_others:
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
        """Whether no connection can be used without a checkout."""
        return not (self._checkouts or self.has_raw or self._has_others)

    def opened_raw(self, key: Key) -> None:
        """Note a connection that was opened without an engine."""
        self.has_raw = True
        self.may_be_used(key)

    def may_be_used(self, key: Key) -> None:
        """Note that a database may be used at any time from here on, without a checkout."""
        usage = self.usage_of(key)
        with self.lock:
            self._used.add(usage)
            usage.unwatch()

    def open_to_others(self) -> None:
        """Note that another process is about to start, which may use all databases."""
        with self.lock:
            self._has_others = True
            for usage in [*self._usages.values()]:
                usage.unwatch()

    def rename(self, old: Key, new: Key) -> None:
        """Give a database another key. Its usage is found by the old key, too."""
        with self.lock:
            usage = self.usage_of(old)
            usage.begin_use()
            self._usages[new] = usage


class DatabaseUsage:
    """The uses of one database, counted as far as pools show them.

    A connection that is checked out, or was opened without a pool, may be used at any time. Once
    there are other processes, all databases may be used at any time.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._number = 0
        self._checked_out = 0  # how many of its connections are out of their pools
        self._is_unwatched = False  # it may be used at any time
        self._before_next: Callable[[], None] = nothing

    def __call__(self) -> int:
        """Return a number that has changed since the last call if the database may have been used.

        It changes after a checkout or a return, and while a connection is checked out. It changes
        at each call if a connection was opened without a pool or detached from it, or if other
        processes were started.
        """
        with self._registry.lock:
            if self._checked_out or self._is_unwatched:
                self._number += 1
            return self._number

    def before_next(self, call: Callable[[], None]) -> bool:
        """Call a function once before the database is used the next time.

        Only the last function counts, and it must not raise. Returns False if the database may be
        in use now: the function is not called then.
        """
        with self._registry.lock:
            if self._checked_out or self._is_unwatched:
                return False
            self._before_next = call
            return True

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Replace the database: other threads have no connection meanwhile, and open none."""
        with self._registry.replacing_database():
            yield

    # The registry calls these methods, with its lock.

    def begin_use(self, *, is_checkout: bool = False) -> None:
        """Note that the database is about to be used, by one of its connections or without any."""
        self._number += 1
        if is_checkout:
            self._checked_out += 1
        call = self._before_next
        self._before_next = nothing
        call()

    def check_in(self) -> None:
        """Note that a connection was returned or closed. It may have been used until now."""
        self._checked_out -= 1
        self._number += 1

    def unwatch(self) -> None:
        """Note that the database may be used at any time from here on, without a checkout."""
        self._is_unwatched = True
        self.begin_use()


def _this_task() -> TaskReference:
    """Return a weak reference to the current task. A strong one would keep a leaked session."""
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
    serial: int  # of the level in which it was checked out
    # Of the databases that it reaches.
    usages: list[DatabaseUsage] = field(default_factory=list)
    thread: int = field(default_factory=threading.get_ident)  # that checked it out
    # The `LateWork` of a test's request that checked it out, or the `OwnWork` of the test itself.
    # None for a wider fixture.
    work: Work | None = field(default_factory=WORK.get)
    _task: TaskReference = field(default_factory=_this_task)

    @property
    def is_of_wide_fixture(self) -> bool:
        """Whether a running task of a wider fixture checked it out. The task will return it."""
        return is_of_wide_fixture(self._task())

    @property
    def handle(self) -> Handle | None:
        """How pytest-arena reaches it."""
        return self.connection.handle

    @property
    def in_transaction(self) -> bool:
        """Whether it has begun to write and has neither committed nor rolled back."""
        return self.handle is not None and self.handle.in_transaction

    @property
    def proxied(self) -> Any:
        """The connection that the pool has handed out, None if it does not exist any more."""
        # The entry has a weak reference to it, without a public name.
        reference = getattr(self.entry, "fairy_ref", None)
        if reference is None:
            return None
        return reference()

    @property
    def pending_writes(self) -> PendingWrites | None:
        """Uncommitted writes of its open transaction."""
        return self.connection.pending_writes

    @property
    def writes(self) -> int:
        """How many statements have made them."""
        if self.pending_writes is None:
            return 0
        return len(self.pending_writes.writes)


def entry_of(connection: Connection) -> object:
    """Return the pool's entry of the connection that a Core connection has checked out."""
    return getattr(_proxied(connection), "_connection_record", None)


def _let_reconnect(holder: Connection, *, has_begun: bool) -> bool:
    """Let a holder open another connection at its next use.

    Returns whether it was inside a transaction. ``has_begun``: the database has begun it.
    """
    transaction = holder.get_transaction()
    level = holder.get_execution_options().get("isolation_level")
    is_inside = transaction is not None and level != "AUTOCOMMIT"
    holder.invalidate()
    if is_inside and has_begun:
        return True
    if transaction is not None:
        transaction.rollback()  # sends nothing: the database has not begun it
    if level is not None and not holder.dialect.is_async:
        # This opens a connection with the level. An async one would have to be awaited, so it is
        # opened later, with the engine's level.
        holder.execution_options(isolation_level=level)
    return is_inside


def _proxied(connection: Connection) -> Any:
    return connection._dbapi_connection  # noqa: SLF001 - the public property may open one

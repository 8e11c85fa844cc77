"""The connections of this process: what is each, who has taken it, which sessions are in use?

A pool's connection has a `ConnectionRecord` in its entry. The `Registry` knows which are in their
pools, who has taken one, and how often each database was used; and of SQLAlchemy's sessions those
that have begun something.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import event
from sqlalchemy.orm.session import Session, _sessions

from pytest_arena._gate._answers import ANSWER
from pytest_arena._gate._contents import Contents
from pytest_arena._gate._unnamed import (
    LOCKS,
    MAY_WRITE,
    NOTIFIES,
    TEMPORARY,
    WRITES,
)
from pytest_arena._origin import WORK
from pytest_arena._process import alive
from pytest_arena._product import Aim, Handle, Key, Live, nothing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import FrameType

    from sqlalchemy.engine import Connection
    from sqlalchemy.pool import ConnectionPoolEntry

    from pytest_arena._values import CodeLine

INFO = "pytest_arena"  # where it stands in the dictionary ``info`` of a pool's entry

# Seconds. So long whoever is at a database may go on before another takes its place, and so long
# whoever comes waits for that.
_SHORT, _LONG = 1.0, 10.0

# The table, the rows that one statement wrote to it (0 where that is not known), and whether these
# were inserted by it.
Part = tuple[str, int, bool]


@dataclass(slots=True, eq=False)
class Written:
    """What a transaction that is open has written by now, by statements that SQLAlchemy ran."""

    line: CodeLine | None  # of the first of them
    serial: int  # of the level in which that was
    parts: list[Part] = field(default_factory=list)
    savepoints: dict[str, int] = field(
        default_factory=dict
    )  # how many parts there were by then
    has_failed: bool = False  # a statement; until its savepoint is rolled back
    is_over: bool = False  # it was committed, or rolled back

    def __str__(self) -> str:
        rows = sum(rows or 1 for _, rows, _ in self.parts)
        tables = ", ".join(dict.fromkeys(table for table, *_ in self.parts))
        where = self.line or "a line that cannot be seen"
        return f"{rows:,} uncommitted row{'s' * (rows != 1)} ({tables}), written at {where}"

    def mark(self, savepoint: str) -> None:
        """From here on it can be undone without the rest."""
        self.savepoints[savepoint] = len(self.parts)

    def go_back_to(self, savepoint: str) -> None:
        """What was written since then was undone, and so was an error."""
        del self.parts[self.savepoints.get(savepoint, 0) :]
        self.has_failed = False


@dataclass(slots=True)
class UnnamedWrite:
    """What an open transaction of a request may have written by statements that name no table."""

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


@dataclass(slots=True)
class ConnectionRecord:
    """What is known of one pooled connection.

    ``aim`` is None where it goes its own way, ``handle`` where nobody can ask it anything.
    """

    aim: Aim | None
    handle: Handle | None = None
    session: object = None
    stale: bool = False
    used: bool = False
    opened: Callable[[Any], Live | None] | None = (
        None  # says what the led connection is
    )
    process: int = field(default_factory=os.getpid)
    kept_by: tuple[
        int, ...
    ] = ()  # serials of wide fixtures that made it look so, the last on top
    # What was in `Connection.info`: at the first checkout, and after each wide fixture that used
    # the connection, with its serial.
    infos: list[tuple[int | None, _ConnectionInfo]] = field(default_factory=list)
    written: Written | None = None
    unnamed: UnnamedWrite | None = None
    changes: int = (
        0  # that the driver had counted when its transaction was begun, or before
    )

    @property
    def key(self) -> Key | None:
        """The key of its database on a server; None where it is on none."""
        return self.aim.key if self.handle and self.aim and self.aim.address else None

    def aims(self) -> tuple[Aim, ...]:
        """Where the connection lands, and the files that it has attached."""
        attached = self.handle.attached() if self.handle else ()
        return (self.aim, *attached) if self.aim else attached

    def begin_use(self, info: dict[Any, Any]) -> None:
        """Somebody takes the connection: the first one finds it as it looks when it is new."""
        if not self.infos:
            self.infos.append((None, _ConnectionInfo(info)))
        if self.handle:
            self.handle.taken(is_first=not self.used)
        self.used = True
        self.changes, self.written = self.handle.changes() if self.handle else 0, None
        self.unnamed = None
        if (
            self.session is None
            and self.handle
            and self.aim
            and not self.aim.is_passing
        ):
            self.session = self.handle.session()

    def begin_unnamed(self, serial: int) -> UnnamedWrite:
        """Return what its transaction may have written by statements that name no table."""
        if self.unnamed is None:
            self.unnamed = UnnamedWrite(serial)
        return self.unnamed

    def forget_unnamed(self) -> None:
        """The transaction is over, or these statements are undone."""
        self.unnamed = None

    def keep(self, serial: int, info: dict[Any, Any]) -> None:
        """A wide fixture is set up: what it has set in an idle connection stays as long as it."""
        if self.used:
            self.infos.append((serial, _ConnectionInfo(info)))
        if (
            self.handle
            and self.aim
            and self.used
            and (now := self.handle.session()) is not None
        ):
            self.kept_by += (serial,) * (now != self.session)
            self.session, self.used = now, False

    def end_use(self, serial: int, info: dict[Any, Any]) -> bool:
        """At a level's end, while it is idle: it is stale where it does not look as it did.

        So it is at the end of the fixture that has made it look so. Returns whether that is news.
        """
        self._restore_info(serial, info)
        is_over = serial in self.kept_by
        if not (self.handle and self.aim and (self.used or is_over)):
            return False
        # One that cannot be asked (it belongs to another thread) is dropped as well.
        now, was_stale = self.handle.session(), self.stale
        self.stale = was_stale or is_over or now is None or now != self.session
        self.used, number = False, self.kept_by.index(serial) if is_over else None
        self.kept_by = self.kept_by[
            :number
        ]  # of those below it is told that it is lost
        return self.stale and not was_stale

    def _restore_info(self, serial: int, info: dict[Any, Any]) -> None:
        """Restore ``Connection.info``, also at the end of a fixture that has filled it."""
        owners = [owner for owner, _ in self.infos]
        if serial in owners:
            del self.infos[owners.index(serial) :]
        if self.infos:
            _, before = self.infos[-1]
            before.restore(info)


class _ConnectionInfo:
    """What an app had in ``Connection.info``. It is not kept itself: it holds the record."""

    def __init__(self, info: dict[Any, Any]) -> None:
        self._values = {key: value for key, value in info.items() if key != INFO}
        self._inner = Contents(self._values)

    def restore(self, info: dict[Any, Any]) -> None:
        """Put the former values back."""
        self._inner.restore()
        for key in [*info]:
            if key != INFO and key not in self._values:
                del info[key]
        info.update(self._values)


@dataclass(frozen=True, slots=True)
class Checkout:
    """A connection that somebody has taken from a pool and not given back."""

    entry: ConnectionPoolEntry
    handle: Handle | None
    key: Key | None  # of a database on a server
    line: CodeLine | None
    serial: int  # of the level in which it was taken
    thread: int = field(default_factory=threading.get_ident)  # that took it
    # The `LateWork` of a test's request that took it, or the `OwnWork` of the test itself.
    # None for a wider fixture.
    work: Any = field(default_factory=WORK.get)

    @property
    def in_transaction(self) -> bool:
        """Whether it has begun to write and has neither committed nor rolled back."""
        return self.handle is not None and self.handle.in_transaction

    @property
    def proxied(self) -> Any:
        """What the pool has handed out."""
        # Its entry knows it by a weak reference without a public name.
        return (getattr(self.entry, "fairy_ref", None) or nothing)()

    @property
    def written(self) -> Written | None:
        """What stands in its transaction that nobody has committed, and no savepoint undone."""
        info = self.entry.info.get(INFO)
        return info.written if isinstance(info, ConnectionRecord) else None

    @property
    def writes(self) -> int:
        """How many statements have written that."""
        return len(self.written.parts) if self.written else 0


class Registry:
    """All connections of the process that a pool has, or has given to somebody. Any thread asks.

    One of SQLAlchemy's Core takes a connection from a pool and may take another one. Each is known
    with the serial of the level in which it was made: what a wider fixture has made is no test's,
    also where it took another connection in a test.

    How often each database on a server was used is counted as far as pools tell. What is out of
    its pool, or has come without one, may be used at any time; so may all, once there are other
    processes.
    """

    def __init__(self) -> None:
        self.used: set[Key] = set()  # keys of the databases since somebody cleared it
        self.checkouts = 0  # how often one was taken
        self.has_raw = (
            False  # whether anybody has ever opened a connection without an engine
        )
        self._taken: weakref.WeakKeyDictionary[Any, Checkout] = (
            weakref.WeakKeyDictionary()
        )
        self._entries: weakref.WeakKeyDictionary[Any, None] = (
            weakref.WeakKeyDictionary()
        )
        self._holders: weakref.WeakKeyDictionary[Connection, int] = (
            weakref.WeakKeyDictionary()
        )
        self.late: dict[
            int, FrameType
        ] = {}  # threads whose test is over, by what they are in
        self._early_threads: frozenset[threading.Thread] = frozenset()
        self._has_others = False
        self._unwatched: set[Key] = set()
        self._renamed: dict[Key, Key] = {}
        # Threads, by the entries that they open or have taken; those that keep one for long; and
        # the one that puts another database in a database's place.
        self.inside: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
        self.slow: set[int | None] = {None}  # an entry's that is gone by now
        self.mover: int | None = None
        # What `DatabaseUsage` hands out, and whom it calls.
        self.lock = threading.RLock()
        self.turn = threading.Condition(
            self.lock
        )  # to be entered by its lock, which is in C
        self.numbers: Counter[Key] = Counter()
        self.waiting: dict[Key, Callable[[], None]] = {}

    def note_early_threads(self) -> None:
        """Note the threads that are older than all tests and fixtures, without the main thread."""
        self._early_threads = frozenset(threading.enumerate()) - {
            threading.main_thread()
        }

    def when_began(self, thread: threading.Thread) -> str:
        """Return when a thread began that is older than the test, in words; "" for any other."""
        if thread in self._early_threads:
            return "before the first test"
        # A library's thread: pytest-arena does not know whose job it does.
        work = getattr(thread, "arena_work", None)
        return "in an earlier test" if work is not None and work.is_over else ""

    def add(self, entry: Any) -> None:
        """A pool has a new connection."""
        self._entries[entry] = None

    def come(self, entry: Any) -> None:
        """Somebody is about to open or to take a connection: to no database that goes just now.

        Who has another one may need both to come to an end, and is let through.
        """
        here = threading.get_ident()
        with self.lock:
            if self.mover is not None:
                self.turn.wait_for(
                    lambda: self.mover in {None, here} or here in self.busy(), _LONG
                )
            self.inside[entry] = here

    def busy(self) -> set[int | None]:
        """Return the threads that open a connection or have one, and do not keep it for long."""
        return {*map(self.inside.get, alive(self.inside))} - self.slow

    def take(self, checkout: Checkout, aims: Iterable[Aim]) -> None:
        """Somebody is about to be handed out a connection."""
        self.used.update([aim.key for aim in aims])
        self.checkouts += 1
        self._taken[checkout.entry] = checkout
        with self.lock:
            for aim in aims:
                # However it came: by a listener or a creator of the app's as well.
                if aim.address is not None:
                    key = self.key_now(aim.key)
                    self.numbers[key] += 1
                    self.waiting.pop(key, nothing)()

    def find(self, entry: Any) -> Checkout | None:
        """Return who has taken a connection; None where it is in its pool, or gone."""
        return self._taken.get(entry)

    def give_back(self, entry: Any) -> None:
        """The connection is in its pool again, or gone: it may have been used until now."""
        # Another thread may ask right now, and must not find it neither out nor counted.
        with self.lock:
            if (taken := self.find(entry)) is not None and taken.key is not None:
                self.numbers[self.key_now(taken.key)] += 1
            self._taken.pop(entry, None)
            self.inside.pop(entry, None)
            if self.mover is not None:
                self.turn.notify_all()

    def keep(self, taken: Checkout) -> None:
        """Somebody keeps the connection for good: no pool tells when it is used."""
        if taken.key is not None:
            self._unwatch(taken.key)  # first, as above
        self._taken.pop(taken.entry, None)

    @property
    def is_quiet(self) -> bool:
        """Whether none can be used without being taken first."""
        return not (self._taken or self.has_raw or self._has_others)

    def opened_raw(self, key: Key) -> None:
        """Somebody has opened a connection without an engine."""
        self.has_raw = True
        self.may_be_used(key)

    def may_be_used(self, key: Key) -> None:
        """Somebody may use a database from here on, at any time, and no pool tells of it."""
        self.used.add(key)
        self._unwatch(key)

    def open_to_others(self) -> None:
        """Another process is about to be started, which may use all databases."""
        with self.lock:
            self._has_others = True
            for key in list(self.waiting):
                self.waiting.pop(key, nothing)()

    def rename(self, old: Key, new: Key) -> None:
        """A database has another key from here on; who asks by the old one is told of it, too."""
        with self.lock:
            self._renamed[old] = new
            self.numbers[new] += self.numbers.pop(old, 0) + 1
            if old in self._unwatched:
                self._unwatched.add(new)
            self.waiting.pop(old, nothing)()

    def key_now(self, key: Key) -> Key:
        """Return the key that a database has by now."""
        return self._renamed.get(key, key)

    def may_be_in_use(self, key: Key) -> bool:
        """Whether somebody may be using a database right now."""
        keys = (self.key_now(taken.key) for taken in self.taken() if taken.key)
        return self._has_others or key in self._unwatched or key in keys

    def _unwatch(self, key: Key) -> None:
        with self.lock:
            key = self.key_now(key)
            self._unwatched.add(key)
            self.waiting.pop(key, nothing)()

    def taken(self) -> list[Checkout]:
        """Return the connections that are out of their pools."""
        # Twenty times a test: what it has inside is read in one step, see `alive`.
        return [*self._taken.data.values()]  # type: ignore[attr-defined] # typeshed has it not

    def idle(self) -> Iterator[tuple[Any, ConnectionRecord]]:
        """Yield the connections that are in their pools, and stay there so long, and what is known.

        One that somebody takes, or closes, in a thread of its own must not be touched.
        """
        for entry in alive(self._entries):
            record: ConnectionRecord | None = entry.info.get(INFO)
            if record is None or record.handle is None:
                continue
            with record.handle.alone() as is_alone:
                if (
                    is_alone
                    and entry not in self._taken
                    and entry.dbapi_connection is not None
                ):
                    yield entry, record

    def forget(self, key: Key) -> None:
        """A database is gone: close what is idle on it, which nobody will be given any more.

        Else each of those whose engine somebody keeps would keep a file open.
        """
        for entry, record in self.idle():
            if record.aim and record.aim.key == key and record.handle:
                self._entries.pop(entry, None)
                record.handle.end()

    def hold(self, connection: Connection, serial: int) -> None:
        """Somebody has called ``engine.connect()``, or a session has, in this level."""
        self._holders[connection] = serial

    def entries_of_others(self, serial: int) -> list[object]:
        """Return the pool's entries whose holders were made in another level than this one."""
        return [
            entry_of(one)
            for one in alive(self._holders)
            if self._holders.get(one) != serial
        ]

    def give_up(self, taken: Checkout) -> bool:
        """Take a connection away: its holder opens another one when he goes on.

        Returns whether he was inside a transaction, which is lost: he has to roll it back first.
        For a session that is done, and nothing is lost where it has only read.
        """
        self._taken.pop(taken.entry, None)  # first: its holder may take it anew at once
        if (proxied := taken.proxied) is None:
            return False
        holders = (held for held in alive(self._holders) if _proxied(held) is proxied)
        holder = next(holders, None)
        if holder is None:
            proxied.invalidate()
            return False
        sessions = [session for session, held in held_by_sessions() if held is holder]
        has_written = taken.writes > 0
        is_begun = has_written or taken.handle is None or taken.handle.is_begun
        is_lost = _reconnected(holder, is_begun=is_begun)
        for session in sessions:
            session.rollback()
        return is_lost and (has_written or not sessions)


# Sessions that have begun a transaction, until they are found empty: few of all that there are,
# where a framework's cache keeps those of each test.
_begun: weakref.WeakKeyDictionary[Session, None] = weakref.WeakKeyDictionary()


def watch_sessions() -> None:
    """Know which begin something, from here on. Costs a microsecond for each transaction."""
    for reference in _sessions.valuerefs():  # for the reason that `alive` gives
        if (session := reference()) is not None:
            _begin(session)
    event.listen(Session, "after_transaction_create", _on_transaction)


def _on_transaction(session: Session, _: object) -> None:
    _begin(session)
    answer = ANSWER.get()
    if answer is not None:
        answer.note_session(session)


def _begin(session: Session) -> None:
    _begun[session] = None


def sessions_in_use() -> list[Session]:
    """Return those in which something is, or a transaction has begun."""
    found = []
    for session in alive(_begun):
        _begun.pop(session, None)  # first: another thread may begin one right now
        if session.in_transaction() or session.identity_map:
            _begin(session)
            found.append(session)
    return found


def held_by_sessions() -> list[tuple[Session, Connection]]:
    """Return the sessions that have begun a transaction, with each connection that it is on.

    SQLAlchemy has no public way from one to the other.
    """
    return [
        (session, connection)
        for session in alive(_begun)
        if (transaction := session.get_transaction()) is not None
        for connection, *_ in set(transaction._connections.values())  # noqa: SLF001 - as above
    ]


def unflushed(sessions: Iterable[Session]) -> list[object]:
    """Return the instances that wait to be written."""
    return [one for each in sessions for one in (*each.new, *each.dirty, *each.deleted)]


def session_numbers() -> frozenset[int]:
    """Return the numbers of all; see ``alive`` for why nothing else walks such a dictionary."""
    return frozenset(_sessions.data)  # type: ignore[attr-defined] # typeshed has it not


def entry_of(connection: Connection) -> object:
    """Return the pool's entry of the connection that somebody has by this one."""
    return getattr(_proxied(connection), "_connection_record", None)


def _reconnected(holder: Connection, *, is_begun: bool) -> bool:
    """Have a holder open another connection at its next use.

    Returns whether it was inside a transaction. With ``is_begun`` the database knows of one.
    """
    transaction = holder.get_transaction()
    level = holder.get_execution_options().get("isolation_level")
    is_inside = transaction is not None and level != "AUTOCOMMIT"
    holder.invalidate()
    if is_inside and is_begun:
        return True
    if transaction is not None:
        transaction.rollback()  # SQLAlchemy's own: the database has never heard of it
    if level is not None and not holder.dialect.is_async:
        # A new connection would not have it. (It opens one, for which an async one has to be
        # awaited: that has the engine's.)
        holder.execution_options(isolation_level=level)
    return is_inside


def _proxied(connection: Connection) -> object:
    # Its property would open another one where there is none.
    return connection._dbapi_connection  # noqa: SLF001 - as said


@dataclass(frozen=True, slots=True)
class DatabaseUsage:
    """When one database was used."""

    registry: Registry
    key: Key

    def __call__(self) -> int:
        """Return a number that has moved since it was last asked for, if it may have been used.

        That is so where a connection was taken from its pool, or given back; as long as one is
        out; from when one was opened without a pool, or taken out of it for good; and as soon as
        there are other processes.
        """
        registry = self.registry
        with registry.lock:
            key = registry.key_now(self.key)
            if registry.may_be_in_use(key):
                registry.numbers[key] += 1
            return registry.numbers[key]

    def before_next(self, call: Callable[[], None]) -> bool:
        """Have this called before it is used the next time, by whoever is about to.

        Only the last that was asked for is called, and once; it must not raise. Returns whether
        that can be had: not, where somebody may be using it right now.
        """
        registry = self.registry
        with registry.lock:
            key = registry.key_now(self.key)
            if is_quiet := not registry.may_be_in_use(key):
                registry.waiting[key] = call
            return is_quiet

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Put another in its place: other threads have no connection meanwhile, and open none.

        A thread that keeps one for longer than a second loses it, and is not waited for again.
        """
        registry, here = self.registry, threading.get_ident()
        before, registry.mover = registry.mover, here
        try:
            with registry.lock:
                registry.turn.wait_for(lambda: registry.busy() <= {here}, _SHORT)
                registry.slow |= registry.busy() - {here}
            yield
        finally:
            with registry.lock:
                registry.mover = before
                registry.turn.notify_all()

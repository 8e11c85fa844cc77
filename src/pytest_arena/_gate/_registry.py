"""The connections of this process: which are in pools, who has taken one, and who uses what?"""

from __future__ import annotations

import os
import threading
import weakref
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pytest_arena._values import alive

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from sqlalchemy.engine import Connection
    from sqlalchemy.pool import ConnectionPoolEntry

    from pytest_arena._gate._reads import Part
    from pytest_arena._product import Aim, Handle, Key, Live
    from pytest_arena._values import CodeLine

__all__ = [
    "INFO",
    "Checkout",
    "ConnectionRecord",
    "Registry",
    "Usage",
    "Written",
    "abandon",
]

INFO = "pytest_arena"  # where it stands in the dictionary ``info`` of a pool's entry


@dataclass(slots=True)
class Written:
    """What a transaction that is open has written by now, by statements that SQLAlchemy ran."""

    line: CodeLine | None  # of the first of them
    serial: int  # of the level in which that was
    parts: list[Part] = field(default_factory=list)
    savepoints: dict[str, int] = field(default_factory=dict)  # how many parts there were by then
    has_failed: bool = False  # a statement; until its savepoint is rolled back

    def mark(self, savepoint: str) -> None:
        """From here on it can be undone without the rest."""
        self.savepoints[savepoint] = len(self.parts)

    def go_back_to(self, savepoint: str) -> None:
        """What was written since then was undone, and so was an error."""
        del self.parts[self.savepoints.get(savepoint, 0) :]
        self.has_failed = False


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
    opened: Callable[[Any], Live | None] | None = None  # says what the led connection is
    process: int = field(default_factory=os.getpid)
    written: Written | None = None
    changes: int = 0  # that the driver had counted when its transaction was begun, or before

    @property
    def key(self) -> Key | None:
        """The key of its database on a server; None where it is on none."""
        return self.aim.key if self.handle and self.aim and self.aim.address else None

    def aims(self) -> tuple[Aim, ...]:
        """Where the connection lands, and the files that it has attached."""
        attached = self.handle.attached() if self.handle else ()
        return (self.aim, *attached) if self.aim else attached

    def begin_use(self) -> None:
        """Somebody takes the connection: the first one finds it as it looks when it is new."""
        self.used = True
        self.changes, self.written = self.handle.changes() if self.handle else 0, None
        if self.session is None and self.handle and self.aim:
            self.session = self.handle.session()

    def end_use(self) -> bool:
        """Between tests, while it is idle: it is stale where it does not look as it did.

        Returns whether that is news.
        """
        if not (self.handle and self.aim and self.used):
            return False
        # One that cannot be asked (it belongs to another thread) is dropped as well.
        now, was_stale = self.handle.session(), self.stale
        self.stale = was_stale or now is None or now != self.session
        self.used = False
        return self.stale and not was_stale


@dataclass(frozen=True, slots=True)
class Checkout:
    """A connection that somebody has taken from a pool and not given back."""

    entry: ConnectionPoolEntry
    handle: Handle | None
    key: Key | None  # of a database on a server
    line: CodeLine | None
    serial: int  # of the level in which it was taken
    thread: int = field(default_factory=threading.get_ident)  # that took it

    @property
    def in_transaction(self) -> bool:
        """Whether it has begun to write and has neither committed nor rolled back."""
        return self.handle is not None and self.handle.in_transaction

    @property
    def writes(self) -> int:
        """How many statements have written in its transaction, and no savepoint has undone."""
        info = self.entry.info.get(INFO)
        return len(info.written.parts) if isinstance(info, ConnectionRecord) and info.written else 0


# What a fork left to the child: SQLite forbids to use it there, and to close it as well.
_abandoned: list[Any] = []


def abandon(entry: Any) -> None:
    """Take a connection out of its entry, and keep it from ever being closed."""
    _abandoned.append(entry.dbapi_connection)
    entry.dbapi_connection = None


class Usage:
    """How often each database was used, as far as the pools of this process tell. Any thread asks.

    ``out`` returns whose connections are out of their pools. What is out, or has come without a
    pool, may be used at any time; so may all, once there are other processes.
    """

    def __init__(self, out: Callable[[], Iterable[Key]]) -> None:
        self._out = out
        self._turn = threading.RLock()
        self._numbers: Counter[Key] = Counter()
        self._unwatched: set[Key] = set()
        self._waiting: dict[Key, Callable[[], None]] = {}
        self._has_others = False
        self._renamed: dict[Key, Key] = {}

    def rename(self, old: Key, new: Key) -> None:
        """A database has another key from here on; who asks by the old one is told of it, too."""
        with self._turn:
            self._renamed[old] = new
            self._numbers[new] += self._numbers.pop(old, 0) + 1
            if old in self._unwatched:
                self._unwatched.add(new)
            if (call := self._waiting.pop(old, None)) is not None:
                call()

    def _now(self, key: Key) -> Key:
        return self._renamed.get(key, key)

    def of(self, key: Key) -> DatabaseUsage:
        """Return what tells of one database."""
        return DatabaseUsage(self, key)

    def begin(self, aims: Iterable[Aim]) -> None:
        """A connection is about to be handed out; it is known to be out of its pool."""
        with self._turn:
            for aim in aims:
                # However it came: by a listener or a creator of the app's as well.
                if aim.address is not None:
                    self._numbers[self._now(aim.key)] += 1
                    self._tell(aim.key)

    def end(self, key: Key) -> None:
        """A connection was given back: it may have been used since it was asked for last."""
        with self._turn:
            self._numbers[self._now(key)] += 1

    def unwatched(self, key: Key) -> None:
        """From here on somebody has a connection that no pool sees."""
        with self._turn:
            self._unwatched.add(self._now(key))
            self._tell(key)

    def open_to_others(self) -> None:
        """Another process is about to be started, which may use them all."""
        with self._turn:
            self._has_others = True
            for key in list(self._waiting):
                self._tell(key)

    def _tell(self, key: Key) -> None:
        if (call := self._waiting.pop(self._now(key), None)) is not None:
            call()

    def number(self, key: Key) -> int:
        """Return a number that has moved since it was last asked for, if one may have been used."""
        with self._turn:
            if self._may_be_used(key := self._now(key)):
                self._numbers[key] += 1
            return self._numbers[key]

    def before_next(self, key: Key, call: Callable[[], None]) -> bool:
        """Have this called before it is used again, if nobody can be using it now."""
        with self._turn:
            is_quiet = not self._may_be_used(key := self._now(key))
            if is_quiet:
                self._waiting[key] = call
            return is_quiet

    def _may_be_used(self, key: Key) -> bool:
        return self._has_others or key in self._unwatched or key in map(self._now, self._out())


@dataclass(frozen=True, slots=True)
class DatabaseUsage:
    """When one database was used."""

    all: Usage
    key: Key

    def __call__(self) -> int:
        """Return a number that has moved since it was last asked for, if it may have been used.

        That is so where a connection was taken from its pool, or given back; as long as one is
        out; from when one was opened without a pool, or taken out of it for good; and as soon as
        there are other processes.
        """
        return self.all.number(self.key)

    def before_next(self, call: Callable[[], None]) -> bool:
        """Have this called before it is used the next time, by whoever is about to.

        Only the last that was asked for is called, and once; it must not raise. Returns whether
        that can be had: not, where somebody may be using it right now.
        """
        return self.all.before_next(self.key, call)


class Registry:
    """All connections of the process that a pool has, or has given to somebody.

    One of SQLAlchemy's Core takes a connection from a pool and may take another one. Each is known
    with the serial of the level in which it was made: what a wider fixture has made is no test's,
    also where it took another connection in a test.
    """

    def __init__(self) -> None:
        self.used: set[Key] = set()  # keys of the databases since somebody cleared it
        self.has_raw = False  # whether anybody has ever opened a connection without an engine
        self.usage = Usage(self._keys_out)  # of databases on servers
        self._taken: weakref.WeakKeyDictionary[Any, Checkout] = weakref.WeakKeyDictionary()
        self._entries: weakref.WeakKeyDictionary[Any, None] = weakref.WeakKeyDictionary()
        self._holders: weakref.WeakKeyDictionary[Connection, int] = weakref.WeakKeyDictionary()

    def add(self, entry: Any) -> None:
        """A pool has a new connection."""
        self._entries[entry] = None

    def take(self, checkout: Checkout, aims: Iterable[Aim]) -> None:
        """Somebody has taken a connection."""
        self.used.update([aim.key for aim in aims])
        self._taken[checkout.entry] = checkout
        self.usage.begin(aims)

    def find(self, entry: Any) -> Checkout | None:
        """Return who has taken a connection; None where it is in its pool, or gone."""
        return self._taken.get(entry)

    def drop(self, entry: Any) -> None:
        """Nobody has the connection any more, as far as a pool knows."""
        self._taken.pop(entry, None)

    def taken(self) -> list[Checkout]:
        """Return the connections that are out of their pools."""
        found = map(self._taken.get, alive(self._taken) if self._taken else ())  # thrice a test
        return [taken for taken in found if taken is not None]

    def idle(self) -> Iterator[ConnectionRecord]:
        """Yield what is known of the connections that are in their pools."""
        for entry in alive(self._entries):
            record: ConnectionRecord | None = entry.info.get(INFO)
            # One that is being closed, in a thread of its own, must not be touched: SQLite would
            # crash. Its entry knows no connection any more.
            is_there = entry not in self._taken and entry.dbapi_connection is not None
            if record is not None and is_there:
                yield record

    def opened_raw(self, key: Key) -> None:
        """Somebody has opened a connection without an engine."""
        self.has_raw = True
        self.used.add(key)
        self.usage.unwatched(key)

    def _keys_out(self) -> list[Key]:
        return [taken.key for taken in self.taken() if taken.key is not None]

    def hold(self, connection: Connection, serial: int) -> None:
        """Somebody has called ``engine.connect()``, or a session has, in this level."""
        self._holders[connection] = serial

    def entries_of_others(self, serial: int) -> list[object]:
        """Return the pool's entries whose holders were made in another level than this one."""
        older = [one for one in alive(self._holders) if self._holders.get(one) != serial]
        return [getattr(_proxied(one), "_connection_record", None) for one in older]

    def give_up(self, taken: Checkout) -> bool:
        """Take a connection away: its holder opens another one when he goes on.

        Returns whether he was inside a transaction, which is lost: he has to roll it back first.
        """
        self.drop(taken.entry)  # first: its holder may take it anew at once
        reference = getattr(taken.entry, "fairy_ref", None)
        proxied: Any = reference() if reference is not None else None
        if proxied is None:
            return False
        holder = next((one for one in alive(self._holders) if _proxied(one) is proxied), None)
        if holder is None:
            proxied.invalidate()
            return False
        return _reconnected(holder)


def _reconnected(holder: Connection) -> bool:
    begun, level = holder.get_transaction(), holder.get_execution_options().get("isolation_level")
    holder.invalidate()
    if begun is not None and level != "AUTOCOMMIT":
        return True
    if begun is not None:
        begun.rollback()  # SQLAlchemy's own: the database has never heard of it
    if level is not None and not holder.dialect.is_async:
        # A new connection would not have it. (It opens one, for which an async one has to be
        # awaited: that has the engine's.)
        holder.execution_options(isolation_level=level)
    return False


def _proxied(connection: Connection) -> object:
    # Its property would open another one where there is none.
    return connection._dbapi_connection  # noqa: SLF001 - as said

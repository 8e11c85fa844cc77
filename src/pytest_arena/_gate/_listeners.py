"""The only listener to SQLAlchemy's events: redirect, check, drop what is stale, keep count."""

from __future__ import annotations

import os
import sqlite3
import weakref
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.pool import Pool

from pytest_arena._dialects import _sqlite as sql
from pytest_arena._gate import _loops, _refuse
from pytest_arena._gate import _sqlite as sqlite
from pytest_arena._gate._base import Aim, Asked
from pytest_arena._gate._origin import user_line

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator

    from sqlalchemy.engine import Dialect
    from sqlalchemy.pool import ConnectionPoolEntry

    from pytest_arena._gate._base import Resolver
    from pytest_arena._values import CodeLine
    from pytest_arena.errors import ArenaError

__all__ = ["Checkout", "Gate", "close", "describe", "install"]

SEAT = "pytest_arena"


@dataclass(slots=True)
class Seat:
    """What the gate knows of one pooled connection. ``aim`` is None where it goes its own way."""

    aim: Aim | None
    raw: Callable[[], sqlite3.Connection | None] | None = None
    session: tuple[Any, ...] | None = None
    stale: bool = False
    used: bool = False
    process: int = field(default_factory=os.getpid)


@dataclass(frozen=True, slots=True)
class Checkout:
    """A connection that somebody has taken from a pool and not given back."""

    entry: ConnectionPoolEntry
    raw: sqlite3.Connection | None
    line: CodeLine | None
    level: int

    @property
    def in_transaction(self) -> bool:
        """Whether it has begun to write and has neither committed nor rolled back."""
        try:
            return self.raw is not None and self.raw.in_transaction
        except sqlite3.Error:
            return False  # closed by hand


class Gate:
    """Stands between every engine of the process and the databases that it asks for.

    Redirecting costs some microseconds a connect; a checkout costs about five.
    """

    def __init__(self, resolver: Resolver) -> None:
        self.resolver = resolver
        self.used: set[Hashable] = set()  # keys of the databases since somebody cleared it
        self._taken: weakref.WeakKeyDictionary[Any, Checkout] = weakref.WeakKeyDictionary()
        self._entries: weakref.WeakSet[Any] = weakref.WeakSet()

    def connecting(
        self, dialect: Dialect, entry: Any, cargs: list[Any], cparams: dict[str, Any]
    ) -> None:
        """Decide where a connection goes, before it is opened."""
        asked = describe(dialect, cargs, cparams)
        __tracebackhide__ = True
        aim = self.resolver.aim(asked)
        seat = Seat(aim)
        if entry is not None:
            entry.info[SEAT] = seat
        if asked.product == "sqlite":
            self._prepare(seat, cargs, cparams)
            if dialect.is_async:
                # aiosqlite has one thread for each connection, and nobody else works on it; so
                # that the settling thread may ask what the connection looks like.
                cparams["check_same_thread"] = False

    def _prepare(self, seat: Seat, cargs: list[Any], cparams: dict[str, Any]) -> None:
        def made(connection: sqlite3.Connection) -> None:
            seat.raw = _ref(connection)

        base = cparams.get("factory", sqlite3.Connection)
        cparams["factory"] = sqlite.guard_factory(self.resolver, base, made)
        if seat.aim is not None:
            sqlite.redirect(seat.aim, cargs, cparams)

    def connected(self, dbapi_connection: Any, entry: Any) -> None:
        """Check a live connection that did not come the way of ``connecting``."""
        __tracebackhide__ = True
        _loops.free_locks(dbapi_connection)
        self._entries.add(entry)
        seat: Seat | None = entry.info.get(SEAT)
        if seat is not None and (seat.aim is None or _opened_by_us(seat, dbapi_connection)):
            return
        self._check_alive(dbapi_connection, entry)

    def _check_alive(self, dbapi_connection: Any, entry: Any) -> None:
        __tracebackhide__ = True
        raw = _raw_of(dbapi_connection)
        if raw is None:
            entry.info[SEAT] = self._admitted(_product(dbapi_connection))
            return
        file = sql.main_file(dbapi_connection)
        if file and not self.resolver.is_inside(file) and not self.resolver.is_free(file):
            raise self._kept(_refuse.unknown_file(file))
        if not file:
            self.resolver.note(_refuse.kept_memory())
        entry.info[SEAT] = Seat(self.resolver.aim_at(file) if file else None, _ref(raw))

    def _admitted(self, description: str) -> Seat:
        __tracebackhide__ = True
        if not self.resolver.is_allowed(description):
            raise self._kept(_refuse.unknown_connection(description))
        return Seat(None)

    def checked_out(self, dbapi_connection: Any, entry: Any) -> None:
        """Drop a stale connection, quietly: SQLAlchemy's pool opens another one at once."""
        __tracebackhide__ = True
        _loops.free_locks(dbapi_connection)
        seat: Seat | None = entry.info.get(SEAT)
        if seat is None:  # opened before the gate was there
            self.connected(dbapi_connection, entry)
            seat = entry.info[SEAT]
        if seat.process != os.getpid():
            _abandon(entry)
            raise DisconnectionError("this connection belongs to the process that forked this one")
        if seat.stale or (seat.aim and self.resolver.current(seat.aim.key) != seat.aim):
            raise DisconnectionError("the database of this connection is not the test's any more")
        seat.used = True
        if seat.aim is not None:
            self.used.add(seat.aim.key)
        raw = seat.raw() if seat.raw is not None else None
        if seat.session is None and raw is not None and seat.aim is not None:
            seat.session = _described(raw)
        self._taken[entry] = Checkout(entry, raw, user_line(), self.resolver.level())

    def checked_in(self, entry: Any) -> None:
        """The connection is back in its pool, or is gone."""
        self._taken.pop(entry, None)

    def taken(self) -> list[Checkout]:
        """Return the connections that are out of their pools."""
        return list(self._taken.values())

    def drop_altered(self) -> None:
        """Mark idle connections that do not look as they did when they were new.

        A test's temporary table would hide a real one from the next test.
        """
        for entry, seat in self._seats():
            # One that is being closed, in a thread of its own, must not be touched: SQLite would
            # crash. Its entry knows no connection any more.
            is_idle = entry not in self._taken and entry.dbapi_connection is not None
            raw = seat.raw() if seat.raw is not None and is_idle else None
            if raw is not None and seat.aim and seat.used:
                # One that cannot be asked (it belongs to another thread) is dropped as well.
                now = _described(raw)
                seat.stale = seat.stale or now is None or now != seat.session
                seat.used = False

    def _seats(self) -> Iterator[tuple[Any, Seat]]:
        for entry in list(self._entries):
            if (seat := entry.info.get(SEAT)) is not None:
                yield entry, seat

    def _kept(self, error: ArenaError) -> ArenaError:
        self.resolver.refused(error)
        return error


def describe(dialect: Dialect, cargs: Any, cparams: Any) -> Asked:
    """Say which database the arguments of a connect call mean."""
    if dialect.name == "sqlite":
        return Asked(dialect, "sqlite", *sqlite.asked_database(list(cargs), dict(cparams)))
    # One positional argument is a string in the driver's own language (ODBC, libpq): with secrets.
    host = cparams.get("host", "(unknown)" if cargs else "localhost")
    port = cparams.get("port", "")
    database = cparams.get("database") or cparams.get("dbname") or cparams.get("db", "")
    return Asked(dialect, dialect.name, f"{dialect.name}://{host}:{port}/{database}")


def _opened_by_us(seat: Seat, dbapi_connection: Any) -> bool:
    """Whether this is the very connection whose file the guard has looked at.

    An app's own do_connect listener runs after the gate's, and may return another one.
    """
    raw = seat.raw() if seat.raw is not None else None
    return raw is not None and raw in (dbapi_connection, _driver_connection(dbapi_connection))


def _driver_connection(dbapi_connection: Any) -> Any:
    adapted = getattr(dbapi_connection, "driver_connection", None)
    return getattr(adapted, "_connection", None)  # aiosqlite's, the only adapted SQLite driver


def _raw_of(dbapi_connection: Any) -> sqlite3.Connection | None:
    for found in (dbapi_connection, _driver_connection(dbapi_connection)):
        if isinstance(found, sqlite3.Connection):
            return found
    return None


def _ref(raw: sqlite3.Connection) -> Callable[[], sqlite3.Connection | None]:
    try:
        return weakref.ref(raw)
    except TypeError:  # sqlite3's own class has no weak references, only subclasses have
        return lambda: raw


# What a fork left to the child: SQLite forbids to use it there, and to close it as well.
_abandoned: list[Any] = []


def _abandon(entry: Any) -> None:
    _abandoned.append(entry.dbapi_connection)
    entry.dbapi_connection = None


def _product(dbapi_connection: Any) -> str:
    connection = getattr(dbapi_connection, "driver_connection", dbapi_connection)
    return f"{type(connection).__module__.partition('.')[0]}://(unknown)"


def _described(raw: sqlite3.Connection) -> tuple[Any, ...] | None:
    try:
        return sql.describe_session(raw)
    except sqlite3.Error:
        return None  # closed meanwhile, in use, or bound to another thread


_gates: list[Gate] = []
_installed = False


def install(resolver: Resolver) -> Gate:
    """Set up the gate, for good: from here until the process ends no engine goes around it.

    A run inside this run (pytester in-process) sets up its own on top.
    """
    global _installed  # noqa: PLW0603 - listeners cannot be taken back, so it happens once
    _gates.append(Gate(resolver))
    if not _installed:
        _installed = True
        _loops.install()
        _listen()
        sqlite.listen_to_raw_connections(lambda: _gates[-1].resolver if _gates else None)
    return _gates[-1]


def close(gate: Gate) -> bool:
    """The run of this gate is over. Returns whether it was inside another run, which goes on.

    The outermost gate stays: its resolver refuses everything until the process ends.
    """
    inside = len(_gates) > 1
    if inside:
        _gates.remove(gate)
    return inside


def _listen() -> None:
    event.listen(Engine, "do_connect", _on_connecting)
    event.listen(Pool, "connect", _on_connected)
    event.listen(Pool, "checkout", _on_checked_out)
    event.listen(Pool, "checkin", _on_checked_in)
    event.listen(Pool, "detach", _on_checked_in)


def _on_connecting(dialect: Any, entry: Any, cargs: Any, cparams: Any) -> None:
    __tracebackhide__ = True
    _gates[-1].connecting(dialect, entry, cargs, cparams)


def _on_connected(dbapi_connection: Any, entry: Any) -> None:
    __tracebackhide__ = True
    _gates[-1].connected(dbapi_connection, entry)


def _on_checked_out(dbapi_connection: Any, entry: Any, _proxy: Any) -> None:
    __tracebackhide__ = True
    _gates[-1].checked_out(dbapi_connection, entry)


def _on_checked_in(_dbapi_connection: Any, entry: Any) -> None:
    _gates[-1].checked_in(entry)

"""What does the gate know of a connection in a pool, and of one that somebody has taken?"""

from __future__ import annotations

import os
import sqlite3
import weakref
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pytest_arena._dialects import _sqlite as sql

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.pool import ConnectionPoolEntry

    from pytest_arena._gate._base import Aim
    from pytest_arena._values import CodeLine

__all__ = ["INFO", "Checkout", "EntryInfo", "abandon", "product_of", "raw_of", "reference"]

INFO = "pytest_arena"  # where it stands in the dictionary ``info`` of a pool's entry


@dataclass(slots=True)
class EntryInfo:
    """What is known of one pooled connection. ``aim`` is None where it goes its own way."""

    aim: Aim | None
    reference: Callable[[], sqlite3.Connection | None] | None = None  # SQLite's own connection
    session: tuple[Any, ...] | None = None
    stale: bool = False
    used: bool = False
    process: int = field(default_factory=os.getpid)

    @property
    def raw(self) -> sqlite3.Connection | None:
        """SQLite's own connection, None for another product's, or where it is gone."""
        return self.reference() if self.reference is not None else None

    def aims(self) -> tuple[Aim, ...]:
        """Where the connection lands, and the files that it has attached."""
        attached: tuple[Aim, ...] = getattr(self.raw, "arena_aims", ())
        return (self.aim, *attached) if self.aim else attached

    def is_of(self, dbapi_connection: Any) -> bool:
        """Whether this is the very connection whose file the guard has looked at.

        An app's own do_connect listener runs after the gate's, and may return another one.
        """
        raw = self.raw
        return raw is not None and raw is raw_of(dbapi_connection)

    def begin_use(self) -> None:
        """Somebody takes the connection: the first one finds it as it looks when it is new."""
        self.used = True
        raw = self.raw
        if self.session is None and raw is not None and self.aim is not None:
            self.session = _described(raw)

    def end_use(self) -> None:
        """Between tests, while it is idle: it is stale where it does not look as it did."""
        raw = self.raw
        if raw is not None and self.aim and self.used:
            # One that cannot be asked (it belongs to another thread) is dropped as well.
            now = _described(raw)
            self.stale = self.stale or now is None or now != self.session
            self.used = False


@dataclass(frozen=True, slots=True)
class Checkout:
    """A connection that somebody has taken from a pool and not given back."""

    entry: ConnectionPoolEntry
    raw: sqlite3.Connection | None
    line: CodeLine | None
    serial: int  # of the level in which it was taken

    @property
    def in_transaction(self) -> bool:
        """Whether it has begun to write and has neither committed nor rolled back."""
        try:
            return self.raw is not None and self.raw.in_transaction
        except sqlite3.Error:
            return False  # closed by hand


def raw_of(dbapi_connection: Any) -> sqlite3.Connection | None:
    """Return SQLite's own connection behind a driver's, None for another product's."""
    for found in (dbapi_connection, _driver_connection(dbapi_connection)):
        if isinstance(found, sqlite3.Connection):
            return _unwrapped(found)
    return None


def _unwrapped(connection: Any) -> sqlite3.Connection | None:
    # A tracer's proxy says that it is of its connection's class, which SQLite's own functions
    # do not believe.
    while not issubclass(type(connection), sqlite3.Connection):
        connection = getattr(connection, "__wrapped__", None)
        if connection is None:
            return None
    return connection  # type: ignore[no-any-return]  # issubclass tells mypy nothing


def reference(raw: sqlite3.Connection) -> Callable[[], sqlite3.Connection | None]:
    """Return a weak reference, where the connection's class can have one."""
    try:
        return weakref.ref(raw)
    except TypeError:  # sqlite3's own class has no weak references, only subclasses have
        return lambda: raw


def product_of(dbapi_connection: Any) -> str:
    """Return as much of a database's name as a live connection of another product tells."""
    connection = getattr(dbapi_connection, "driver_connection", dbapi_connection)
    return f"{type(connection).__module__.partition('.')[0]}://(unknown)"


def _driver_connection(dbapi_connection: Any) -> Any:
    adapted = getattr(dbapi_connection, "driver_connection", None)
    return getattr(adapted, "_connection", None)  # aiosqlite's, the only adapted SQLite driver


def _described(raw: sqlite3.Connection) -> tuple[Any, ...] | None:
    try:
        return sql.describe_session(raw)
    except sqlite3.Error:
        return None  # closed meanwhile, in use, or bound to another thread


# What a fork left to the child: SQLite forbids to use it there, and to close it as well.
_abandoned: list[Any] = []


def abandon(entry: Any) -> None:
    """Take a connection out of its entry, and keep it from ever being closed."""
    _abandoned.append(entry.dbapi_connection)
    entry.dbapi_connection = None

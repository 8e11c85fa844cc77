"""SQLite: the connection behind a driver's, and what it carries from test to test."""

from __future__ import annotations

import sqlite3
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_arena._sqlite import _sql as sql

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_arena._product import Aim

__all__ = ["SQLiteHandle", "raw_of"]


@dataclass(frozen=True, slots=True)
class SQLiteHandle:
    """Python's own connection to SQLite, sync or in a thread of aiosqlite's."""

    reference: Callable[[], sqlite3.Connection | None]
    reads_statements: bool = False

    @classmethod
    def to(cls, raw: sqlite3.Connection) -> SQLiteHandle:
        """Return a handle that does not keep the connection, where its class allows that."""
        try:
            return cls(weakref.ref(raw))
        except TypeError:  # sqlite3's own class has no weak references, only subclasses have
            return cls(lambda: raw)

    def is_of(self, dbapi_connection: Any) -> bool:
        """Whether this is the very connection."""
        raw = self.reference()
        return raw is not None and raw is raw_of(dbapi_connection)

    @property
    def in_transaction(self) -> bool:
        """Whether it has begun to write; a SELECT begins nothing."""
        raw = self.reference()
        try:
            return raw is not None and raw.in_transaction
        except sqlite3.Error:
            return False  # closed by hand

    @property
    def is_begun(self) -> bool:
        """As ``in_transaction``: nobody has to be asked."""
        return self.in_transaction

    def changes(self) -> int:
        """What SQLite counts, what triggers have changed included."""
        raw = self.reference()
        try:
            return raw.total_changes if raw is not None else 0
        except sqlite3.Error:
            return 0  # closed by hand

    def has_written(self, dbapi_connection: Any, since: int) -> bool:  # noqa: ARG002 - its own count tells
        """Whether it has counted changes since."""
        return self.changes() != since

    def interrupt(self) -> None:
        """End its statement."""
        if (raw := self.reference()) is not None:
            _quietly(raw.interrupt)

    def roll_back(self) -> None:
        """End its transaction. One that is bound to a thread keeps its lock, which is seen then."""
        if (raw := self.reference()) is not None:
            _quietly(raw.interrupt, raw.rollback)

    def attached(self) -> tuple[Aim, ...]:
        """The files that it has attached."""
        return getattr(self.reference(), "arena_aims", ())

    def executing(self, statement: str) -> None:
        """Its own cursors look at statements."""

    def returned(self) -> None:
        """It belongs to a thread, or to nobody."""

    def session(self) -> object:
        """Its settings and temporary tables."""
        raw = self.reference()
        try:
            return sql.describe_session(raw) if raw is not None else None
        except sqlite3.Error:
            return None  # closed meanwhile, in use, or bound to another thread


def _quietly(*steps: Callable[[], object]) -> None:
    try:
        for step in steps:
            step()
    except sqlite3.Error:
        return  # closed meanwhile, or bound to a thread of its own


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


def _driver_connection(dbapi_connection: Any) -> Any:
    adapted = getattr(dbapi_connection, "driver_connection", None)
    return getattr(adapted, "_connection", None)  # aiosqlite's, the only adapted SQLite driver

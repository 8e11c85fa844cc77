"""Replaces the file in a connect call, and describes open connections."""

from __future__ import annotations

import os
import re
import sqlite3
import weakref
from contextlib import suppress
from dataclasses import dataclass
from functools import wraps
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeVar

from pytest_arena._interpreter import when_imported
from pytest_arena._product import (
    ConnectTarget,
    Core,
    Handle,
    OpenConnection,
    Product,
    RequestedDatabase,
)
from pytest_arena._product._statements import Words
from pytest_arena._sqlite import _messages as messages
from pytest_arena._sqlite import _sql as sql
from pytest_arena._sqlite._guard import is_outside, watch_connections

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.engine import Dialect

    from pytest_arena._config._read import Config

_Answer = TypeVar("_Answer")
_in_transaction = attrgetter("in_transaction")


# A restore may change the schema, and an idle connection still knows the schema of DDL.
WORDS = Words(
    re.compile(
        r"""(?ix) (?:\A|;) \s* (?: ATTACH | DETACH | CREATE | ALTER | DROP
            | PRAGMA \s+ (?:\w+\.)? (?! \w*_(?:list|x?info|check)\b ) \w+ \s* [=(] )"""
    )
)


@dataclass(frozen=True, slots=True)
class SQLiteHandle(Handle):
    """A connection of ``sqlite3``, sync or in a thread of aiosqlite."""

    reference: Callable[[], sqlite3.Connection | None]
    words = WORDS

    @classmethod
    def to(cls, raw: sqlite3.Connection) -> SQLiteHandle:
        """Return a handle, with a weak reference if the connection's class allows that."""
        try:
            return cls(weakref.ref(raw))
        except TypeError:  # only subclasses of sqlite3's class have weak references
            return cls(lambda: raw)

    def is_of(self, dbapi_connection: object) -> bool:
        """Return whether this is the same connection."""
        raw = self.reference()
        if raw is None:
            return False
        return raw is dbapi_connection or raw is raw_of(dbapi_connection)

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction has begun to write. A SELECT begins no transaction."""
        return self._call(_in_transaction, otherwise=False)

    is_begun = in_transaction

    def interrupt(self) -> None:
        """Interrupt the running statement, from another thread."""
        raw = self.reference()
        with suppress(sqlite3.Error):  # another thread has closed the connection
            if raw is not None:
                raw.interrupt()

    def roll_back(self) -> None:
        """End the transaction. If the connection is bound to another thread, it keeps its lock."""
        self._call(sqlite3.Connection.rollback, otherwise=None)

    def end(self) -> None:
        """Close the connection. If it is bound to another thread, it ends with that thread."""
        self._call(sqlite3.Connection.close, otherwise=None)

    def _call(
        self, function: Callable[[sqlite3.Connection], _Answer], otherwise: _Answer
    ) -> _Answer:
        """Call a function with the connection. Return ``otherwise`` if the connection is closed."""
        raw = self.reference()
        if raw is None:
            return otherwise
        try:
            return function(raw)
        except sqlite3.Error:  # closed, or bound to another thread
            return otherwise


def raw_of(dbapi_connection: object) -> sqlite3.Connection | None:
    """Return the ``sqlite3`` connection inside a driver's connection, None for another product."""
    adapted = getattr(dbapi_connection, "driver_connection", None)
    of_aiosqlite = getattr(adapted, "_connection", None)
    for connection in (dbapi_connection, of_aiosqlite):
        if isinstance(connection, sqlite3.Connection):
            return connection
    return None


class SQLiteConnections:
    """Connections of ``sqlite3`` and of aiosqlite."""

    def open_product(self, core: Core, config: Config) -> Product:
        """Return the product of a run. An import of the driver does not import it."""
        from pytest_arena._sqlite._product import (  # noqa: PLC0415 - as said
            SQLite,
        )

        return SQLite(core, config)

    def describe(
        self, dialect: Dialect, cargs: object, cparams: object
    ) -> RequestedDatabase:
        """Return the file, or the memory database, of a connect call."""
        database, uri = _database(cargs, cparams)
        found = sql.requested(database, uri=uri)
        return RequestedDatabase(dialect, "sqlite", found.file, found.memory)

    def redirect(
        self,
        core: Core,
        dialect: Dialect,
        target: ConnectTarget | None,
        cargs: list[object],
        cparams: dict[str, object],
    ) -> Callable[[object], OpenConnection | None]:
        """Replace the file's name."""
        database, uri = _database(cargs, cparams)
        is_memory = not sql.requested(database, uri=uri).file
        if dialect.is_async:
            # aiosqlite has a thread for each connection, but the test's thread reads the
            # connection's settings after the test.
            cparams["check_same_thread"] = False
        if target is None:
            return _unknown
        cparams.pop("database", None)
        # Python's default is 5 seconds.
        cparams.setdefault("timeout", core.config.lock_timeout or 5.0)
        # `uri` stays, because the app may attach a URI.
        cargs[:1] = [sql.renamed(database, target.file, uri=uri)]

        def opened(dbapi_connection: object) -> OpenConnection | None:
            raw = raw_of(dbapi_connection)
            # A do_connect listener of the app may have returned or opened another connection.
            if raw is None or sql.main_file(raw) != target.file:
                return None
            if is_memory:
                sql.be_as_in_memory(raw)
            return OpenConnection(target, SQLiteHandle.to(raw))

        return opened

    def recognize(self, core: Core, dbapi_connection: object) -> OpenConnection | None:
        """Describe a connection by the file that SQLite has open."""
        __tracebackhide__ = True
        raw = raw_of(dbapi_connection)
        if raw is None:
            return None
        file = sql.main_file(dbapi_connection)
        if is_outside(core, file):
            of_app = core.files.belongs_to_app(file)
            raise core.ledger.refused(messages.unknown_file(file, of_app=of_app))
        if not file:
            core.ledger.note(messages.kept_memory())
        return OpenConnection(
            core.target_at(file) if file else None, SQLiteHandle.to(raw)
        )

    def watch(self, core: Callable[[], Core | None]) -> None:
        """Watch each connection, and the calls to aiosqlite's threads."""
        watch_connections(core)
        when_imported("aiosqlite.core", _stop_only_once)

    def end_raw(self, serial: int | None) -> None:
        """Do nothing: raw connections can stay open while the file is restored."""

    def raw_transactions(self) -> list[str]:
        """Return no lines: the transactions of raw connections are not recorded."""
        return []


def _unknown(_dbapi_connection: object) -> None:
    """Return None: the gate recognizes the connection by its file."""


def _database(cargs: Any, cparams: Any) -> tuple[str, bool]:
    database = cparams.get("database", "")
    if cargs:
        database = cargs[0]
    return os.fsdecode(database), bool(cparams.get("uri"))


def _stop_only_once(module: Any) -> None:
    """Make aiosqlite's ``stop`` stop its thread only once.

    SQLAlchemy stops a cancelled connection while a task closes it. After the first stop the thread
    has ended, so the task would wait forever for an answer to the second.
    """
    original = getattr(module.Connection, "stop", None)
    if original is None or hasattr(original, "__wrapped__"):  # it is new in 0.22.1
        return

    @wraps(original)
    def stop(self: Any) -> Any:
        if not hasattr(self, "arena_stopped"):
            self.arena_stopped = original(self)
        return self.arena_stopped

    module.Connection.stop = stop


connections = SQLiteConnections()

"""Replaces the file in a connect call, describes open connections, and refuses other files."""

from __future__ import annotations

import inspect
import os
import re
import sqlite3
import sqlite3.dbapi2
import weakref
from contextlib import suppress
from dataclasses import dataclass
from functools import partial, wraps
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from pytest_arena._interpreter import on_audit_events, patch
from pytest_arena._owner import cause_of_connection
from pytest_arena._product import (
    ConnectTarget,
    Core,
    Handle,
    OpenConnection,
    Opener,
    RequestedDatabase,
)
from pytest_arena._product._statements import Reach, Words, classify
from pytest_arena._sqlite import _sql as sql

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sqlalchemy.engine import Dialect

    from pytest_arena._owner import Owner
    from pytest_arena._process import Answer

    CurrentCore = Callable[[], Core | None]

__tracebackhide__ = True  # a traceback ends at a line of the app or of the test

_in_transaction = attrgetter("in_transaction")
_total_changes = attrgetter("total_changes")


# A restore may change the schema, and an idle connection still knows the schema of DDL.
WORDS = Words(
    re.compile(
        r"""(?ix) (?:\A|;) \s* (?: ATTACH | DETACH | CREATE | ALTER | DROP
            | PRAGMA \s+ (?:\w+\.)? (?! \w*_(?:list|x?info|check)\b ) \w+ \s* [=(] )"""
    )
)


@dataclass(eq=False, slots=True)
class SQLiteHandle(Handle):
    """A connection of ``sqlite3``, sync or in a thread of aiosqlite."""

    reference: Callable[[], sqlite3.Connection | None]
    words = WORDS
    changes: int | None = 0  # the rows that the connection has written

    @property
    def has_uncommitted_writes(self) -> bool:
        """Whether a transaction has begun to write. A SELECT begins no transaction."""
        return bool(self._call(_in_transaction))

    is_begun = has_uncommitted_writes

    def has_changed_rows(self, cursor: object) -> bool:
        """Return whether the last statement has written a row. A cursor counts no rows to fetch."""
        del cursor
        before = self.changes
        self.changes = self._call(_total_changes)
        return self.changes is None or self.changes != before

    def would_wait(self, statement: str, sent: Iterable[tuple[Handle | None, str]]) -> bool:
        """Return whether a write or a commit would wait for a transaction of another connection.

        A write waits for a transaction that has written, and a commit also for one that has read.
        While it waits, SQLite blocks. So it must not begin.
        """
        is_commit = statement == "COMMIT" and self.has_uncommitted_writes
        if not (is_commit or _writes(statement)):
            return False
        rivals: set[Handle] = set()
        for handle, text in sent:
            if handle is None or handle is self:
                continue
            if _writes(text) or (is_commit and text.startswith("SELECT")):
                rivals.add(handle)
            elif text in {"COMMIT", "ROLLBACK"}:
                rivals.discard(handle)
        return any(rival.has_uncommitted_writes for rival in rivals)

    def interrupt(self) -> None:
        """Interrupt the running statement, from another thread."""
        self._call(sqlite3.Connection.interrupt)

    def roll_back(self) -> None:
        """End the transaction. If the connection is bound to another thread, it keeps its lock."""
        self._call(sqlite3.Connection.rollback)

    def _call(self, function: Callable[[sqlite3.Connection], Answer]) -> Answer | None:
        """Call a function with the connection, unless it is closed or bound to another thread."""
        raw = self.reference()
        if raw is not None:
            with suppress(sqlite3.Error):
                return function(raw)
        return None


def _writes(statement: str) -> bool:
    """Return whether a statement takes the lock of the file."""
    begins = statement.upper().startswith(("BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"))
    return begins or classify(statement, WORDS).reach is not Reach.NOTHING


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

    def describe(self, dialect: Dialect, cargs: object, cparams: object) -> RequestedDatabase:
        """Return the file, or the memory database, of a connect call."""
        found = _requested(cargs, cparams)
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
        is_memory = not _requested(cargs, cparams).file
        if dialect.is_async:
            # aiosqlite has a thread for each connection, but the test's thread reads the
            # connection's settings after the test.
            cparams["check_same_thread"] = False
        if target is None:
            return lambda _connection: None  # the gate recognizes it by its file
        cparams.pop("database", None)
        # Python's default is 5 seconds.
        cparams.setdefault("timeout", core.config.lock_timeout or 5.0)
        cargs[:1] = [target.file]

        def opened(dbapi_connection: object) -> OpenConnection | None:
            raw = raw_of(dbapi_connection)
            # A do_connect listener of the app may have returned or opened another connection.
            if raw is None or sql.main_file(raw) != target.file:
                return None
            if is_memory:
                sql.be_as_in_memory(raw)
            return OpenConnection(target, SQLiteHandle(weakref.ref(raw)))

        return opened

    def recognize(self, core: Core, dbapi_connection: object) -> OpenConnection | None:
        """Describe a connection by the file that SQLite has open."""
        raw = raw_of(dbapi_connection)
        if raw is None:
            return None
        file = sql.main_file(dbapi_connection)
        if not file:
            core.ledger.note(
                "a creator= opens a memory database, which pytest-arena cannot restore after a "
                f"test. Give the engine a URL instead: {cause_of_connection()}"
            )
        return OpenConnection(core.admit(Opener.CREATOR, file), SQLiteHandle(weakref.ref(raw)))

    def watch(self, core: CurrentCore) -> None:
        """Watch each connection.

        An audit hook gets each file before SQLite opens it, and can refuse it. No code can remove
        the hook: https://docs.python.org/3/library/sys.html#sys.addaudithook. SQLite does not
        report which file a statement attaches, so ``sqlite3.connect`` sets the limit of attached
        files to 0.
        """
        on_audit_events({"sqlite3.connect": partial(_admit, core)})
        connect = sqlite3.connect

        @wraps(connect)
        def guarded(*args: Any, **kwargs: Any) -> object:
            if len(args) <= _BEFORE_FACTORY:
                kwargs.setdefault("factory", WeakConnection)
            connection = connect(*args, **kwargs)
            frame: Any = inspect.currentframe()
            is_of_coverage = str(frame.f_back.f_globals.get("__name__")).startswith("coverage.")
            # Coverage attaches its own files.
            if isinstance(connection, sqlite3.Connection) and not is_of_coverage:
                connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
            return connection

        for module in (sqlite3, sqlite3.dbapi2):
            patch(module, "connect", guarded)

    def end_raw(self, level: Owner) -> None:
        """Do nothing: raw connections can stay open while the file is restored."""


def _requested(cargs: Any, cparams: Any) -> sql.Requested:
    database = cparams.get("database", "")
    if cargs:
        database = cargs[0]
    return sql.requested(os.fsdecode(database), uri=bool(cparams.get("uri")))


connections = SQLiteConnections()


# Refused connections

_BEFORE_FACTORY = 5  # the number of sqlite3.connect's parameters before `factory`


def _admit(core: CurrentCore, database: object, *_: object) -> None:
    """Refuse a connection to a file of the app."""
    now = core()
    if now is None or not isinstance(database, str | bytes | os.PathLike):
        return  # SQLite raises its own error for another type
    name = os.fsdecode(database)
    now.admit(Opener.SQLITE3, sql.requested(name, uri=name.startswith("file:")).file)


class WeakConnection(sqlite3.Connection):
    """The connection that ``sqlite3.connect`` returns. It may have weak references."""

    def close(self) -> None:
        """Roll back and close. If a cursor still exists, SQLite alone would keep the locks."""
        with suppress(sqlite3.Error):
            self.rollback()
        super().close()

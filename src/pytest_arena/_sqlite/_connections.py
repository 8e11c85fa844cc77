"""Replaces the file in a connect call, and describes open connections."""

from __future__ import annotations

import os
import sqlite3
import threading
import weakref
from asyncio import CancelledError
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, partial, wraps
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeVar

from pytest_arena._interpreter import when_imported
from pytest_arena._origin import REQUEST
from pytest_arena._product import (
    ConnectTarget,
    Core,
    OpenConnection,
    Product,
    RequestedDatabase,
)
from pytest_arena._sqlite import _messages as messages
from pytest_arena._sqlite import _sql as sql
from pytest_arena._sqlite._guard import EngineFactory, watch_raw_connections
from pytest_arena._sqlite._guarded_connection import (
    is_outside,
    raw_transactions,
)
from pytest_arena._sqlite._spawned_files import SpawnedFiles
from pytest_arena.errors import LateWorkError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from sqlalchemy.engine import Connection, Dialect

    from pytest_arena._config._read import Config

_Answer = TypeVar("_Answer")
_PATIENCE = 1.0  # seconds to wait for a statement of the app
_total_changes = attrgetter("total_changes")
_in_transaction = attrgetter("in_transaction")


@dataclass(frozen=True, slots=True)
class SQLiteHandle:
    """A connection of ``sqlite3``, sync or in a thread of aiosqlite."""

    reference: Callable[[], sqlite3.Connection | None]
    reads_statements: bool = False

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
        """Whether a transaction has begun to write, or a statement does not end.

        A SELECT begins no transaction.
        """
        return self._call(_in_transaction, otherwise=False, busy=True)

    is_begun = in_transaction
    snapshot = None  # a SELECT begins no transaction

    def keeps_snapshot(self, dbapi_connection: object) -> bool:  # noqa: ARG002 - the seam's signature
        """Return False: a restore waits for the end of a transaction that reads."""
        return False

    def changes(self) -> int:
        """Return SQLite's count of changed rows, also of rows that triggers have changed."""
        return self._call(_total_changes, otherwise=0, busy=0)

    def has_written(self, dbapi_connection: object, since: int) -> bool:  # noqa: ARG002 - SQLite counts
        """Return whether rows were changed since the count ``since``."""
        return self.changes() != since

    def interrupt(self) -> None:
        """Interrupt the running statement, from another thread."""
        raw = self.reference()
        with suppress(sqlite3.Error):  # another thread has closed the connection
            if raw is not None:
                raw.interrupt()

    @contextmanager
    def alone(self, seconds: float = 0) -> Iterator[bool]:
        """Hold the connection's lock, which each call of the app holds, in any thread."""
        turn = _turn_of(self.reference())
        is_alone = turn.acquire(timeout=seconds)
        try:
            yield is_alone
        finally:
            if is_alone:
                turn.release()

    def roll_back(self) -> None:
        """End the transaction. If the connection is bound to another thread, it keeps its lock."""
        self._call(sqlite3.Connection.rollback, otherwise=None, busy=None)

    def end(self) -> None:
        """Close the connection. If it is bound to another thread, it ends with that thread."""
        self._call(sqlite3.Connection.close, otherwise=None, busy=None)

    def note_checkout(self, *, is_first: bool) -> int:  # noqa: ARG002 - the seam's signature
        """Return the count of changed rows."""
        return self.changes()

    def before_execute(self, statement: str, connection: Connection) -> str:  # noqa: ARG002 - the seam's signature
        """Return the statement unchanged. Guarded cursors read it later."""
        return statement

    def note_checkin(self) -> None:
        """Do nothing: SQLite keeps no state for checkouts."""

    @property
    def has_leftovers(self) -> bool:
        """Whether a `connect` listener has created a table, which it has to create again."""
        return getattr(self.reference(), "arena_has_made", False)

    def session(self, dbapi_connection: object) -> object:  # noqa: ARG002 - the seam's signature
        """Return the settings, temporary tables, attached files and the driver's state."""
        return self._call(sql.describe_session, otherwise=None, busy=None)

    def _call(
        self,
        function: Callable[[sqlite3.Connection], _Answer],
        *,
        otherwise: _Answer,
        busy: _Answer,
    ) -> _Answer:
        """Call a function with the connection, while no other thread uses it.

        Return ``busy`` if a statement does not end, and ``otherwise`` if the connection is closed.
        Without the lock, SQLite would wait for the statement while this thread holds the GIL. A
        statement that calls a function of the app needs the GIL to end.
        """
        raw = self.reference()
        if raw is None:
            return otherwise
        turn = _turn_of(raw)
        if not turn.acquire(timeout=_PATIENCE):  # half the cost of `alone`
            return busy
        try:
            return function(raw)
        except sqlite3.Error:  # closed, or bound to another thread
            return otherwise
        finally:
            turn.release()


def _turn_of(connection: sqlite3.Connection | None) -> threading.RLock:
    """Return the lock of a guarded connection, or a new lock for any other connection."""
    return getattr(connection, "arena_turn", None) or threading.RLock()


def raw_of(dbapi_connection: object) -> sqlite3.Connection | None:
    """Return the ``sqlite3`` connection inside a driver's connection, None for another product."""
    adapted = getattr(dbapi_connection, "driver_connection", None)
    of_aiosqlite = getattr(adapted, "_connection", None)
    for connection in (dbapi_connection, of_aiosqlite):
        if isinstance(connection, sqlite3.Connection):
            return _unwrapped(connection)
    return None


def _unwrapped(connection: sqlite3.Connection) -> sqlite3.Connection | None:
    """Return the connection behind a tracer's proxy, which has the same ``__class__``."""
    raw: sqlite3.Connection | None = connection
    while raw is not None and not issubclass(type(raw), sqlite3.Connection):
        raw = getattr(raw, "__wrapped__", None)
    return raw


class SQLiteConnections:
    """Connections of ``sqlite3`` and of aiosqlite."""

    def describe(
        self, dialect: Dialect, cargs: object, cparams: object
    ) -> RequestedDatabase:
        """Return the file, or the memory database, of a connect call."""
        database, uri = _database(cargs, cparams)
        file = sql.file_of(database, uri=uri)
        memory = sql.memory_of(database, uri=uri)
        return RequestedDatabase(dialect, "sqlite", file, memory)

    def session_arguments(
        self, dialect: Dialect, cargs: object, cparams: object
    ) -> dict[str, object]:
        """Return no arguments: a file has no sessions with settings."""
        del dialect, cargs, cparams
        return {}

    def redirect(
        self,
        core: Core,
        dialect: Dialect,
        target: ConnectTarget | None,
        cargs: list[object],
        cparams: dict[str, object],
    ) -> Callable[[object], OpenConnection | None]:
        """Replace the file's name, and set a factory that guards the statements."""
        handles: list[SQLiteHandle] = []
        database, uri = _database(cargs, cparams)
        is_memory = not sql.file_of(database, uri=uri)

        def made(connection: sqlite3.Connection) -> None:
            raw = raw_of(connection)
            if raw is not None:
                handles[:] = [SQLiteHandle.to(raw)]
                if target is not None and is_memory:
                    sql.be_as_in_memory(raw)

        def opened(dbapi_connection: object) -> OpenConnection | None:
            if not handles:
                return OpenConnection() if target is None else None
            handle = handles[0]
            # A do_connect listener of the app may have returned another connection.
            if target is not None and not handle.is_of(dbapi_connection):
                return None
            return OpenConnection(target, handle)

        base = cparams.get("factory", sqlite3.Connection)
        cparams["factory"] = EngineFactory(core, target, base, made)
        if target is not None:
            cparams.pop("database", None)
            # Python's default is 5 seconds.
            cparams.setdefault("timeout", core.config.lock_timeout or 5.0)
            # `uri` stays, because the app may attach a URI.
            cargs[:1] = [sql.renamed(database, target.file, uri=uri)]
        if dialect.is_async:
            # aiosqlite has a thread for each connection, but the test's thread reads the
            # connection's settings after the test.
            cparams["check_same_thread"] = False
        return opened

    def recognize(self, core: Core, dbapi_connection: object) -> OpenConnection | None:
        """Describe a connection by the file that SQLite has open."""
        __tracebackhide__ = True
        raw = raw_of(dbapi_connection)
        if raw is None:
            return None
        file = sql.main_file(dbapi_connection)
        if is_outside(core, file):
            raise core.ledger.refused(messages.unknown_file(file))
        if not file:
            core.ledger.note(messages.kept_memory())
        return OpenConnection(
            core.target_at(file) if file else None, SQLiteHandle.to(raw)
        )

    def watch(self, core: Callable[[], Core | None]) -> None:
        """Watch each ``sqlite3.connect``, and the calls to aiosqlite's threads."""
        watch_raw_connections(core)
        _watch_aiosqlite(core)

    def end_raw(self, core: Core, serial: int | None) -> list[str]:
        """Do nothing: raw connections can stay open while the file is restored."""
        del core, serial
        return []

    def raw_transactions(self) -> list[str]:
        """Return the lines that began the open transactions of raw connections."""
        return raw_transactions()

    def owns(self, name: str) -> bool:
        """Return False: SQLite has no server."""
        del name
        return False

    def explain(self, error: BaseException, ended: Sequence[str]) -> str:
        """Return "": pytest-arena ends no connection of SQLite."""
        del error, ended
        return ""

    def in_spawned(
        self, core: Core, engines: Sequence[RequestedDatabase]
    ) -> SpawnedFiles | None:
        """Return the test's files, by the real paths of the app's files."""
        del engines
        files = {}
        for database in core.provisioned():
            if database.file and database.key.kind == "file":
                files[database.key.name] = database.file
        return SpawnedFiles(files) if files else None


def _database(cargs: Any, cparams: Any) -> tuple[str, bool]:
    database = cparams.get("database", "")
    if cargs:
        database = cargs[0]
    return os.fsdecode(database), bool(cparams.get("uri"))


# The seconds that a cancelled connection waits until its thread has opened a file.
_THREAD_SECONDS = 1.0


# Methods by which aiosqlite's thread sends a statement, also for its `execute_insert` and
# `execute_fetchall`.
@cache
def _watch_aiosqlite(core: Callable[[], Core | None]) -> None:
    when_imported("aiosqlite.core", partial(_guard_aiosqlite, core))


def _guard_aiosqlite(core: Callable[[], Core | None], module: Any) -> None:
    """Refuse late work before aiosqlite's thread does it. The thread does not know the caller."""
    for name, make in (
        ("_execute", _executing),
        ("_connect", partial(_connecting, core)),
        ("stop", _stopping),
    ):
        # `_execute` and `_connect` are private. Each call of a connection uses one of them.
        original = getattr(module.Connection, name, None)
        if original is not None:  # `stop` is new in 0.22.1
            setattr(module.Connection, name, make(original))


def _stopping(original: Any) -> Any:
    """Return aiosqlite's ``stop``, which stops the thread only once.

    SQLAlchemy stops a cancelled connection while a task closes it. After the first stop the thread
    has ended, so the task would wait forever for an answer to the second.
    """

    @wraps(original)
    def stop(self: Any) -> Any:
        if not hasattr(self, "arena_stopped"):
            self.arena_stopped = original(self)
        return self.arena_stopped

    return stop


def _executing(original: Any) -> Any:
    # The function is not async, because each statement would need another coroutine.
    @wraps(original)
    def execute(connection: Any, function: Any, *args: object, **kwargs: object) -> Any:
        name = getattr(function, "__name__", "")
        raw = connection._connection  # noqa: SLF001 - `_conn` raises if it is not open
        if getattr(raw, "arena_notes_writes", False):
            raw.arena_serve_request(REQUEST.get())
            if name == "close":
                raw.arena_give_up()  # only this thread has the error that closes the connection
        return original(connection, function, *args, **kwargs)

    return execute


def _connecting(core: Callable[[], Core | None], original: Any) -> Any:
    @wraps(original)
    def connect(connection: Any) -> Any:
        now = core()
        if now is not None:
            try:
                now.refuse_late()
            except LateWorkError:
                connection.stop()  # ends the connection's thread
                raise
        return _finishing(connection, original(connection))

    return connect


async def _finishing(connection: Any, connecting: Awaitable[object]) -> object:
    """Wait until aiosqlite has connected. If the task is cancelled, wait for the thread's end."""
    try:
        return await connecting
    except CancelledError:
        # The thread calls this loop, which may be closed soon.
        connection._thread.join(_THREAD_SECONDS)  # noqa: SLF001 - no public name
        raise


connections = SQLiteConnections()


def open_product(core: Core, config: Config) -> Product:
    """Return the product of a run. Its import is here, because watching does not need it."""
    from pytest_arena._sqlite._product import SQLite  # noqa: PLC0415 - as said

    return SQLite(core, config)

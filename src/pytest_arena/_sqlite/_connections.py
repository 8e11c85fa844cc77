"""Which file does a connect call mean, how is another put there, and what is open?"""

from __future__ import annotations

import os
import sqlite3
import threading
import weakref
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeVar

from pytest_arena._product import Aim, Asked, Core, Live, Product
from pytest_arena._sqlite import _messages as messages
from pytest_arena._sqlite import _sql as sql
from pytest_arena._sqlite._guard import EngineFactory, watch_raw_connections
from pytest_arena._sqlite._guarded_connection import is_outside
from pytest_arena._sqlite._spawned_files import SpawnedFiles

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from sqlalchemy.engine import Connection, Dialect

    from pytest_arena._config._read import Config

_Answer = TypeVar("_Answer")
_PATIENCE = 1.0  # seconds for a statement that is not ours
_total_changes = attrgetter("total_changes")


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
        except (
            TypeError
        ):  # sqlite3's own class has no weak references, only subclasses have
            return cls(lambda: raw)

    def is_of(self, dbapi_connection: Any) -> bool:
        """Whether this is the very connection."""
        raw = self.reference()
        return raw is not None and (
            raw is dbapi_connection or raw is raw_of(dbapi_connection)
        )

    @property
    def in_transaction(self) -> bool:
        """Whether it has begun to write, or a statement does not end; a SELECT begins nothing."""
        return self._asked(lambda raw: raw.in_transaction, otherwise=False, inside=True)

    is_begun = in_transaction  # nobody has to be asked

    def changes(self) -> int:
        """What SQLite counts, what triggers have changed included."""
        return self._asked(_total_changes, otherwise=0, inside=0)

    def has_written(self, dbapi_connection: Any, since: int) -> bool:  # noqa: ARG002 - its own count tells
        """Whether it has counted changes since."""
        return self.changes() != since

    def interrupt(self) -> None:
        """End its statement, from outside."""
        raw = self.reference()
        with suppress(sqlite3.Error):  # closed meanwhile
            if raw is not None:
                raw.interrupt()

    @contextmanager
    def alone(self, seconds: float = 0) -> Iterator[bool]:
        """By the lock that is around each call of the app's, in whichever thread."""
        turn = getattr(self.reference(), "arena_turn", None) or threading.RLock()
        is_alone = turn.acquire(timeout=seconds)
        try:
            yield is_alone
        finally:
            if is_alone:
                turn.release()

    def roll_back(self) -> None:
        """End its transaction. One that is bound to a thread keeps its lock, which is seen then."""
        self._asked(sqlite3.Connection.rollback, otherwise=None, inside=None)

    def end(self) -> None:
        """Close it. One that is bound to another thread ends with that."""
        self._asked(sqlite3.Connection.close, otherwise=None, inside=None)

    def attached(self) -> tuple[Aim, ...]:
        """The files that it has attached."""
        return getattr(self.reference(), "arena_aims", ())

    def taken(self, *, is_first: bool) -> None:
        """Do nothing: the file itself says whether it was changed, by whichever connection."""

    def executing(self, statement: str, connection: Connection) -> str:  # noqa: ARG002 - the seam's signature
        """Return the statement as it is: the file's cursors look at statements."""
        return statement

    def returned(self) -> None:
        """It belongs to a thread, or to nobody."""

    def session(self) -> object:
        """Its settings and temporary tables."""
        return self._asked(sql.describe_session, otherwise=None, inside=None)

    def _asked(
        self,
        question: Callable[[sqlite3.Connection], _Answer],
        *,
        otherwise: _Answer,
        inside: _Answer,
    ) -> _Answer:
        """Ask when nobody is inside. Newer SQLite waits then, and Python does, with the GIL held.

        A function of the app's in the statement that is waited for needs the GIL to end.
        """
        raw = self.reference()
        turn = getattr(raw, "arena_turn", None) or threading.RLock()
        if not turn.acquire(timeout=_PATIENCE):  # as `alone`, at half its cost
            return inside
        try:
            return question(raw) if raw is not None else otherwise
        except sqlite3.Error:  # closed meanwhile, or bound to a thread of its own
            return otherwise
        finally:
            turn.release()


def raw_of(dbapi_connection: Any) -> sqlite3.Connection | None:
    """Return SQLite's own connection behind a driver's, None for another product's."""
    adapted = getattr(dbapi_connection, "driver_connection", None)
    behind = getattr(
        adapted, "_connection", None
    )  # aiosqlite's, the only adapted SQLite driver
    for connection in (dbapi_connection, behind):
        if isinstance(connection, sqlite3.Connection):
            own: sqlite3.Connection | None = connection
            # A tracer's proxy says that it is of its connection's class, which SQLite's own
            # functions do not believe.
            while own is not None and not issubclass(type(own), sqlite3.Connection):
                own = getattr(own, "__wrapped__", None)
            return own
    return None


class SQLiteConnections:
    """Connections of ``sqlite3``, and those in aiosqlite's threads."""

    def describe(self, dialect: Dialect, cargs: Any, cparams: Any) -> Asked:
        """The file, or the memory database."""
        database, uri = _database(cargs, cparams)
        file, memory = sql.file_of(database, uri=uri), sql.memory_of(database, uri=uri)
        return Asked(dialect, "sqlite", file, memory)

    def lead(
        self,
        core: Core,
        dialect: Dialect,
        aim: Aim | None,
        cargs: list[Any],
        cparams: dict[str, Any],
    ) -> Callable[[Any], Live | None]:
        """By the file's name, and by a factory that looks at the statements."""
        handles: list[SQLiteHandle] = []
        database, uri = _database(cargs, cparams)
        prepare = (
            sql.leave_wal_alone
            if sql.file_of(database, uri=uri)
            else sql.be_as_in_memory
        )

        def made(connection: sqlite3.Connection) -> None:
            raw = raw_of(connection)
            if raw is not None:
                handles[:] = [SQLiteHandle.to(raw)]
                if aim is not None:
                    prepare(raw)

        def opened(dbapi_connection: Any) -> Live | None:
            handle = handles[0] if handles else None
            if aim is not None and (
                handle is None or not handle.is_of(dbapi_connection)
            ):
                return None
            return Live(aim, handle)

        base = cparams.get("factory", sqlite3.Connection)
        cparams["factory"] = EngineFactory(core, aim, base, made)
        if aim is not None:
            cparams.pop("database", None)
            cparams.setdefault(
                "timeout", core.config.lock_timeout or 5.0
            )  # Python's own
            # uri stays: the app may attach by URI
            cargs[:1] = [sql.renamed(database, aim.file, uri=uri)]
        if dialect.is_async:
            # aiosqlite has one thread for each connection, and nobody else works on it; so that
            # the settling thread may ask what the connection looks like.
            cparams["check_same_thread"] = False
        return opened

    def recognize(self, core: Core, dbapi_connection: Any) -> Live | None:
        """By the file that SQLite says is open."""
        __tracebackhide__ = True
        raw = raw_of(dbapi_connection)
        if raw is None:
            return None
        file = sql.main_file(dbapi_connection)
        if is_outside(core, file):
            raise core.ledger.refused(messages.unknown_file(file))
        if not file:
            core.ledger.note(messages.kept_memory())
        return Live(core.aim_at(file) if file else None, SQLiteHandle.to(raw))

    def watch(self, core: Callable[[], Core | None]) -> None:
        """Each ``sqlite3.connect``."""
        watch_raw_connections(core)

    def end_raw(self, core: Core, serial: int) -> None:
        """They hold nothing that the next test would meet: the file is put back under them."""

    def owns(self, database: str) -> bool:
        """SQLite has no server."""
        del database
        return False

    def named_by_client(
        self, program: str, words: Sequence[str], variables: Mapping[str, str]
    ) -> tuple[str, ...]:
        """SQLite's programs have a path among their arguments, as any program may have."""
        del program, words, variables
        return ()

    def in_spawned(self, core: Core, engines: Sequence[Asked]) -> SpawnedFiles | None:
        """By the real paths of the app's files."""
        del engines
        files: dict[str, str] = {}
        for database in core.provisioned():
            if database.file and database.key.kind == "file":
                files[database.key.name] = database.file
        return SpawnedFiles(files) if files else None


def _database(cargs: Any, cparams: Any) -> tuple[str, bool]:
    database = cargs[0] if cargs else cparams.get("database", "")
    return os.fsdecode(database), bool(cparams.get("uri"))


connections = SQLiteConnections()


def open_product(core: Core, config: Config) -> Product:
    """Return the product of a run. A connection that is only watched does not pay for it."""
    from pytest_arena._sqlite._product import SQLite  # noqa: PLC0415 - as said

    return SQLite(core, config)

"""What SQLite is told and asked: names of files, connections of our own, the app's sessions."""

from __future__ import annotations

import errno
import os
import re
import sqlite3
from contextlib import closing, contextmanager, suppress
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, unquote

from pytest_arena.errors import causes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MEMORY = ":memory:"
# SQLITE_PROTOCOL: connections that open a log at the same time have had no luck with its locks.
_LOCKS = frozenset(
    {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL}
)
_FULL = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE})
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})


def file_of(database: str, *, uri: bool = True) -> str:
    """Return the absolute file that a ``database`` argument means; "" for a memory database."""
    path, query = _split(database, uri=uri)
    if path in {"", MEMORY} or _is_memory(query):
        return ""
    return _absolute(path) or str(Path(path).absolute())


@lru_cache
def _absolute(path: str) -> str:
    """Return a path as it is spelled everywhere; "" where the working folder is a part of it."""
    return str(Path(path)) if Path(path).is_absolute() else ""


def memory_of(database: str, *, uri: bool) -> str:
    """Return the name of a memory database that several connections share; "" for any other."""
    path, query = _split(database, uri=uri)
    shared = query.get("cache") == "shared" or query.get("vfs") == "memdb"
    return path if _is_memory(query) and shared else ""


def is_read_only(database: str, *, uri: bool) -> bool:
    """Whether a ``database`` argument asks for a connection that cannot write."""
    _, query = _split(database, uri=uri)
    return query.get("mode") == "ro" or query.get("immutable") == "1"


def renamed(database: str, file: str, *, uri: bool) -> str:
    """Return another file's name, in the form and with the rights of a ``database`` argument."""
    if not uri:
        return file
    mode = "?mode=ro" if is_read_only(database, uri=uri) else ""
    return f"file:{quote(file)}{mode}"


def _is_memory(query: Mapping[str, str]) -> bool:
    return query.get("mode") == "memory" or query.get("vfs") == "memdb"


@lru_cache
def _split(database: str, *, uri: bool) -> tuple[str, Mapping[str, str]]:
    """Return the path and the parameters of a ``file:`` URI: https://sqlite.org/uri.html."""
    if not uri or not database.startswith("file:"):
        return database, {}
    path, _, query = database.removeprefix("file:").partition("#")[0].partition("?")
    path = re.sub(r"^//(localhost)?(?=/)", "", path)
    # A zero byte ends the path for SQLite, and is no path at all for Python.
    return unquote(path).partition("\0")[0], dict(parse_qsl(query))


@contextmanager
def whole_or_none(file: Path) -> Iterator[Path]:
    """Write a file; where that fails, what was written does not stay on a disk that is full."""
    try:
        yield file
    except BaseException:
        file.unlink(missing_ok=True)
        raise


def identity(file: Path) -> tuple[int, int] | None:
    """Which file is at a path now, None for no file. Costs a microsecond or two."""
    try:
        status = os.stat(file)  # noqa: PTH116 - asked at each boundary: a third of Path's time
    except OSError:
        return None
    return status.st_dev, status.st_ino


def remove_file(live: Path) -> None:
    """Remove a database file, and what SQLite keeps beside it."""
    for ending in ("", "-wal", "-shm", "-journal"):
        with suppress(FileNotFoundError):
            os.unlink(f"{live}{ending}")  # noqa: PTH108 - a path of each would cost as much again


class Busy(Exception):
    """Another connection holds a lock on the file."""


class FileFailure(Exception):
    """SQLite cannot read or write the file: a full disk, a file that was deleted or is none."""


class OwnConnection(sqlite3.Connection):
    """A connection that arena opens for itself, so that the guard can tell it from anybody's.

    It is made from this class: ``sqlite3.connect`` may be a test's mock, or a tracer's.
    """

    def execute(self, statement: str, parameters: Any = (), /) -> sqlite3.Cursor:
        """As ``sqlite3.Connection.execute``.

        Raises:
            Busy: somebody's lock is in the way, which is not waited for.
            FileFailure: anything else.
        """
        try:
            return super().execute(statement, parameters)
        except sqlite3.DatabaseError as error:
            raise lock_or_failure(error) from error

    def number(self, statement: str) -> int:
        """Return the one number that a statement asks for. Raises as ``execute``."""
        number: int = self.execute(statement).fetchone()[0]
        return number

    def data_version(self) -> int:
        """Return a number that moves whenever *another* connection, of any process, has committed.

        Costs 2-5 µs. Own writes do not move it. https://sqlite.org/pragma.html#pragma_data_version

        Raises:
            Busy: a writer is in the middle of a commit.
        """
        version: int = self.execute("PRAGMA data_version").fetchone()[0]
        return version

    def schema_version(self) -> int:
        """Return the number by which a connection knows that its picture of the schema still holds.

        Raises:
            Busy: a writer is in the middle of a commit.
        """
        return self.number("PRAGMA schema_version") & 0xFFFFFFFF

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Keep the write lock: meanwhile no other connection has an open write transaction.

        It ends with COMMIT, since ROLLBACK forgets the page cache.

        Raises:
            Busy: another connection has one.
        """
        self.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            try:
                self.execute("COMMIT")
            except (Busy, FileFailure):
                # With a rollback journal, even an empty one waits for readers. A full disk ends it.
                if self.in_transaction:
                    self.execute("ROLLBACK")

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep everybody else from reading and writing a file that has no log.

        Rolled back at the end: what the connection has cached is not what stands in the file then.

        Raises:
            Busy: somebody reads or writes.
        """
        self.execute("BEGIN EXCLUSIVE")
        try:
            yield
        finally:
            self.execute("ROLLBACK")

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Keep what can be read as it is: the file, or the log up to its present end.

        Raises:
            Busy: a writer is in the middle of a commit.
        """
        self.execute("BEGIN")
        try:
            self.execute("PRAGMA schema_version").fetchall()
            yield
        finally:
            self.execute("COMMIT")

    def copy_into(self, target: OwnConnection) -> None:
        """Make the target's file equal to this one, in place, for every open connection.

        SQLite's online backup raises the change counter and the schema cookie beyond all that were
        seen, so that other connections drop what they have cached.

        Raises:
            Busy: a reader or a writer holds a lock on the target.
        """

        def give_up(status: int, _remaining: int, _total: int) -> None:
            # Connection.backup() retries BUSY (5) and LOCKED (6) for ever.
            if status in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
                raise Busy("database is locked")

        try:
            self.backup(target, progress=give_up, sleep=0)
        except sqlite3.DatabaseError as error:
            raise lock_or_failure(error) from error

    def copy_to_file(self, file: Path) -> None:
        """Copy a database into one single file without side files, whatever mode it is in.

        Raises:
            Busy: a writer is in the middle of a commit.
            FileFailure: the disk is full, for one; there is no file then.
        """
        with whole_or_none(file), closing(open_control(file)) as single:
            self.copy_into(single)
            single.execute("PRAGMA journal_mode = DELETE")


def lock_or_failure(error: sqlite3.DatabaseError) -> Busy | FileFailure:
    """Return what an error means: somebody's lock, for which one can wait, or anything else."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    return Busy(str(error)) if code & 0xFF in _LOCKS else FileFailure(str(error))


def is_full(error: BaseException) -> bool:
    """Whether an error, or what has led to it, is that there is no more room."""
    return any(
        getattr(one, "errno", None) in _NO_ROOM
        or getattr(one, "sqlite_errorcode", None) in _FULL
        for one in causes(error)
    )


def is_refused(error: FileFailure) -> bool:
    """Whether SQLite would not write to the file, though nobody has a lock on it."""
    return getattr(error.__cause__, "sqlite_errorcode", 0) == sqlite3.SQLITE_READONLY


def open_control(path: Path) -> OwnConnection:
    """Open the connection by which a live file is restored.

    It never waits for a lock, since whoever holds one after a test is a leak to be named. It
    does not sync: no test database has to survive a power cut.

    Raises:
        Busy: somebody has the file to itself.
        FileFailure: it cannot be opened, or is no database.
    """
    try:
        control = OwnConnection(
            path, isolation_level=None, timeout=0, check_same_thread=False
        )
    except sqlite3.DatabaseError as error:
        raise lock_or_failure(error) from error
    try:
        control.execute("PRAGMA synchronous = OFF")
    except (Busy, FileFailure):
        control.close()
        raise
    return control


def unchanging(path: Path) -> str:
    """Return the URI of a file that nobody changes any more."""
    return f"file:{quote(str(path))}?mode=ro&immutable=1"


def open_snapshot(path: Path) -> OwnConnection:
    """Open a file that nobody changes any more: without locks, and without side files."""
    return OwnConnection(unchanging(path), uri=True, check_same_thread=False)


def open_memory() -> OwnConnection:
    """Open a database that holds nothing, for any thread."""
    return OwnConnection(
        MEMORY, uri=True, isolation_level=None, check_same_thread=False
    )


@cache
def write_nothing(folder: Path) -> Path:
    """Return a database that holds nothing: each engine in memory begins with it."""
    file = folder / "~nothing"  # no database is called so
    with closing(open_memory()) as memory:
        memory.copy_to_file(file)
    return file


def leave_wal_alone(connection: sqlite3.Connection) -> None:
    """Have a connection never copy the log into the file by itself, which could not be undone.

    It does nothing where there is no log, and takes no lock. The app may set it as it likes.
    """
    sqlite3.Connection.execute(connection, "PRAGMA wal_autocheckpoint = 0").close()


def be_as_in_memory(connection: sqlite3.Connection) -> None:
    """Have it keep its journal where a database in memory has it: half the cost of a commit."""
    sqlite3.Connection.execute(connection, "PRAGMA journal_mode = MEMORY").close()


def finish_file(source: Path, target: Path) -> None:
    """Copy a database file, with what its side files hold, into one single file."""
    with closing(open_control(source)) as control:
        control.copy_to_file(target)


def main_file(dbapi_connection: Any) -> str:
    """Return the file that a live connection (sync, or adapted async) is on; "" for memory."""
    with closing(dbapi_connection.cursor()) as cursor:
        cursor.execute("PRAGMA database_list")
        main = cursor.fetchall()[0]
    # Whatever the app's row_factory makes of it.
    values = list(main.values()) if isinstance(main, dict) else list(main)
    return os.fsdecode(values[2] or "")


_SETTINGS = (
    *("foreign_keys", "query_only", "ignore_check_constraints", "recursive_triggers"),
    "locking_mode",  # one that has the file to itself would keep the next test from it
)
# Asked of a new connection, and of one on which a PRAGMA was sent since.
_RARE_SETTINGS = (
    *(
        "busy_timeout",
        "synchronous",
        "cache_size",
        "temp_store",
        "max_page_count",
        "mmap_size",
    ),
    *(
        "reverse_unordered_selects",
        "full_column_names",
        "short_column_names",
        "trusted_schema",
    ),
    *("legacy_alter_table", "automatic_index", "cell_size_check", "count_changes"),
)
_TEMP = 1  # the number of the database of temporary tables


# Files whose journal mode a statement may have set, on a connection that was not new.
_switched: set[str] = set()


def note_switched(connection: sqlite3.Connection) -> None:
    """Note that a statement may have set the journal mode of a connection's file."""
    _switched.add(main_file(connection))


def take_switched(file: Path) -> bool:
    """Return whether a file's journal mode may have been set since the last call."""
    if str(file) not in _switched:
        return False
    _switched.discard(str(file))
    return True


def describe_session(connection: sqlite3.Connection) -> tuple[Any, ...]:
    """What a kept connection carries from one test to the next beside the file. Costs 20 µs.

    Temporary tables hide real ones; attached files and settings change what a statement does.
    """
    ask = sqlite3.Cursor(connection).execute  # a cursor without the app's row_factory
    # Of sqlite3's very own class it is not noticed when they are set.
    rare = getattr(connection, "arena_settings", _RARE_SETTINGS)
    try:
        # Reads the schema again, if a restore has changed it: SQLite would first refuse a statement
        # that has too few values for a table as it was ("table a has 4 columns but 3 values").
        ask("SELECT 1 FROM sqlite_master LIMIT 1").fetchall()
        if not rare:
            rare = tuple(tuple(ask(f"PRAGMA {setting}")) for setting in _RARE_SETTINGS)
            connection.arena_settings = rare  # type: ignore[attr-defined]  # of a guarded one
        return (
            rare,
            *(ask(f"PRAGMA {setting}").fetchone()[0] for setting in _SETTINGS),
            tuple(row[1:] for row in ask("PRAGMA database_list") if row[0] != _TEMP),
            tuple(ask("SELECT name, sql FROM sqlite_temp_master")),
            (
                connection.isolation_level,
                connection.row_factory,
                connection.text_factory,
            ),
        )
    finally:
        # With `autocommit=False` (Python 3.12) a connection is always in a transaction, and what
        # was asked would keep a lock on the file. Nobody else has begun anything in it.
        if getattr(connection, "autocommit", None) is False:
            sqlite3.Connection.rollback(connection)

"""pytest-arena's SQLite connections, and the settings of the app's connections."""

import errno
import os
import re
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from functools import cache, lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote

from pytest_arena._origin import is_own
from pytest_arena._process import path_exists
from pytest_arena.errors import causes

MEMORY = ":memory:"
# SQLITE_PROTOCOL: two connections have opened a log at the same time.
_LOCKS = frozenset(
    {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL}
)
_FULL = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE})
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})


def opens_for_writing(name: object, flags: int | None, live: Path) -> bool:
    """Return whether an audit event shows that Python opens a live file for writing.

    SQLite itself raises no such event. Files that pytest-arena opens do not count.
    """
    if not (flags or 0) & (os.O_WRONLY | os.O_RDWR) or is_own():
        return False
    if not isinstance(name, str | bytes | os.PathLike):
        return False
    file = os.fsdecode(name)
    is_live = file.endswith(live.name) and os.path.realpath(file) == str(live)
    return is_live and path_exists(file)


def file_of(database: str, *, uri: bool = True) -> str:
    """Return the absolute path in a ``database`` argument, "" for a memory database."""
    path, query = _split(database, uri=uri)
    if path in {"", MEMORY} or _is_memory(query):
        return ""
    return _absolute(path) or str(Path(path).absolute())


@lru_cache
def _absolute(path: str) -> str:
    """Return an absolute path in its normal form, "" for a relative path."""
    if Path(path).is_absolute():
        return str(Path(path))
    return ""


def memory_of(database: str, *, uri: bool) -> str:
    """Return the name of a shared memory database, "" for any other database."""
    path, query = _split(database, uri=uri)
    shared = query.get("cache") == "shared" or query.get("vfs") == "memdb"
    return path if _is_memory(query) and shared else ""


def is_read_only(database: str, *, uri: bool) -> bool:
    """Return whether a ``database`` argument opens a read-only connection."""
    _, query = _split(database, uri=uri)
    return query.get("mode") == "ro" or query.get("immutable") == "1"


def renamed(database: str, file: str, *, uri: bool) -> str:
    """Return a ``database`` argument for another file, with the same form and the same rights."""
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
    without_fragment = database.removeprefix("file:").partition("#")[0]
    path, _, query = without_fragment.partition("?")
    path = re.sub(r"^//(localhost)?(?=/)", "", path)
    # SQLite ends the path at a zero byte. Python refuses such a path.
    return unquote(path).partition("\0")[0], dict(parse_qsl(query))


@contextmanager
def whole_or_none(file: Path) -> Iterator[Path]:
    """Yield the path for a file that the block writes. If the block fails, remove the file."""
    try:
        yield file
    except BaseException:
        file.unlink(missing_ok=True)
        raise


def identity(file: Path) -> tuple[int, int] | None:
    """Return the device and inode of the file at a path, None without a file. Costs 1-2 µs."""
    try:
        status = os.stat(file)  # noqa: PTH116 - called for each level: a third of Path's time
    except OSError:
        return None
    return status.st_dev, status.st_ino


def remove_file(live: Path) -> None:
    """Remove a database file and its side files."""
    for ending in ("", "-wal", "-shm", "-journal"):
        with suppress(FileNotFoundError):
            os.unlink(f"{live}{ending}")  # noqa: PTH108 - half of Path's time


class Busy(Exception):
    """Another connection holds a lock on the file."""


class FileFailure(Exception):
    """SQLite cannot read or write the file: a full disk, a deleted file, or no database."""


class OwnConnection(sqlite3.Connection):
    """A connection of pytest-arena, which the guard does not check.

    pytest-arena does not call ``sqlite3.connect``, because a test or a tracer may replace it.
    """

    def execute(self, statement: str, parameters: Any = (), /) -> sqlite3.Cursor:
        """Execute a statement, as ``sqlite3.Connection.execute`` does.

        Raises:
            Busy: another connection holds a lock. This does not wait for the lock.
            FileFailure: any other error.
        """
        try:
            return super().execute(statement, parameters)
        except sqlite3.DatabaseError as error:
            raise lock_or_failure(error) from error

    def number(self, statement: str) -> int:
        """Return the number that a statement selects. Raises as ``execute``."""
        number: int = self.execute(statement).fetchone()[0]
        return number

    def data_version(self) -> int:
        """Return a number that changes when *another* connection, of any process, commits.

        Costs 2-5 µs. This connection's writes do not change it:
        https://sqlite.org/pragma.html#pragma_data_version

        Raises:
            Busy: a writer is committing.
        """
        version: int = self.execute("PRAGMA data_version").fetchone()[0]
        return version

    def schema_version(self) -> int:
        """Return the schema cookie, by which a connection knows whether its schema is stale.

        Raises:
            Busy: a writer is committing.
        """
        return self.number("PRAGMA schema_version") & 0xFFFFFFFF

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the write lock, so that no other connection has an open write transaction.

        The block ends with COMMIT, because ROLLBACK drops the page cache.

        Raises:
            Busy: another connection holds the write lock.
        """
        self.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            try:
                self.execute("COMMIT")
            except (Busy, FileFailure):
                # With a rollback journal, even an empty commit waits for readers.
                if self.in_transaction:
                    self.execute("ROLLBACK")

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Prevent other connections from reading and writing a file without a log.

        The block ends with ROLLBACK, because the caller may have changed the file without SQLite.

        Raises:
            Busy: another connection reads or writes.
        """
        self.execute("BEGIN EXCLUSIVE")
        try:
            yield
        finally:
            self.execute("ROLLBACK")

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Keep a read transaction open, so that no commit changes the content.

        Raises:
            Busy: a writer is committing.
        """
        self.execute("BEGIN")
        try:
            self.execute("PRAGMA schema_version").fetchall()
            yield
        finally:
            self.execute("COMMIT")

    def copy_into(self, target: "OwnConnection") -> None:
        """Replace the content of the target's file, in place, for every open connection.

        SQLite's online backup increases the change counter and the schema cookie, so that other
        connections drop their caches.

        Raises:
            Busy: a reader or a writer holds a lock on the target.
        """

        def give_up(status: int, _remaining: int, _total: int) -> None:
            # Connection.backup() would retry for ever.
            if status in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
                raise Busy("database is locked")

        try:
            self.backup(target, progress=give_up, sleep=0)
        except sqlite3.DatabaseError as error:
            raise lock_or_failure(error) from error

    def copy_to_file(self, file: Path) -> None:
        """Copy a database into one file without side files, in any journal mode.

        Raises:
            Busy: a writer is committing.
            FileFailure: the copy failed, for example because the disk is full.
        """
        with whole_or_none(file), closing(open_control(file)) as single:
            self.copy_into(single)
            single.execute("PRAGMA journal_mode = DELETE")


def lock_or_failure(error: sqlite3.DatabaseError) -> Busy | FileFailure:
    """Return ``Busy`` for a lock of another connection, ``FileFailure`` for another error."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    kind = Busy if code & 0xFF in _LOCKS else FileFailure
    return kind(str(error))


def is_full(error: BaseException) -> bool:
    """Return whether an error, or one of its causes, is a full disk."""
    for cause in causes(error):
        if getattr(cause, "errno", None) in _NO_ROOM:
            return True
        if getattr(cause, "sqlite_errorcode", None) in _FULL:
            return True
    return False


def is_refused(error: FileFailure) -> bool:
    """Return whether SQLite refuses to write to the file although no connection locks it."""
    return getattr(error.__cause__, "sqlite_errorcode", 0) == sqlite3.SQLITE_READONLY


def open_control(path: Path) -> OwnConnection:
    """Open pytest-arena's connection to a live file.

    The connection does not wait for locks, because a lock after a test is a leak. It does not sync,
    because no test database has to survive a power cut.

    Raises:
        Busy: another connection has locked the whole file.
        FileFailure: SQLite cannot open the file, or the file is no database.
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
    """Return the URI of a file that no connection writes to."""
    return f"file:{quote(str(path))}?mode=ro&immutable=1"


def open_snapshot(path: Path) -> OwnConnection:
    """Open a file that no connection writes to, without locks and without side files."""
    return OwnConnection(unchanging(path), uri=True, check_same_thread=False)


def open_memory() -> OwnConnection:
    """Open an empty database, for any thread."""
    return OwnConnection(
        MEMORY, uri=True, isolation_level=None, check_same_thread=False
    )


@cache
def write_nothing(folder: Path) -> Path:
    """Return an empty database file, the first content of each memory database."""
    file = folder / "~nothing"  # no other database has this name
    with closing(open_memory()) as memory:
        memory.copy_to_file(file)
    return file


def leave_wal_alone(connection: sqlite3.Connection) -> None:
    """Make a connection never copy the log into the file, which no fast method can undo.

    Without a log this has no effect. It takes no lock. The app may set another value later.
    """
    sqlite3.Connection.execute(connection, "PRAGMA wal_autocheckpoint = 0").close()


def be_as_in_memory(connection: sqlite3.Connection) -> None:
    """Keep a connection's journal in memory, as in a memory database. Halves a commit's cost."""
    sqlite3.Connection.execute(connection, "PRAGMA journal_mode = MEMORY").close()


def finish_file(source: Path, target: Path) -> None:
    """Copy a database file and the content of its side files into one file."""
    with closing(open_control(source)) as control:
        control.copy_to_file(target)


def main_file(dbapi_connection: Any) -> str:
    """Return the file of an open connection (sync, or adapted async), "" for memory."""
    with closing(dbapi_connection.cursor()) as cursor:
        cursor.execute("PRAGMA database_list")
        main = cursor.fetchall()[0]
    # The app's row_factory may make a dictionary of a row.
    values = list(main.values()) if isinstance(main, dict) else list(main)
    return os.fsdecode(values[2] or "")


_SETTINGS = (
    "foreign_keys",
    "query_only",
    "ignore_check_constraints",
    "recursive_triggers",
    "locking_mode",  # an exclusive connection would lock out the next test
)
# These are read from a new connection, and again after a PRAGMA.
_RARE_SETTINGS = (
    "busy_timeout",
    "synchronous",
    "cache_size",
    "temp_store",
    "max_page_count",
    "mmap_size",
    "reverse_unordered_selects",
    "full_column_names",
    "short_column_names",
    "trusted_schema",
    "legacy_alter_table",
    "automatic_index",
    "cell_size_check",
    "count_changes",
    "read_uncommitted",
    "fullfsync",
    "checkpoint_fullfsync",
    "cache_spill",
    "empty_result_callbacks",
    "writable_schema",
    "wal_autocheckpoint",
    "journal_size_limit",
    "secure_delete",
)
_NOT_READ = ("not read",)
_TEMP = 1  # the number of the database that has the temporary tables


# The files whose journal mode a statement may have set. Statements of new connections do not count.
_switched: set[str] = set()


def note_switched(connection: sqlite3.Connection) -> None:
    """Note that a statement may have set the journal mode of a connection's file."""
    _switched.add(main_file(connection))


def take_switched(file: Path) -> bool:
    """Return whether a file's journal mode may have been set since the last call."""
    name = str(file)
    is_switched = name in _switched
    _switched.discard(name)
    return is_switched


_HAS_VIRTUAL_TABLES = """
SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'table' AND rootpage = 0)
"""


def describe_session(connection: sqlite3.Connection) -> tuple[Any, ...]:
    """Return the state that a pooled connection keeps from one test to the next. Costs 25 µs.

    Temporary tables hide real tables. Attached files and settings change the effect of statements.
    If another connection locks the file, return a state that differs from all others. This never
    waits for the lock, because a coroutine of the same event loop may hold it.
    """
    authorizer = getattr(connection, "arena_authorizer", None)
    if authorizer is None:
        return _describe(connection)
    # The app's authorizer may deny the statements below.
    sqlite3.Connection.set_authorizer(connection, None)
    try:
        return _describe(connection)
    finally:
        sqlite3.Connection.set_authorizer(connection, authorizer)


def _describe(connection: sqlite3.Connection) -> tuple[Any, ...]:
    # This cursor does not use the app's row_factory.
    execute = sqlite3.Cursor(connection).execute
    # If the connection has sqlite3's class, pytest-arena does not see statements that change a rare
    # setting, so it never reads these settings.
    rare_settings = getattr(connection, "arena_settings", _NOT_READ)
    [busy_timeout] = execute("PRAGMA busy_timeout").fetchone()
    execute("PRAGMA busy_timeout = 0")
    try:
        # If a restore has changed the schema, this makes SQLite read it again. Otherwise SQLite
        # would check the next statement against the old schema.
        [has_virtual_tables] = execute(_HAS_VIRTUAL_TABLES).fetchone()
        # Otherwise SQLite connects such a table in the app's next transaction, and reads from it.
        # Then an INSERT fails with "database is locked" while another connection writes.
        if has_virtual_tables:
            execute("PRAGMA table_list")  # this connects them, since SQLite 3.37
    except sqlite3.OperationalError as error:
        if "locked" not in str(error):
            raise
        return (object(),)
    finally:
        execute(f"PRAGMA busy_timeout = {busy_timeout}")
    try:
        if not rare_settings:
            rare_settings = _values(execute, _RARE_SETTINGS)
            connection.arena_note_settings(rare_settings)  # type: ignore[attr-defined]  # of a guarded one
        databases = execute("PRAGMA database_list").fetchall()
        return (
            rare_settings,
            _values(execute, _SETTINGS),
            [row[1:] for row in databases if row[0] != _TEMP],
            execute("SELECT name, sql FROM sqlite_temp_master").fetchall(),
            connection.isolation_level,
            connection.row_factory,
            connection.text_factory,
            getattr(connection, "autocommit", None),  # since Python 3.12
            getattr(connection, "arena_changes", 0),
        )
    finally:
        # With `autocommit=False` (Python 3.12) a connection is always in a transaction, and these
        # statements would keep a lock on the file.
        if getattr(connection, "autocommit", None) is False:
            sqlite3.Connection.rollback(connection)


def _values(execute: Any, settings: tuple[str, ...]) -> tuple[object, ...]:
    return tuple([execute(f"PRAGMA {name}").fetchone() for name in settings])

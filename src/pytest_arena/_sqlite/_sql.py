"""pytest-arena's SQLite connections, and the settings of the app's connections."""

import errno
import os
import re
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from functools import lru_cache
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
# The journal mode in a file's header: https://sqlite.org/fileformat.html#the_database_header
_MODE = slice(18, 20)
_ROLLBACK_JOURNAL = b"\1\1"


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


def inode(file: Path | str) -> int:
    """Return the inode number of the file at a path, 0 without a file. Costs 1-2 µs."""
    try:
        return os.stat(file).st_ino  # noqa: PTH116 - called for each level: a third of Path's time
    except OSError:
        return 0


def remove_file(live: Path) -> None:
    """Remove a database file and its side files."""
    for ending in ("", "-wal", "-shm", "-journal"):
        with suppress(FileNotFoundError):
            os.unlink(f"{live}{ending}")  # noqa: PTH108 - half of Path's time


def open_own(path: Path | str = MEMORY) -> sqlite3.Connection:
    """Open a connection of pytest-arena, for any thread.

    pytest-arena does not call ``sqlite3.connect``, because a test or a tracer may replace it. The
    connection does not wait for locks, because a lock after a test is a leak. It does not sync,
    because no test database has to survive a power cut.
    """
    connection = sqlite3.Connection(
        path, isolation_level=None, timeout=0, check_same_thread=False
    )
    if path != MEMORY:
        connection.execute("PRAGMA synchronous = OFF")
    return connection


def open_copy(content: bytes) -> sqlite3.Connection:
    """Open a database in memory that has this content."""
    memory = open_own()
    if content:
        memory.deserialize(content)
    return memory


def is_locked(error: BaseException) -> bool:
    """Return whether SQLite has raised an error because of another connection's lock."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _LOCKS


def is_full(error: BaseException) -> bool:
    """Return whether an error, or one of its causes, is a full disk."""
    for cause in causes(error):
        if getattr(cause, "errno", None) in _NO_ROOM:
            return True
        if getattr(cause, "sqlite_errorcode", None) in _FULL:
            return True
    return False


@contextmanager
def reading(connection: sqlite3.Connection) -> Iterator[None]:
    """Keep a read transaction open, so that no commit changes the content."""
    connection.execute("BEGIN")
    try:
        connection.execute("PRAGMA schema_version").fetchall()
        yield
    finally:
        connection.execute("COMMIT")


@contextmanager
def writing(connection: sqlite3.Connection) -> Iterator[None]:
    """Hold the write lock, so that no other connection has an open write transaction.

    The block ends with COMMIT, because ROLLBACK drops the page cache.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        try:
            connection.execute("COMMIT")
        except sqlite3.Error:
            # With a rollback journal, even an empty commit waits for readers.
            if connection.in_transaction:
                connection.execute("ROLLBACK")


def read_content(connection: sqlite3.Connection) -> bytes:
    """Return the content of a database as the bytes of a file without a write-ahead log."""
    with reading(connection):
        if connection.execute("PRAGMA page_count").fetchone() == (0,):
            return b""
        content = connection.serialize()
    if content[_MODE] == _ROLLBACK_JOURNAL:
        return content
    return content[: _MODE.start] + _ROLLBACK_JOURNAL + content[_MODE.stop :]


def be_as_in_memory(connection: sqlite3.Connection) -> None:
    """Keep a connection's journal in memory, as in a memory database. Halves a commit's cost."""
    connection.execute("PRAGMA journal_mode = MEMORY").close()


def finish_file(source: Path, target: Path) -> None:
    """Copy a database file and the content of its side files into one file."""
    with closing(open_own(source)) as control, whole_or_none(target):
        target.write_bytes(read_content(control))


def split_script(script: str) -> Iterator[str]:
    """Split a script into its statements. SQLite finds their ends."""
    statement = ""
    for part in re.findall(r"[^;]*;|[^;]+", script):
        statement += part
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    yield statement


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
_TEMP = 1  # the number of the database that has the temporary tables


_HAS_VIRTUAL_TABLES = """
SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'table' AND rootpage = 0)
"""


def describe_session(connection: sqlite3.Connection) -> tuple[Any, ...]:
    """Return the state that a pooled connection keeps from one test to the next. Costs 25 µs.

    Temporary tables hide real tables. Attached files and settings change the effect of statements.
    If another connection locks the file, return a state that differs from all others. This never
    waits for the lock, because a coroutine of the same event loop may hold it.
    """
    # This cursor does not use the app's row_factory.
    execute = sqlite3.Cursor(connection).execute
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
        settings = [execute(f"PRAGMA {name}").fetchone() for name in _SETTINGS]
        databases = execute("PRAGMA database_list").fetchall()
        return (
            busy_timeout,
            settings,
            [row[1:] for row in databases if row[0] != _TEMP],
            execute("SELECT name, sql FROM sqlite_temp_master").fetchall(),
            connection.isolation_level,
            connection.row_factory,
            connection.text_factory,
            getattr(connection, "autocommit", None),  # since Python 3.12
        )
    finally:
        # With `autocommit=False` (Python 3.12) a connection is always in a transaction, and these
        # statements would keep a lock on the file.
        if getattr(connection, "autocommit", None) is False:
            sqlite3.Connection.rollback(connection)

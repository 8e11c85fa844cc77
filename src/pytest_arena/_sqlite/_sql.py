"""pytest-arena's SQLite connections, and the settings of the app's connections."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import lru_cache
from io import FileIO
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

MEMORY = ":memory:"
# SQLITE_PROTOCOL: two connections have opened a log at the same time.
_LOCKS = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_PROTOCOL})
# The journal mode in the file: https://sqlite.org/fileformat.html#the_database_header
_MODE = slice(18, 20)
_ROLLBACK_JOURNAL = b"\1\1"


class Requested(NamedTuple):
    """The file or the memory database that a ``database`` argument names."""

    file: str = ""  # an absolute path, "" for a memory database
    memory: str = ""  # the name of a memory database that connections share


def requested(database: str, *, uri: bool = True) -> Requested:
    """Return what a ``database`` argument names. A relative path starts at the working folder."""
    found = _parsed(database, uri=uri)
    if found.file and not Path(found.file).is_absolute():
        return found._replace(file=str(Path(found.file).absolute()))
    return found


@lru_cache
def _parsed(database: str, *, uri: bool) -> Requested:
    """Parse a path or a ``file:`` URI: https://sqlite.org/uri.html."""
    path = database
    query: dict[str, str] = {}
    if uri and database.startswith("file:"):
        parts = urlsplit(database)
        query = dict(parse_qsl(parts.query))
        path = unquote(parts.path)
    if query.get("mode") == "memory" or path in {"", MEMORY}:
        return Requested(memory=path if query.get("cache") == "shared" else "")
    return Requested(str(Path(path)))


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
    connection = sqlite3.Connection(path, isolation_level=None, timeout=0, check_same_thread=False)
    if path != MEMORY:
        connection.execute("PRAGMA synchronous = OFF")
    return connection


def is_locked(error: BaseException) -> bool:
    """Return whether SQLite has raised an error because of another connection's lock."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _LOCKS


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
def writing(connection: sqlite3.Connection, *, excludes_readers: bool = False) -> Iterator[None]:
    """Hold the write lock, so that no other connection has an open write transaction.

    The block ends with COMMIT, because ROLLBACK drops the page cache.
    """
    connection.execute(f"BEGIN {'EXCLUSIVE' if excludes_readers else 'IMMEDIATE'}")
    try:
        yield
    finally:
        try:
            connection.execute("COMMIT")
        except sqlite3.Error:
            # With a rollback journal, even an empty commit waits for readers.
            if connection.in_transaction:
                connection.execute("ROLLBACK")


def is_being_written(connection: sqlite3.Connection) -> bool:
    """Return whether another connection holds the write lock."""
    with suppress(sqlite3.OperationalError), writing(connection):
        return False
    return True


def has_old_reader(connection: sqlite3.Connection) -> bool:
    """Return whether a connection reads an older state of a file with a write-ahead log.

    It has no lock. It could not write any more, and prevents the end of a checkpoint.
    """
    if not has_log(connection):
        return False
    [version] = connection.execute("PRAGMA user_version").fetchone()
    connection.execute(f"PRAGMA user_version = {version}")  # a frame for the checkpoint
    is_busy, *_ = connection.execute("PRAGMA wal_checkpoint(FULL)").fetchone()
    return bool(is_busy)


def read_content(connection: sqlite3.Connection, file: FileIO | None = None) -> bytes:
    """Return the content of a database as the bytes of a file without a write-ahead log.

    ``file`` is the same database, open. Without a log it takes a tenth of SQLite's time, which
    reads each page by itself.
    """
    with reading(connection):  # without a log, no connection writes to the file meanwhile
        if file is not None:
            file.seek(0)
            content = file.read()
            if content[_MODE] == _ROLLBACK_JOURNAL:
                return content
        content = connection.serialize()
    if content[_MODE] == _ROLLBACK_JOURNAL:
        return content
    return content[: _MODE.start] + _ROLLBACK_JOURNAL + content[_MODE.stop :]


def be_as_in_memory(connection: sqlite3.Connection) -> None:
    """Keep a connection's journal in memory, as in a memory database. Halves a commit's cost.

    A write-ahead log stays, because SQLite would need a lock to remove it.
    """
    if not has_log(connection):
        connection.execute("PRAGMA journal_mode = MEMORY").close()


def has_log(connection: sqlite3.Connection) -> bool:
    """Return whether the file of a connection has a write-ahead log."""
    return bool(connection.execute("PRAGMA journal_mode").fetchone() == ("wal",))


def finish_file(source: Path, target: Path) -> None:
    """Copy a database file and the content of its side files into one file."""
    with closing(open_own(source)) as control:
        content = read_content(control)
    target.write_bytes(content)


def main_file(dbapi_connection: Any) -> str:
    """Return the file of an open connection (sync, or adapted async), "" for memory."""
    with closing(dbapi_connection.cursor()) as cursor:
        cursor.execute("PRAGMA database_list")
        main = cursor.fetchall()[0]
    # The app's row_factory may make a dictionary of a row.
    values = list(main.values()) if isinstance(main, dict) else list(main)
    return os.fsdecode(values[2] or "")

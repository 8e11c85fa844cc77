"""What SQLite is told and asked: by connections of our own, and about a session of the app's."""

from __future__ import annotations

import errno
import os
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

from pytest_arena._sqlite._names import quoted

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "Busy",
    "Failed",
    "OwnConnection",
    "begin_writing",
    "copy_into",
    "copy_to_file",
    "data_version",
    "describe_session",
    "finish_file",
    "has_tables",
    "is_full",
    "lock_or_failure",
    "main_file",
    "open_control",
    "open_picture",
    "stop_writing",
    "version",
]


class Busy(Exception):
    """Another connection holds a lock on the file."""


class Failed(Exception):
    """SQLite cannot read or write the file: a full disk, a file that was deleted or is none."""


class OwnConnection(sqlite3.Connection):
    """A connection that arena opens for itself, so that the guard can tell it from anybody's.

    It is made from this class: ``sqlite3.connect`` may be a test's mock, or a tracer's.
    """


# SQLITE_PROTOCOL: connections that open a log at the same time have had no luck with its locks.
_LOCKS = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL})
_FULL = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE})
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})


def lock_or_failure(error: sqlite3.DatabaseError) -> Busy | Failed:
    """Return what an error means: somebody's lock, for which one can wait, or anything else."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    return Busy(str(error)) if code & 0xFF in _LOCKS else Failed(str(error))


def is_full(error: BaseException | None) -> bool:
    """Whether an error, or what has led to it, is that there is no more room."""
    if error is None:
        return False
    here = getattr(error, "errno", None) in _NO_ROOM
    return here or getattr(error, "sqlite_errorcode", None) in _FULL or is_full(error.__cause__)


def version() -> str:
    """The version of the SQLite library in this process."""
    return sqlite3.sqlite_version


def open_control(path: Path) -> sqlite3.Connection:
    """Open the connection by which a live file is restored.

    It never waits for a lock, since whoever holds one after a test is a leak to be named. It
    does not sync: no test database has to survive a power cut.

    Raises:
        Busy: somebody has the file to itself.
        Failed: it cannot be opened, or is no database.
    """
    control = OwnConnection(path, isolation_level=None, timeout=0, check_same_thread=False)
    try:
        control.execute("PRAGMA synchronous = OFF")
    except sqlite3.DatabaseError as error:
        control.close()
        raise lock_or_failure(error) from error
    return control


def open_picture(path: Path) -> sqlite3.Connection:
    """Open a file that nobody changes any more: without locks, and without side files."""
    uri = f"file:{quoted(path)}?mode=ro&immutable=1"
    return OwnConnection(uri, uri=True, check_same_thread=False)


def data_version(control: sqlite3.Connection) -> int:
    """Return a number that moves whenever *another* connection, of any process, has committed.

    Costs 2-5 µs. Own writes do not move it. https://sqlite.org/pragma.html#pragma_data_version

    Raises:
        Busy: a writer is in the middle of a commit.
    """
    try:
        number: int = control.execute("PRAGMA data_version").fetchone()[0]
    except sqlite3.DatabaseError as error:
        raise lock_or_failure(error) from error
    return number


def begin_writing(control: sqlite3.Connection) -> None:
    """Take the write lock: from here on no other connection has an open write transaction.

    Raises:
        Busy: another connection has one.
    """
    try:
        control.execute("BEGIN IMMEDIATE")
    except sqlite3.DatabaseError as error:
        raise lock_or_failure(error) from error


def stop_writing(control: sqlite3.Connection) -> None:
    """Give the write lock back. COMMIT rather than ROLLBACK, which forgets the page cache."""
    try:
        control.execute("COMMIT")
    except sqlite3.OperationalError:  # with a rollback journal, even an empty one waits for readers
        if control.in_transaction:  # a full disk has ended it
            control.execute("ROLLBACK")


def copy_into(source: sqlite3.Connection, target: sqlite3.Connection) -> None:
    """Make the target's file equal to the source's, in place, for every open connection.

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
        source.backup(target, progress=give_up, sleep=0)
    except sqlite3.DatabaseError as error:
        raise lock_or_failure(error) from error


def copy_to_file(source: sqlite3.Connection, file: Path) -> None:
    """Copy a database into one single file without side files, whatever mode it is in.

    Raises:
        Busy: a writer is in the middle of a commit.
        Failed: the disk is full, for one; there is no file then.
    """
    try:
        _copy_to_file(source, file)
    except BaseException:
        file.unlink(missing_ok=True)
        raise


def _copy_to_file(source: sqlite3.Connection, file: Path) -> None:
    single = OwnConnection(file, isolation_level=None)
    try:
        single.execute("PRAGMA synchronous = OFF")
        copy_into(source, single)
        single.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.DatabaseError as error:
        raise lock_or_failure(error) from error
    finally:
        single.close()


def finish_file(source: Path, target: Path) -> None:
    """Copy a database file, with what its side files hold, into one single file."""
    with closing(open_control(source)) as control:
        copy_to_file(control, target)


def has_tables(file: Path) -> bool:
    """Whether the schema of a file has any table."""
    with closing(open_control(file)) as control:
        found = control.execute("SELECT count(*) FROM sqlite_master WHERE type = 'table'")
        return bool(found.fetchone()[0])


def main_file(dbapi_connection: Any) -> str:
    """Return the file that a live connection (sync, or adapted async) is on; "" for memory."""
    cursor = dbapi_connection.cursor()
    try:
        cursor.execute("PRAGMA database_list")
        return os.fsdecode(_values(cursor.fetchall()[0])[2] or "")  # `main` is the first
    finally:
        cursor.close()


def _values(row: Any) -> list[Any]:
    """The columns of a row, whatever the app's ``row_factory`` makes of it."""
    return list(row.values()) if isinstance(row, dict) else list(row)


_SETTINGS = (
    *("foreign_keys", "query_only", "ignore_check_constraints", "recursive_triggers"),
    "locking_mode",  # one that has the file to itself would keep the next test from it
)


def describe_session(connection: sqlite3.Connection) -> tuple[Any, ...]:
    """What a kept connection carries from one test to the next beside the file. Costs 20 µs.

    Temporary tables hide real ones; attached files and settings change what a statement does.
    """
    try:
        return _described(connection)
    finally:
        # With `autocommit=False` (Python 3.12) a connection is always in a transaction, and what
        # was asked would keep a lock on the file. Nobody else has begun anything in it.
        if getattr(connection, "autocommit", None) is False:
            sqlite3.Connection.rollback(connection)


def _described(connection: sqlite3.Connection) -> tuple[Any, ...]:
    ask = sqlite3.Cursor(connection).execute  # a cursor without the app's row_factory
    # Reads the schema again, if a restore has changed it: SQLite would first refuse a statement
    # that has too few values for a table as it was ("table a has 4 columns but 3 values").
    ask("SELECT 1 FROM sqlite_master LIMIT 1").fetchall()
    return (
        *(ask(f"PRAGMA {setting}").fetchone()[0] for setting in _SETTINGS),
        tuple(row[1:] for row in ask("PRAGMA database_list") if row[0] != _TEMP),
        tuple(ask("SELECT name, sql FROM sqlite_temp_master")),
        (connection.isolation_level, connection.row_factory, connection.text_factory),
    )


_TEMP = 1  # the number of the database of temporary tables

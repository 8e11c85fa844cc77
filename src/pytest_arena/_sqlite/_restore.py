"""What SQLite is told while its files are brought back from outside of it."""

from __future__ import annotations

import sqlite3
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from pytest_arena._sqlite._names import MEMORY
from pytest_arena._sqlite._sql import (
    OwnConnection,
    begin_writing,
    lock_or_failure,
    open_control,
    stop_writing,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = [
    "alone",
    "empty_wal",
    "fold_wal",
    "leave_wal_alone",
    "open_empty",
    "reading",
    "rewrite_first_page",
    "schema_version",
    "set_schema_version",
]


@contextmanager
def alone(control: sqlite3.Connection) -> Iterator[None]:
    """Keep everybody else from reading and writing a file that has no log.

    Rolled back at the end: what the connection has cached is not what stands in the file then.

    Raises:
        Busy: somebody reads or writes.
    """
    _execute(control, "BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        control.execute("ROLLBACK")


@contextmanager
def reading(control: sqlite3.Connection) -> Iterator[None]:
    """Keep what can be read as it is: the file, or the log up to its present end.

    Raises:
        Busy: a writer is in the middle of a commit.
    """
    control.execute("BEGIN")
    try:
        schema_version(control)
        yield
    finally:
        control.execute("COMMIT")


def schema_version(control: sqlite3.Connection) -> int:
    """Return the number by which a connection knows that its picture of the schema still holds.

    Raises:
        Busy: a writer is in the middle of a commit.
    """
    number: int = _execute(control, "PRAGMA schema_version").fetchone()[0]
    return number & 0xFFFFFFFF


def set_schema_version(control: sqlite3.Connection, number: int) -> None:
    """Have every connection read the schema anew.

    Raises:
        Busy: somebody writes.
    """
    signed = number - 2**32 if number >= 2**31 else number
    _execute(control, f"PRAGMA schema_version = {signed}")


def leave_wal_alone(connection: sqlite3.Connection) -> None:
    """Have a connection never copy the log into the file by itself, which could not be undone.

    It does nothing where there is no log, and takes no lock. The app may set it as it likes.
    """
    sqlite3.Connection.execute(connection, "PRAGMA wal_autocheckpoint = 0").close()


def open_empty() -> sqlite3.Connection:
    """Open a database that holds nothing, as the source of a copy."""
    return OwnConnection(MEMORY)


def empty_wal(control: sqlite3.Connection) -> bool:
    """Copy the log into the file, and cut it. Returns whether nobody kept it from that."""
    busy: int = _execute(control, "PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    return not busy


def rewrite_first_page(control: sqlite3.Connection) -> None:
    """Commit a page that holds what it held.

    Raises:
        Busy: somebody writes.
    """
    begin_writing(control)
    try:
        number: int = _execute(control, "PRAGMA user_version").fetchone()[0]
        _execute(control, f"PRAGMA user_version = {number}")
    finally:
        stop_writing(control)


def fold_wal(file: Path) -> None:
    """Copy the log beside a file, which nobody has open, into it."""
    with closing(open_control(file)) as control:
        _execute(control, "PRAGMA journal_mode = DELETE").fetchone()


def _execute(control: sqlite3.Connection, statement: str) -> sqlite3.Cursor:
    try:
        return control.execute(statement)
    except sqlite3.DatabaseError as error:
        raise lock_or_failure(error) from error

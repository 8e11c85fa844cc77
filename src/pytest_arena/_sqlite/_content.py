"""What stands in a database of SQLite's? Digests of all of it, by names.

Whoever compares two of them learns which tables, counters and definitions are different. It is
read as SQL from the database, and not from its file's bytes, by which it may be brought back.
"""

# ruff: noqa: S608 - names are written by quoted() alone

from __future__ import annotations

import sqlite3
from contextlib import suppress
from hashlib import blake2b
from typing import TYPE_CHECKING

from pytest_arena._sqlite._sql import lock_or_failure

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["content"]


def content(connection: sqlite3.Connection) -> dict[str, str]:
    """Return a digest of each thing in the database that the connection is on.

    Equal digests mean equal content: of a table its rows as a multiset, with their ``rowid`` and
    the types of their values; of AUTOINCREMENT its number; of everything else its definition. A
    table that only the app's own functions or modules can read is told as its pages are not: its
    definition counts, and for a virtual one the rows of its shadow tables.

    The connection is arena's own, in autocommit mode. Cost: all rows are read, 1 s for a million.

    Example::

        content(connection)
        # {"table orders": "3 rows, …", "sequence orders": "4", "definition of table orders": "…",
        #  "user_version": "0"}

    Raises:
        Busy: somebody is in the middle of a commit.
        Failed: it cannot be read.
    """
    texts = connection.text_factory
    try:
        connection.execute("BEGIN")  # all of one moment
        connection.text_factory = _text
        return dict(_read(connection))
    except sqlite3.DatabaseError as error:
        raise lock_or_failure(error) from error
    finally:
        connection.text_factory = texts
        with suppress(sqlite3.DatabaseError):  # what comes from above tells of it
            connection.execute("COMMIT")


def _text(value: bytes) -> tuple[str, bytes]:
    """Text as it is stored, whether or not it is UTF-8; and never equal to a blob."""
    return "text", value


def _read(connection: sqlite3.Connection) -> Iterator[tuple[str, str]]:
    for pragma in ("user_version", "application_id"):
        yield pragma, str(connection.execute(f"PRAGMA {pragma}").fetchone()[0])
    tables: list[str] = []
    for kind, name, sql in _schema(connection):
        yield f"definition of {kind} {name}", _digest(sql)
        tables += [name] * (kind == "table")
    for table in tables:
        if table == "sqlite_sequence":
            yield from _counters(connection)
        else:
            yield f"table {table}", _digest_of_rows(connection, table)


def _schema(connection: sqlite3.Connection) -> list[tuple[str, str, object]]:
    statement = "SELECT CAST(type AS BLOB), CAST(name AS BLOB), sql FROM sqlite_master"
    found = connection.execute(statement).fetchall()
    return [(_shown(kind), _shown(name), sql) for kind, name, sql in found]


def _counters(connection: sqlite3.Connection) -> Iterator[tuple[str, str]]:
    counted = connection.execute("SELECT CAST(name AS BLOB), seq FROM sqlite_sequence")
    for name, number in counted:
        yield f"sequence {_shown(name)}", str(number)


def _shown(name: bytes) -> str:
    return name.decode("utf-8", "replace")


def _digest_of_rows(connection: sqlite3.Connection, table: str) -> str:
    count = total = 0
    try:
        for row in _rows(connection, table):
            # A sum does not ask for an order, and counts a row that is there twice as two.
            total += int.from_bytes(blake2b(repr(row).encode(), digest_size=16).digest())
            count += 1
    except sqlite3.OperationalError as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_ERROR:
            raise
        return f"not to be read: {error}"
    return f"{count} rows, {total:x}"


def _rows(connection: sqlite3.Connection, table: str) -> sqlite3.Cursor:
    name = '"' + table.replace('"', '""') + '"'
    try:
        return connection.execute(f"SELECT rowid, * FROM {name}")
    except sqlite3.OperationalError:  # WITHOUT ROWID
        return connection.execute(f"SELECT * FROM {name}")


def _digest(value: object) -> str:
    return blake2b(repr(value).encode(), digest_size=16).hexdigest()

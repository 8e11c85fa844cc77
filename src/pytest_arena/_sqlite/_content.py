"""Digests of a database, and rows that differ."""

# ruff: noqa: S608 - names are written by _quoted() alone

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from hashlib import blake2b
from typing import TYPE_CHECKING

from pytest_arena._changes import limited
from pytest_arena._product import _snapshots
from pytest_arena._product._snapshots import ReadTable
from pytest_arena._sqlite import _sql as sql
from pytest_arena._values import SCHEMA, TableRows

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_MISSING = ReadTable()


def digests(file: Path) -> dict[str, str]:
    """Return a digest of each object in a database, read by a new connection."""
    with closing(sql.open_own(file)) as connection, sql.reading(connection):
        found = {}
        for name, table in _tables(connection).items():
            texts = [text for text, _ in table.rows]
            found[f"table {name}"] = f"{len(texts)} rows, {_digest(*texts)}"
        for title, definition in _definitions(connection).items():
            found[f"definition of {title}"] = _digest(definition)
        [version] = connection.execute("PRAGMA user_version").fetchone()
        if version:  # without 0, an empty file equals a missing file
            found["user_version"] = str(version)
    return found


def _digest(*texts: str | None) -> str:
    return blake2b(repr(texts).encode(), digest_size=16).hexdigest()


def changed_rows(before: bytes, after: bytes, limit: int | None) -> list[TableRows]:
    """Compare the contents of two databases. Return the net changes of each table."""
    with closing(_in_memory(before)) as first, closing(_in_memory(after)) as last:
        changed = []
        old_tables = _tables(first)
        new_tables = _tables(last)
        for name in sorted({*old_tables, *new_tables} - _internal(first, last)):
            old = old_tables.get(name, _MISSING)
            new = new_tables.get(name, _MISSING)
            if old != new:
                rows = _snapshots.changed_rows(name, old, new)
                if rows.removed or rows.added:
                    changed.append(limited(rows, limit))
        marks = tuple((mark,) for mark in _schema_changes(first, last))
    if marks:
        rows = TableRows(SCHEMA, ("changed",), (), (), marks)
        changed.append(limited(rows, limit))
    return changed


def _in_memory(content: bytes) -> sqlite3.Connection:
    connection = sql.open_own()
    if content:
        connection.deserialize(content)
    return connection


def _internal(*connections: sqlite3.Connection) -> set[str]:
    """Return the names of tables and indexes that SQLite and its modules manage."""
    names = set()
    for connection in connections:
        rows = connection.execute(
            "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'shadow' "
            "UNION SELECT name FROM sqlite_master WHERE name LIKE 'sqlite\\_%' ESCAPE '\\'"
        )
        names |= {name for (name,) in rows}
    return names


def _definitions(connection: sqlite3.Connection) -> dict[str, str | None]:
    """Return the definitions of tables, indexes, triggers and views, such as ``table orders``."""
    rows = connection.execute("SELECT type || ' ' || name, sql FROM sqlite_master")
    return dict(rows.fetchall())


def _schema_changes(
    first: sqlite3.Connection, last: sqlite3.Connection
) -> Iterator[str]:
    """Yield the differences between the schemas, such as ``CREATE INDEX by_name``."""
    old = _definitions(first)
    new = _definitions(last)
    internal = _internal(first, last)
    for title in sorted({*old, *new}):
        kind, _, name = title.partition(" ")
        if name in internal or old.get(title, "") == new.get(title, ""):
            continue
        verb = "ALTER"
        if title not in old:
            verb = "CREATE"
        elif title not in new:
            verb = "DROP"
        yield f"{verb} {kind.upper()} {name}"


def _tables(connection: sqlite3.Connection) -> dict[str, ReadTable]:
    """Return the columns, the primary key and the rows of each table, without generated columns."""
    # An app may store text that is not UTF-8.
    connection.text_factory = lambda raw: raw.decode(errors="backslashreplace")
    names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
    tables = {}
    for (name,) in names.fetchall():
        with suppress(
            sqlite3.OperationalError
        ):  # the module of a virtual table is not loaded here
            info = connection.execute(f"PRAGMA table_info({_quoted(name)})").fetchall()
            columns = tuple(row[1] for row in info)
            key = sorted((row[5], row[1]) for row in info if row[5])
            shown = ", ".join(map(_quoted, columns))
            rows = connection.execute(f"SELECT {shown} FROM {_quoted(name)}")
            # The text has the types: 1 equals 1.0 in Python.
            read = [(repr(row), row) for row in rows]
            tables[name] = ReadTable(columns, tuple(name for _, name in key), read)
    return tables


def _quoted(name: str) -> str:
    doubled = name.replace('"', '""')
    return f'"{doubled}"'

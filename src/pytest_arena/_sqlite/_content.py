"""Digests of a database, and rows that differ."""

# ruff: noqa: S608 - names are written by _quoted() alone

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

from pytest_arena._changes import Row, limited, net
from pytest_arena._sqlite import _sql as sql
from pytest_arena._values import SCHEMA, TableRows

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator
    from pathlib import Path

_BEFORE = "before"
_AFTER = "after"


def _quoted(name: str) -> str:
    doubled = name.replace('"', '""')
    return f'"{doubled}"'


def digests(file: Path) -> dict[str, str]:
    """Return a digest of each object in a database, read by a new connection."""
    found = {}
    with closing(sql.open_own(file)) as connection, sql.reading(connection):
        # A text may not be UTF-8, so its bytes are read. The tuple is never equal to a blob.
        connection.text_factory = lambda raw: ("text", raw)
        [version] = connection.execute("PRAGMA user_version").fetchone()
        if version:  # without 0, an empty file equals a missing file
            found["user_version"] = str(version)
        schema = connection.execute(
            "SELECT CAST(type AS BLOB), CAST(name AS BLOB), sql FROM sqlite_master"
        )
        for raw_kind, raw_name, definition in schema.fetchall():
            kind = raw_kind.decode()
            name = raw_name.decode(errors="replace")
            found[f"definition of {kind} {name}"] = f"{_digest(definition):x}"
            if kind == "table":
                found[f"table {name}"] = _digest_of_rows(connection, _quoted(name))
    return found


def _digest_of_rows(connection: sqlite3.Connection, table: str) -> str:
    count = 0
    total = 0
    try:
        try:
            rows = connection.execute(f"SELECT rowid, * FROM {table}")
        except sqlite3.OperationalError:  # WITHOUT ROWID
            rows = connection.execute(f"SELECT * FROM {table}")
        for row in rows:
            # A sum needs no order, and counts two equal rows twice.
            total += _digest(row)
            count += 1
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_ERROR:
            raise
        return f"not to be read: {error}"  # without the app's functions or modules
    return f"{count} rows, {total:x}"


def _digest(value: object) -> int:
    text = repr(value).encode()
    return int.from_bytes(blake2b(text, digest_size=16).digest())


class _Table(NamedTuple):
    """A table in one of the two databases."""

    columns: tuple[str, ...] = ()
    key: tuple[str, ...] = ()
    has_rowid: bool = True

    @property
    def same_place(self) -> str:
        """The condition that finds a row's place in the other file by an index, or ""."""
        key = ["rowid"] if self.has_rowid else [*map(_quoted, self.key)]
        if key == ["rowid"] and "rowid" in self.columns:
            return ""  # the column hides the row's number
        return " AND ".join(f"x.{column} = y.{column}" for column in key)


_MISSING = _Table()


def changed_rows(before: bytes, after: bytes, limit: int | None) -> list[TableRows]:
    """Compare the contents of two databases. Return the net changes of each table."""
    changed = []
    with closing(sql.open_own()) as connection:
        # An app may store text that is not UTF-8.
        connection.text_factory = lambda raw: raw.decode(errors="backslashreplace")
        for side, content in ((_BEFORE, before), (_AFTER, after)):
            connection.execute(f"ATTACH ':memory:' AS {side}")
            if content:
                connection.deserialize(content, name=side)
        old_tables = _tables(connection, _BEFORE)
        new_tables = _tables(connection, _AFTER)
        for name in sorted({*old_tables, *new_tables}):
            old = old_tables.get(name, _MISSING)
            new = new_tables.get(name, _MISSING)
            with suppress(sqlite3.Error):
                rows = _changed_rows_of(connection, name, old, new)
                if rows.removed or rows.added:
                    changed.append(limited(rows, limit))
        marks = tuple((mark,) for mark in _schema_changes(connection))
        if marks:
            rows = TableRows(SCHEMA, ("changed",), (), (), marks)
            changed.append(limited(rows, limit))
    return changed


_NO_INTERNALS = "name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"


def _schema_changes(connection: sqlite3.Connection) -> Iterator[str]:
    """Yield the differences between the schemas, such as ``CREATE INDEX by_name``."""
    definitions = []
    for side in (_BEFORE, _AFTER):
        shadows = _names_of_tables(connection, side, "shadow")
        rows = connection.execute(
            f"SELECT type, name, sql FROM {side}.sqlite_master WHERE {_NO_INTERNALS}"
        )
        definitions.append(
            {(kind, name): text for kind, name, text in rows if name not in shadows}
        )
    old, new = definitions
    for kind, name in sorted({*old, *new}):
        before = old.get((kind, name))
        after = new.get((kind, name))
        if before is None:
            yield f"CREATE {kind.upper()} {name}"
        elif after is None:
            yield f"DROP {kind.upper()} {name}"
        elif before != after:
            yield f"ALTER {kind.upper()} {name}"


def _names_of_tables(
    connection: sqlite3.Connection, side: str, kind: str
) -> dict[str, bool]:
    """Return the names of a kind of table, and whether each lacks a rowid."""
    rows = connection.execute(f"PRAGMA {side}.table_list")  # since SQLite 3.37
    return {row[1]: bool(row[4]) for row in rows if row[2] == kind}


def _tables(connection: sqlite3.Connection, side: str) -> dict[str, _Table]:
    """Return the tables of a file by name, without shadow tables."""
    shadows = _names_of_tables(connection, side, "shadow")
    lacks_rowid = _names_of_tables(connection, side, "table")
    names = connection.execute(
        f"SELECT name FROM {side}.sqlite_master WHERE type = 'table' AND {_NO_INTERNALS}"
    )
    tables = {}
    for (name,) in names.fetchall():
        if name in shadows:
            continue
        with suppress(
            sqlite3.Error
        ):  # the module of a virtual table is not loaded here
            info = connection.execute(f"PRAGMA {side}.table_info({_quoted(name)})")
            columns = info.fetchall()
            key = sorted((row[5], row[1]) for row in columns if row[5])
            tables[name] = _Table(
                tuple(row[1] for row in columns),
                tuple(column for _, column in key),
                has_rowid=not lacks_rowid.get(name, False),
            )
    return tables


def _changed_rows_of(
    connection: sqlite3.Connection, name: str, old: _Table, new: _Table
) -> TableRows:
    columns = tuple(dict.fromkeys([*new.columns, *old.columns]))
    differing = None
    if old == new and new.same_place:
        with suppress(sqlite3.Error):  # a collation of the app
            differing = _differing_rows(connection, name, new)
    if differing is None:
        differing = [
            _all_rows(connection, _BEFORE, name, old, columns),
            _all_rows(connection, _AFTER, name, new, columns),
        ]
    old_rows, new_rows = map(_identified, differing)
    removed, added = net(old_rows, new_rows)
    key = old.key if new is _MISSING else new.key
    return TableRows(name, columns, key, removed=tuple(removed), added=tuple(added))


def _identified(rows: list[Row]) -> list[tuple[Hashable, Row]]:
    """Pair each row with an identity that contains the types, because 1 equals 1.0 in Python."""
    identities = [(*row, *map(type, row)) for row in rows]
    return list(zip(identities, rows, strict=True))


def _differing_rows(
    connection: sqlite3.Connection, name: str, table: _Table
) -> list[list[Row]]:
    """Return, for each file, the rows that differ from the row at the same place in the other."""
    conditions = [table.same_place]
    for column in map(_quoted, table.columns):
        # This compares bytes and types. For the app's collation different texts may be equal, and
        # for SQLite 1 equals 1.0.
        conditions.append(
            f"x.{column} IS y.{column} COLLATE BINARY "
            f"AND typeof(x.{column}) = typeof(y.{column})"
        )
    shown = ", ".join(f"x.{_quoted(column)}" for column in table.columns)
    quoted = _quoted(name)
    differing = []
    for here, there in ((_BEFORE, _AFTER), (_AFTER, _BEFORE)):
        query = (
            f"SELECT {shown} FROM {here}.{quoted} x WHERE NOT EXISTS "
            f"(SELECT 1 FROM {there}.{quoted} y WHERE {' AND '.join(conditions)})"
        )
        differing.append(connection.execute(query).fetchall())
    return differing


def _all_rows(
    connection: sqlite3.Connection,
    side: str,
    name: str,
    table: _Table,
    columns: tuple[str, ...],
) -> list[Row]:
    """Return all rows of a table, with None for a column that this file lacks."""
    if not table.columns:
        return []
    # SQLite reads an unknown name in quotes as a text, so the query has NULL in its place.
    shown = [
        _quoted(column) if column in table.columns else "NULL" for column in columns
    ]
    query = f"SELECT {', '.join(shown)} FROM {side}.{_quoted(name)}"
    return connection.execute(query).fetchall()

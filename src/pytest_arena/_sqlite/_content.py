"""Digests of a database, and rows that differ."""

# ruff: noqa: S608 - names are written by _quoted() alone

from __future__ import annotations

import re
import sqlite3
from contextlib import closing, suppress
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

from pytest_arena._changes import Row, limited, net
from pytest_arena._sqlite import _sql as sql
from pytest_arena._values import SCHEMA, TableRows

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator
    from pathlib import Path

    Execute = Callable[[str], sqlite3.Cursor]

_BEFORE = "before"
_AFTER = "after"
_ROWID_NAMES = ("rowid", "_rowid_", "oid")  # a column of the same name hides one
_COLLATION = re.compile(r"\bCOLLATE\s+([\"'`\[]?)(\w+)", re.IGNORECASE)
_BUILT_IN_COLLATIONS = frozenset({"binary", "nocase", "rtrim"})
# Values of table_xinfo's column `hidden`. `SELECT *` omits columns of the first kind.
_HIDDEN = 1
_GENERATED = 2


def _quoted(name: str) -> str:
    doubled = name.replace('"', '""')
    return f'"{doubled}"'


def digests(file: Path) -> dict[str, str]:
    """Return a digest of each object in a database, read by a new connection.

    Equal digests mean equal content. A table's digest covers the multiset of its rows, with their
    ``rowid`` and the types of their values. The digest of AUTOINCREMENT is its value. All other
    objects have the digest of their definition. If only the app's functions or modules can read a
    table, it has the digest of its definition. The rows of its shadow tables have digests, too.

    Cost: it reads all rows, 1 s for a million.

    Example::

        digests(Path("live.db"))
        # {"table orders": "3 rows, …", "sequence orders": "4", "definition of table orders": "…",
        #  "user_version": "7"}
    """
    with closing(sql.open_own(file)) as connection, sql.reading(connection):
        # A text may not be UTF-8, so its bytes are read. The tuple is never equal to a blob.
        connection.text_factory = lambda raw: ("text", raw)
        return dict(_digests(connection.execute))


def _digests(execute: Execute) -> Iterator[tuple[str, str]]:
    for pragma in ("user_version", "application_id"):
        number = execute(f"PRAGMA {pragma}").fetchone()[0]
        if number:  # without 0, an empty file equals a missing file
            yield pragma, str(number)
    schema = execute(
        "SELECT CAST(type AS BLOB), CAST(name AS BLOB), sql FROM sqlite_master"
    )
    for raw_kind, raw_name, definition in schema.fetchall():
        kind = raw_kind.decode()
        name = raw_name.decode(errors="replace")
        digest = _digest(definition)
        yield f"definition of {kind} {name}", f"{digest:x}"
        if name == "sqlite_sequence":
            yield from _sequences(execute)
        elif kind == "table":
            yield f"table {name}", _digest_of_rows(execute, _quoted(name))


def _sequences(execute: Execute) -> Iterator[tuple[str, str]]:
    for table, number in execute("SELECT CAST(name AS BLOB), seq FROM sqlite_sequence"):
        name = table.decode(errors="replace")
        yield f"sequence {name}", str(number)


def _digest_of_rows(execute: Execute, table: str) -> str:
    count = 0
    total = 0
    try:
        try:
            rows = execute(f"SELECT rowid, * FROM {table}")
        except sqlite3.OperationalError:  # WITHOUT ROWID
            rows = execute(f"SELECT * FROM {table}")
        for row in rows:
            # A sum needs no order, and counts two equal rows twice.
            total += _digest(row)
            count += 1
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_ERROR:
            raise
        return f"not to be read: {error}"
    return f"{count} rows, {total:x}"


def _digest(value: object) -> int:
    text = repr(value).encode()
    digest = blake2b(text, digest_size=16).digest()
    return int.from_bytes(digest)


class _Table(NamedTuple):
    """A table in one of the two databases."""

    columns: tuple[str, ...] = ()
    key: tuple[str, ...] = ()
    has_rowid: bool = True
    is_virtual: bool = False


_MISSING = _Table()


def changed_rows(before: bytes, after: bytes, limit: int | None) -> list[TableRows]:
    """Compare the contents of two databases. Return the net changes of each table.

    For a virtual table this compares the rows of a SELECT. If the table's extension is not loaded
    here, it compares the shadow tables. It omits columns that a function of the app generates.
    Changes of the schema are last: rows of "the schema" with one column, "changed".
    Cost: SQLite reads both. Python reads the rows that differ, and whole virtual tables.
    """
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
            rows = _changed_rows_of(connection, name, old, new)
            if rows.removed or rows.added:
                changed.append(limited(rows, limit))
        marks = tuple((mark,) for mark in _schema_changes(connection))
        if marks:
            rows = TableRows(SCHEMA, ("changed",), (), (), marks)
            changed.append(limited(rows, limit))
    return changed


def _schema_changes(connection: sqlite3.Connection) -> Iterator[str]:
    """Yield the differences between the schemas, such as ``CREATE INDEX by_name``."""
    old = _definitions(connection, _BEFORE)
    new = _definitions(connection, _AFTER)
    for kind, name in sorted({*old, *new}):
        before = old.get((kind, name))
        after = new.get((kind, name))
        if before is None:
            yield f"CREATE {kind.upper()} {name}"
        elif after is None:
            yield f"DROP {kind.upper()} {name}"
        elif before != after:
            yield f"ALTER {kind.upper()} {name}"
    [old_version] = connection.execute(f"PRAGMA {_BEFORE}.user_version").fetchone()
    [new_version] = connection.execute(f"PRAGMA {_AFTER}.user_version").fetchone()
    if old_version != new_version:
        yield f"PRAGMA user_version = {new_version}"


def _definitions(
    connection: sqlite3.Connection, side: str
) -> dict[tuple[str, str], str]:
    """Return the definitions in a file by kind and name, without SQLite's internal tables."""
    shadows, _ = _listed_tables(connection, side)
    rows = connection.execute(
        f"SELECT type, name, sql FROM {side}.sqlite_master "
        "WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
    )
    return {
        (kind, name): definition
        for kind, name, definition in rows
        if name not in shadows
    }


def _tables(connection: sqlite3.Connection, side: str) -> dict[str, _Table]:
    """Return the tables of a file by name.

    SQLite 3.37 and later list the shadow tables, which this omits. Earlier versions do not.
    """
    shadows, without_rowid = _listed_tables(connection, side)
    definitions = connection.execute(
        f"SELECT name, sql FROM {side}.sqlite_master "
        "WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
    )
    tables = {}
    for name, definition in definitions.fetchall():
        if name in shadows:
            continue
        _define_collations(connection, definition)
        columns, key = _columns_and_key(connection, side, name)
        tables[name] = _Table(
            columns,
            key,
            has_rowid=name not in without_rowid,
            is_virtual=definition.upper().startswith("CREATE VIRTUAL"),
        )
    return tables


def _listed_tables(
    connection: sqlite3.Connection, side: str
) -> tuple[set[str], set[str]]:
    """Return the names of a file's shadow tables, and of its tables without a rowid."""
    shadows = set()
    without_rowid = set()
    for row in connection.execute(f"PRAGMA {side}.table_list"):
        _, name, kind, _, is_without_rowid, *_ = row
        if kind == "shadow":
            shadows.add(name)
        if is_without_rowid:
            without_rowid.add(name)
    return shadows, without_rowid


def _define_collations(connection: sqlite3.Connection, definition: str) -> None:
    """Define the app's collations in a table. SQLite cannot read an index without its collation.

    An index may be in another order than a collation here has. Then SQLite does not find some rows.
    ``net`` removes the rows that were not found in both databases.
    """
    for match in _COLLATION.finditer(definition):
        if match[2].lower() not in _BUILT_IN_COLLATIONS:
            connection.create_collation(match[2], lambda _a, _b: 0)


def _columns_and_key(
    connection: sqlite3.Connection, side: str, table: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the readable columns of a table, and the columns of its primary key."""
    columns = []
    key = {}
    try:
        info = connection.execute(f"PRAGMA {side}.table_xinfo({_quoted(table)})")
    except sqlite3.Error:  # the table's extension is not loaded here
        return (), ()
    for _, column, _, _, _, place_in_key, hidden in info.fetchall():
        if place_in_key:
            key[place_in_key] = column
        is_readable = hidden != _HIDDEN
        if hidden == _GENERATED:
            is_readable = _is_computable(connection, side, table, column)
        if is_readable:
            columns.append(column)
    key_in_order = [key[place] for place in sorted(key)]
    return tuple(columns), tuple(key_in_order)


def _is_computable(
    connection: sqlite3.Connection, side: str, table: str, column: str
) -> bool:
    """Return whether SQLite can generate a column without a function of the app."""
    query = f"SELECT {_quoted(column)} FROM {side}.{_quoted(table)} LIMIT 0"
    try:
        connection.execute(query)
    except sqlite3.Error:
        return False
    return True


def _changed_rows_of(
    connection: sqlite3.Connection, name: str, old: _Table, new: _Table
) -> TableRows:
    differing = None
    if old == new and not new.is_virtual:
        with suppress(sqlite3.Error):  # a collation of the app
            differing = _differing_rows(connection, name, new)
    columns = tuple(dict.fromkeys([*new.columns, *old.columns]))
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
) -> list[list[Row]] | None:
    """Return, for each file, the rows that differ from the row at the same place in the other file.

    Return None if no index finds the place of a row.
    """
    same_place = _same_place(table)
    if not same_place:
        return None
    shown = []
    conditions = [same_place]
    for column in map(_quoted, table.columns):
        shown.append(f"x.{column}")
        # This compares bytes and types. For the app's collation different texts may be equal, and
        # for SQLite 1 equals 1.0.
        conditions.append(
            f"x.{column} IS y.{column} COLLATE BINARY "
            f"AND typeof(x.{column}) = typeof(y.{column})"
        )
    quoted = _quoted(name)
    differing = []
    for here, there in ((_BEFORE, _AFTER), (_AFTER, _BEFORE)):
        query = (
            f"SELECT {', '.join(shown)} FROM {here}.{quoted} x WHERE NOT EXISTS "
            f"(SELECT 1 FROM {there}.{quoted} y WHERE {' AND '.join(conditions)})"
        )
        differing.append(connection.execute(query).fetchall())
    return differing


def _same_place(table: _Table) -> str:
    """Return the condition that finds a row's place in the other file by an index, or ""."""
    if table.has_rowid:
        columns = {column.lower() for column in table.columns}
        for name in _ROWID_NAMES:
            if name not in columns:
                return f"x.{name} = y.{name}"
        return ""
    key = map(_quoted, table.key)
    return " AND ".join(f"x.{column} = y.{column}" for column in key)


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

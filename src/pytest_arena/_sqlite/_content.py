"""Digests of a database, and rows that differ.

Both read a database by SQL. The restore methods read and write bytes, so these check them.
"""

# ruff: noqa: S608 - names are written by _quoted() alone

from __future__ import annotations

import re
import sqlite3
from contextlib import closing, suppress
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

from pytest_arena._changes import Row, limited, net
from pytest_arena._sqlite import _sql as sql
from pytest_arena._values import TableRows

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator
    from pathlib import Path

    from pytest_arena._sqlite._restore import FileSnapshot

    Ask = Callable[[str], sqlite3.Cursor]

_BEFORE = "before"
_AFTER = "after"
_ROWID_NAMES = ("rowid", "_rowid_", "oid")  # a column of the same name hides one
_COLLATION = re.compile(r"\bCOLLATE\s+([\"'`\[]?)(\w+)", re.IGNORECASE)
_BUILT_IN_COLLATIONS = frozenset({"binary", "nocase", "rtrim"})
# Values of table_xinfo's column `hidden`. `SELECT *` leaves the first kind out.
_HIDDEN = 1
_GENERATED = 2


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class Moment:
    """A point in time, to compare with a later one.

    ``at`` is ``Restorer.settled`` and the data version of the file.
    """

    snapshot: FileSnapshot
    at: tuple[int, int]


def _quoted(name: str) -> str:
    doubled = name.replace('"', '""')
    return f'"{doubled}"'


def content(file: Path) -> dict[str, str]:
    """Return a digest of each thing in a database, as a new connection reads it.

    Equal digests mean equal content. A table's digest covers its rows as a multiset, with their
    ``rowid`` and the types of their values. The digest of AUTOINCREMENT is its number. All other
    things have the digest of their definition. If only the app's functions or modules can read a
    table, its definition counts, and for a virtual table the rows of its shadow tables.

    Cost: it reads all rows, 1 s for a million.

    Example::

        content(Path("live.db"))
        # {"table orders": "3 rows, …", "sequence orders": "4", "definition of table orders": "…",
        #  "user_version": "7"}

    Raises:
        Busy: a connection commits now.
        FileFailure: SQLite cannot read the file.
    """
    try:
        with closing(sql.open_control(file)) as connection, connection.reading():
            # Text as it is stored, which need not be UTF-8. The tuple is never equal to a blob.
            connection.text_factory = lambda raw: ("text", raw)
            return dict(_digests(connection.cursor().execute))
    except sqlite3.DatabaseError as error:
        raise sql.lock_or_failure(error) from error


def _digests(ask: Ask) -> Iterator[tuple[str, str]]:
    for pragma in ("user_version", "application_id"):
        number = ask(f"PRAGMA {pragma}").fetchone()[0]
        if number:  # 0 is left out, so that an empty file equals a missing one
            yield pragma, str(number)
    schema = ask(
        "SELECT CAST(type AS BLOB), CAST(name AS BLOB), sql FROM sqlite_master"
    ).fetchall()
    for raw_kind, raw_name, definition in schema:
        kind = raw_kind.decode()
        name = _decoded(raw_name)
        yield f"definition of {kind} {name}", f"{_digest(definition):x}"
        if name == "sqlite_sequence":
            yield from _sequences(ask)
        elif kind == "table":
            yield f"table {name}", _digest_of_rows(ask, _quoted(name))


def _sequences(ask: Ask) -> Iterator[tuple[str, str]]:
    for table, number in ask("SELECT CAST(name AS BLOB), seq FROM sqlite_sequence"):
        yield f"sequence {_decoded(table)}", str(number)


def _decoded(name: bytes) -> str:
    return name.decode("utf-8", "replace")


def _digest_of_rows(ask: Ask, table: str) -> str:
    count = 0
    total = 0
    try:
        try:
            rows = ask(f"SELECT rowid, * FROM {table}")
        except sqlite3.OperationalError:  # WITHOUT ROWID
            rows = ask(f"SELECT * FROM {table}")
        for row in rows:
            # A sum needs no order, and counts two equal rows twice.
            total += _digest(row)
            count += 1
    except sqlite3.OperationalError as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_ERROR:
            raise
        return f"not to be read: {error}"
    return f"{count} rows, {total:x}"


def _digest(value: object) -> int:
    return int.from_bytes(blake2b(repr(value).encode(), digest_size=16).digest())


class _Table(NamedTuple):
    """A table in one of the two files."""

    columns: tuple[str, ...] = ()
    key: tuple[str, ...] = ()
    has_rowid: bool = True
    is_virtual: bool = False
    collations: frozenset[str] = frozenset()  # the app's own


def changed_rows(
    before: Path, after: Path, *, limit: int | None = None
) -> list[TableRows]:
    """Compare two files that no connection writes to. Return the net changes of each table.

    A virtual table is compared by the rows that it shows. If its extension is not loaded here, its
    shadow tables are compared instead. Columns that a function of the app generates are left out.
    Cost: SQLite reads both files. Python reads the rows that differ, and whole virtual tables.

    Raises:
        FileFailure: one of the files is no database.
    """
    with closing(sql.open_memory()) as both:
        # An app may store text that is not UTF-8.
        both.text_factory = lambda raw: raw.decode(errors="backslashreplace")
        both.execute(f"ATTACH ? AS {_BEFORE}", (sql.unchanging(before),))
        both.execute(f"ATTACH ? AS {_AFTER}", (sql.unchanging(after),))
        old = _tables(both, _BEFORE)
        new = _tables(both, _AFTER)
        changed = []
        for name in sorted({*old, *new}):
            rows = _compared(both, name, old.get(name), new.get(name))
            if rows.removed or rows.added:
                changed.append(limited(rows, limit))
    return changed


def _tables(both: sql.OwnConnection, side: str) -> dict[str, _Table]:
    # SQLite 3.37 and later list the shadow tables. Before, they are compared as well.
    listed = both.execute(f"PRAGMA {side}.table_list").fetchall()
    shadows = {name for _, name, kind, *_ in listed if kind == "shadow"}
    without_rowid = {row[1] for row in listed if row[4]}
    definitions = both.execute(
        f"SELECT name, sql FROM {side}.sqlite_master "
        "WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
    ).fetchall()
    tables = {}
    for name, definition in definitions:
        if name not in shadows:
            has_rowid = name not in without_rowid
            tables[name] = _table(both, side, name, definition, has_rowid=has_rowid)
    return tables


def _table(
    both: sql.OwnConnection, side: str, name: str, definition: str, *, has_rowid: bool
) -> _Table:
    used = {collation.lower() for _, collation in _COLLATION.findall(definition)}
    collations = used - _BUILT_IN_COLLATIONS
    for collation in collations:
        # SQLite reads no row of a sorted table without its collation. This one finds all texts
        # equal, so that SQLite finds each row.
        both.create_collation(collation, lambda _a, _b: 0)
    try:
        info = both.execute(f"PRAGMA {side}.table_xinfo({_quoted(name)})").fetchall()
    except sql.FileFailure:  # the table's extension is not loaded here
        info = []
    columns = []
    key = []
    for _, column, _, _, _, place_in_key, hidden in info:
        if place_in_key:
            key.append((place_in_key, column))
        is_generated = hidden == _GENERATED
        if hidden == _HIDDEN or (
            is_generated and not _is_readable(both, side, name, column)
        ):
            continue
        columns.append(column)
    return _Table(
        tuple(columns),
        tuple(column for _, column in sorted(key)),
        has_rowid,
        definition.upper().startswith("CREATE VIRTUAL"),
        frozenset(collations),
    )


def _is_readable(both: sql.OwnConnection, side: str, name: str, column: str) -> bool:
    try:
        both.execute(f"SELECT {_quoted(column)} FROM {side}.{_quoted(name)} LIMIT 0")
    except sql.FileFailure:  # a function of the app generates it
        return False
    return True


def _compared(
    both: sql.OwnConnection, name: str, before: _Table | None, after: _Table | None
) -> TableRows:
    newest = after or before or _Table()
    columns = newest.columns
    pair = None
    if before == after and not newest.is_virtual:
        with suppress(sql.FileFailure, sqlite3.DatabaseError):  # a collation of the app
            pair = _differing_rows(both, name, newest)
    if pair is None:
        for column in (before or newest).columns:
            if column not in columns:
                columns = (*columns, column)
        old_rows = _all_rows(both, _BEFORE, name, before, columns)
        new_rows = _all_rows(both, _AFTER, name, after, columns)
    else:
        old_rows, new_rows = pair
    removed, added = net(_identified(old_rows), _identified(new_rows))
    return TableRows(
        name, columns, newest.key, removed=tuple(removed), added=tuple(added)
    )


def _identified(rows: list[Row]) -> list[tuple[Hashable, Row]]:
    # To Python, 1 and 1.0 are equal, so the types are part of a row's identity.
    return [((*row, *map(type, row)), row) for row in rows]


def _differing_rows(
    both: sql.OwnConnection, name: str, table: _Table
) -> tuple[list[Row], list[Row]] | None:
    """Return the rows without an equal row at their place in the other file, of both files.

    None if no index finds the place of a row.
    """
    match = _match(table)
    if not match:
        return None
    columns = [_quoted(column) for column in table.columns]
    shown = ", ".join(f"x.{column}" for column in columns)
    # Bytes and types are compared: the app's collation may find other texts equal, and 1 is 1.0.
    same = " AND ".join(
        f"x.{column} IS y.{column} COLLATE BINARY AND typeof(x.{column}) = typeof(y.{column})"
        for column in columns
    )

    def missing(here: str, there: str) -> list[Row]:
        return both.execute(
            f"SELECT {shown} FROM {here}.{_quoted(name)} x WHERE NOT EXISTS "
            f"(SELECT 1 FROM {there}.{_quoted(name)} y WHERE {match} AND {same})"
        ).fetchall()

    return missing(_BEFORE, _AFTER), missing(_AFTER, _BEFORE)


def _match(table: _Table) -> str:
    """Return the condition that finds a row's place in the other file by an index, "" if none."""
    if table.has_rowid:
        columns = {column.lower() for column in table.columns}
        for name in _ROWID_NAMES:
            if name not in columns:
                return f"x.{name} = y.{name}"
        return ""
    if table.collations:
        return ""
    key = [_quoted(column) for column in table.key]
    return " AND ".join(f"x.{column} = y.{column}" for column in key)


def _all_rows(
    both: sql.OwnConnection,
    side: str,
    name: str,
    table: _Table | None,
    columns: tuple[str, ...],
) -> list[Row]:
    """Return all rows of a table, with None for a column that this file has not."""
    if table is None or not table.columns:
        return []
    # SQLite takes an unknown name in quotes for a text, so NULL is in its place.
    shown = ", ".join(
        _quoted(column) if column in table.columns else "NULL" for column in columns
    )
    return both.execute(f"SELECT {shown} FROM {side}.{_quoted(name)}").fetchall()

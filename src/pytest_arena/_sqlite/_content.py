"""What stands in a database of SQLite's, and which rows are in one file and not in another?

Both are read as SQL, and not from a file's bytes, by which it may be brought back.
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

_BEFORE, _AFTER = "before", "after"
_ROWIDS = ("rowid", "_rowid_", "oid")  # a column of the name hides it
_COLLATION = re.compile(r"\bCOLLATE\s+([\"'`\[]?)(\w+)", re.IGNORECASE)
_SQLITES_OWN = frozenset({"binary", "nocase", "rtrim"})
_HIDDEN, _GENERATED = 1, 2  # as table_xinfo says it: `*` leaves the first out


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
    """Return a digest of each thing in a database, as a connection sees it that is new to it.

    Equal digests mean equal content: of a table its rows as a multiset, with their ``rowid`` and
    the types of their values; of AUTOINCREMENT its number; of everything else its definition. A
    table that only the app's own functions or modules can read is told as its pages are not: its
    definition counts, and for a virtual one the rows of its shadow tables.

    Cost: all rows are read, 1 s for a million.

    Example::

        content(Path("live.db"))
        # {"table orders": "3 rows, …", "sequence orders": "4", "definition of table orders": "…",
        #  "user_version": "0"}

    Raises:
        Busy: somebody is in the middle of a commit.
        FileFailure: it cannot be read.
    """
    try:
        with closing(sql.open_control(file)) as connection, connection.reading():
            # Text as it is stored, whether or not it is UTF-8; and never equal to a blob.
            connection.text_factory = lambda raw: ("text", raw)
            return dict(_digests(connection.cursor().execute))
    except sqlite3.DatabaseError as error:
        raise sql.lock_or_failure(error) from error


def _digests(ask: Ask) -> Iterator[tuple[str, str]]:
    for pragma in ("user_version", "application_id"):
        yield pragma, str(ask(f"PRAGMA {pragma}").fetchone()[0])
    schema = ask(
        "SELECT CAST(type AS BLOB), CAST(name AS BLOB), sql FROM sqlite_master"
    ).fetchall()
    for raw_kind, raw_name, definition in schema:
        kind, name = raw_kind.decode(), raw_name.decode("utf-8", "replace")
        yield f"definition of {kind} {name}", f"{_digest(definition):x}"
        if name == "sqlite_sequence":
            for table, number in ask(
                "SELECT CAST(name AS BLOB), seq FROM sqlite_sequence"
            ):
                yield f"sequence {table.decode('utf-8', 'replace')}", str(number)
        elif kind == "table":
            yield f"table {name}", _digest_of_rows(ask, _quoted(name))


def _digest_of_rows(ask: Ask, table: str) -> str:
    count = total = 0
    try:
        try:
            rows = ask(f"SELECT rowid, * FROM {table}")
        except sqlite3.OperationalError:  # WITHOUT ROWID
            rows = ask(f"SELECT * FROM {table}")
        for row in rows:
            # A sum does not ask for an order, and counts a row that is there twice as two.
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
    """One table as one of two files has it."""

    columns: tuple[str, ...] = ()
    key: tuple[str, ...] = ()
    has_rowid: bool = True
    is_virtual: bool = False
    collations: frozenset[str] = frozenset()  # the app's own, by which it is sorted


def changed_rows(
    before: Path, after: Path, *, limit: int | None = None
) -> list[TableRows]:
    """Compare two files that nobody writes to: the rows of each table, net.

    A virtual table is compared by what it shows, and not by the tables that it keeps it in.
    Tables whose extension is not loaded here are left out, and compared by those; so are columns
    that a function of the app's generates.
    Cost: SQLite reads both files; Python sees only rows that differ, and virtual tables whole.

    Raises:
        FileFailure: one of them is no database.
    """
    with closing(sql.open_memory()) as both:
        # Lossless: an app may store what is no UTF-8 as a text.
        both.text_factory = lambda raw: raw.decode(errors="backslashreplace")
        for side, file in ((_BEFORE, before), (_AFTER, after)):
            both.execute(f"ATTACH ? AS {side}", (sql.unchanging(file),))
        old, new = (_tables(both, side) for side in (_BEFORE, _AFTER))
        compared = [
            _compared(both, name, old.get(name), new.get(name))
            for name in sorted({*old, *new})
        ]
    return [limited(rows, limit) for rows in compared if rows.gone or rows.come]


def _tables(both: sql.OwnConnection, side: str) -> dict[str, _Table]:
    # Since SQLite 3.37; before, nothing is listed, and a virtual table's own ones count as well.
    listed = both.execute(f"PRAGMA {side}.table_list").fetchall()
    shadows = {name for _, name, kind, *_ in listed if kind == "shadow"}
    without_rowid = {row[1] for row in listed if row[4]}
    definitions = both.execute(
        f"SELECT name, sql FROM {side}.sqlite_master "
        "WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
    ).fetchall()
    return {
        name: _table(
            both, f"{side}.{_quoted(name)}", text, has_rowid=name not in without_rowid
        )
        for name, text in definitions
        if name not in shadows
    }


def _table(
    both: sql.OwnConnection, place: str, definition: str, *, has_rowid: bool
) -> _Table:
    collations = {
        name.lower() for _, name in _COLLATION.findall(definition)
    } - _SQLITES_OWN
    for collation in collations:
        # Before it is needed: SQLite reads no row of a sorted table without it. Where all are
        # equal, it reads them all to find one.
        both.create_collation(collation, lambda _a, _b: 0)
    side, _, name = place.partition(".")
    try:
        info = both.execute(f"PRAGMA {side}.table_xinfo({name})").fetchall()
    except sql.FileFailure:  # of an extension that is not loaded here
        info = []
    columns = tuple(
        row[1]
        for row in info
        if row[6] != _HIDDEN
        and (row[6] != _GENERATED or _is_readable(both, place, row[1]))
    )
    key = tuple(
        column for _, column in sorted((row[5], row[1]) for row in info if row[5])
    )
    is_virtual = definition.upper().startswith("CREATE VIRTUAL")
    return _Table(columns, key, has_rowid, is_virtual, frozenset(collations))


def _is_readable(both: sql.OwnConnection, place: str, column: str) -> bool:
    try:
        both.execute(f"SELECT {_quoted(column)} FROM {place} LIMIT 0")
    except sql.FileFailure:  # made by a function of the app's
        return False
    return True


def _compared(
    both: sql.OwnConnection, name: str, before: _Table | None, after: _Table | None
) -> TableRows:
    newest = after or before or _Table()
    columns, rows = newest.columns, None
    if before == after and not newest.is_virtual and (match := _match(newest)):
        with suppress(
            sql.FileFailure, sqlite3.DatabaseError
        ):  # a collation of the app's
            rows = _by_match(both, _quoted(name), newest, match)
    if rows is None:
        older = before or newest
        columns += tuple(column for column in older.columns if column not in columns)
        rows = tuple(
            _whole(both, f"{side}.{_quoted(name)}", table, columns)
            for side, table in ((_BEFORE, before), (_AFTER, after))
        )
    gone, come = net(*([(_identity(row), row) for row in side] for side in rows))
    return TableRows(name, columns, newest.key, gone=tuple(gone), come=tuple(come))


def _identity(row: Row) -> Hashable:
    return (*row, *map(type, row))  # to Python, 1 and 1.0 are the same


def _match(table: _Table) -> str:
    """Return what finds a row in the other file, by an index that is there in any case."""
    if not table.has_rowid:
        pairs = (f"x.{_quoted(name)} = y.{_quoted(name)}" for name in table.key)
        return "" if table.collations else " AND ".join(pairs)
    taken = {column.lower() for column in table.columns}
    return next((f"x.{name} = y.{name}" for name in _ROWIDS if name not in taken), "")


def _by_match(
    both: sql.OwnConnection, name: str, table: _Table, match: str
) -> tuple[list[Row], ...]:
    """Return the rows that have no equal at their place in the other file, of both sides."""
    shown = ", ".join(f"x.{_quoted(column)}" for column in table.columns)
    # By the bytes and the type: an app's collation may find other texts equal, and 1 is 1.0.
    same = " AND ".join(
        f"x.{column} IS y.{column} COLLATE BINARY AND typeof(x.{column}) = typeof(y.{column})"
        for column in map(_quoted, table.columns)
    )
    return tuple(
        both.execute(
            f"SELECT {shown} FROM {here}.{name} x WHERE NOT EXISTS "
            f"(SELECT 1 FROM {there}.{name} y WHERE {match} AND {same})"
        ).fetchall()
        for here, there in ((_BEFORE, _AFTER), (_AFTER, _BEFORE))
    )


def _whole(
    both: sql.OwnConnection, place: str, table: _Table | None, columns: tuple[str, ...]
) -> list[Row]:
    """Return all rows of a table, None for a column that it does not have on this side."""
    if table is None or not table.columns:
        return []
    # Not quoted where it is missing: SQLite takes an unknown name in quotes for a text.
    shown = (
        _quoted(column) if column in table.columns else "NULL" for column in columns
    )
    return both.execute(f"SELECT {', '.join(shown)} FROM {place}").fetchall()

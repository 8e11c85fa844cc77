"""SQLite: which rows are in one file and not in another, that once was a copy of it?"""

# ruff: noqa: S608 - names are written by _quoted() alone

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_arena._changes_net import Row, limited, net
from pytest_arena._sqlite._names import MEMORY, quoted
from pytest_arena._sqlite._sql import OwnConnection, lock_or_failure
from pytest_arena._values import TableRows

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator
    from pathlib import Path

__all__ = ["changed_rows", "copied_to_memory", "size"]

_BEFORE, _AFTER = "before", "after"
_ROWIDS = ("rowid", "_rowid_", "oid")  # a column of the name hides it
_COLLATION = re.compile(r"\bCOLLATE\s+([\"'`\[]?)(\w+)", re.IGNORECASE)
_SQLITES_OWN = frozenset({"binary", "nocase", "rtrim"})
_HIDDEN = 1  # a column of a virtual table's that `*` leaves out, says table_xinfo


@dataclass(frozen=True, slots=True)
class _Table:
    """One table as one of the files has it."""

    columns: tuple[str, ...] = ()
    key: tuple[str, ...] = ()
    has_rowid: bool = True
    is_virtual: bool = False
    collations: frozenset[str] = frozenset()  # the app's own, by which it is sorted


def size(control: sqlite3.Connection) -> int:
    """Return how many bytes a database has, its log's included. Costs some microseconds.

    Raises:
        Busy: a writer is in the middle of a commit.
    """
    try:
        pages: int = control.execute("PRAGMA page_count").fetchone()[0]
        page_size: int = control.execute("PRAGMA page_size").fetchone()[0]
    except sqlite3.DatabaseError as error:
        raise lock_or_failure(error) from error
    return pages * page_size


def copied_to_memory() -> sqlite3.Connection:
    """Open a memory database that anything may be copied into, from any thread."""
    return OwnConnection(MEMORY, check_same_thread=False)


def changed_rows(before: Path, after: Path, *, limit: int | None = None) -> list[TableRows]:
    """Compare two files that nobody writes to: the rows of each table, net.

    A virtual table is compared by what it shows, and not by the tables that it keeps it in.
    Tables whose extension is not loaded here are left out, and compared by those.
    Cost: SQLite reads both files; Python sees only rows that differ, and virtual tables whole.

    Raises:
        Failed: one of them is no database.
    """
    with closing(_open_both(before, after)) as both:
        try:
            tables = {side: _tables(both, side) for side in (_BEFORE, _AFTER)}
        except sqlite3.DatabaseError as error:
            raise lock_or_failure(error) from error
        names = sorted({*tables[_BEFORE], *tables[_AFTER]})
        found = [
            _compared(both, name, *(tables[side].get(name) for side in tables)) for name in names
        ]
    return [limited(rows, limit) for rows in found if rows.gone or rows.come]


def _open_both(before: Path, after: Path) -> sqlite3.Connection:
    both = OwnConnection(MEMORY, uri=True, isolation_level=None)
    # Lossless: an app may store what is no UTF-8 as a text.
    both.text_factory = lambda raw: raw.decode(errors="backslashreplace")
    try:
        for side, file in ((_BEFORE, before), (_AFTER, after)):
            name = f"file:{quoted(file)}?mode=ro&immutable=1"
            both.execute(f"ATTACH ? AS {_quoted(side)}", (name,))
    except sqlite3.DatabaseError as error:
        both.close()
        raise lock_or_failure(error) from error
    return both


def _quoted(name: str) -> str:
    doubled = name.replace('"', '""')
    return f'"{doubled}"'


def _tables(both: sqlite3.Connection, side: str) -> dict[str, _Table]:
    # Since SQLite 3.37; before, nothing is listed, and a virtual table's own ones count as well.
    listed = both.execute(f"PRAGMA {_quoted(side)}.table_list").fetchall()
    shadows = {name for _, name, kind, *_ in listed if kind == "shadow"}
    without_rowid = {row[1] for row in listed if row[4]}
    found = both.execute(
        f"SELECT name, sql FROM {_quoted(side)}.sqlite_master "
        "WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
    ).fetchall()
    return {
        name: _table(both, side, name, has_rowid=name not in without_rowid, sql=sql)
        for name, sql in found
        if name not in shadows
    }


def _table(both: sqlite3.Connection, side: str, name: str, *, has_rowid: bool, sql: str) -> _Table:
    is_virtual = sql.upper().startswith("CREATE VIRTUAL")
    collations = frozenset(one.lower() for _, one in _COLLATION.findall(sql)) - _SQLITES_OWN
    for collation in collations:
        # Before it is needed: SQLite reads no row of a sorted table without it. Where all are
        # equal, it reads them all to find one.
        both.create_collation(collation, _as_equals)
    try:
        info = both.execute(f"PRAGMA {_quoted(side)}.table_xinfo({_quoted(name)})").fetchall()
    except sqlite3.DatabaseError:  # of an extension that is not loaded here
        info = []
    columns = tuple(row[1] for row in info if row[6] != _HIDDEN)
    parts = sorted((row[5], row[1]) for row in info if row[5])
    key = tuple(column for _, column in parts)
    return _Table(columns, key, has_rowid, is_virtual, collations)


def _as_equals(_one: str, _other: str) -> int:
    return 0


def _compared(
    both: sqlite3.Connection, name: str, before: _Table | None, after: _Table | None
) -> TableRows:
    newest = after or before or _Table()
    if before == after and not newest.is_virtual:
        for match in _matches(newest):
            try:
                gone, come = _by_match(both, name, newest, match)
            except sqlite3.DatabaseError:  # a collation or a function of the app's
                continue
            return _net_rows(name, newest.columns, newest.key, gone, come)
    older = before or newest
    dropped = [column for column in older.columns if column not in newest.columns]
    columns = (*newest.columns, *dropped)
    gone = _whole(both, _BEFORE, name, before, columns)
    come = _whole(both, _AFTER, name, after, columns)
    return _net_rows(name, columns, newest.key, gone, come)


def _net_rows(
    name: str, columns: tuple[str, ...], key: tuple[str, ...], gone: list[Row], come: list[Row]
) -> TableRows:
    left = net(list(_known(gone)), list(_known(come)))
    return TableRows(name, columns, key, gone=tuple(left[0]), come=tuple(left[1]))


def _known(rows: Iterable[Row]) -> Iterator[tuple[Hashable, Row]]:
    for row in rows:
        yield (*row, *map(type, row)), row  # to Python, 1 and 1.0 are the same


def _matches(table: _Table) -> Iterator[str]:
    """Yield what finds a row in the other file, by an index that is there in any case."""
    if not table.has_rowid:
        if table.collations:
            return
        yield " AND ".join(f"x.{_quoted(name)} = y.{_quoted(name)}" for name in table.key)
        return
    taken = {column.lower() for column in table.columns}
    free = [name for name in _ROWIDS if name not in taken]
    if free:
        yield f"x.{free[0]} = y.{free[0]}"


def _by_match(
    both: sqlite3.Connection, name: str, table: _Table, match: str
) -> tuple[list[Row], list[Row]]:
    """Return the rows that have no equal at their place in the other file."""
    shown = ", ".join(f"x.{_quoted(column)}" for column in table.columns)
    # By the bytes and the type: an app's collation may find other texts equal, and 1 is 1.0.
    same = " AND ".join(
        f"x.{column} IS y.{column} COLLATE BINARY AND typeof(x.{column}) = typeof(y.{column})"
        for column in map(_quoted, table.columns)
    )
    sides = ((_BEFORE, _AFTER), (_AFTER, _BEFORE))
    gone, come = (
        both.execute(
            f"SELECT {shown} FROM {_quoted(here)}.{_quoted(name)} x WHERE NOT EXISTS "
            f"(SELECT 1 FROM {_quoted(there)}.{_quoted(name)} y WHERE {match} AND {same})"
        ).fetchall()
        for here, there in sides
    )
    return gone, come


def _whole(
    both: sqlite3.Connection, side: str, name: str, table: _Table | None, columns: tuple[str, ...]
) -> list[Row]:
    """Return all rows of a table, None for a column that it does not have on this side."""
    if table is None:
        return []
    ask = f"SELECT %s FROM {_quoted(side)}.{_quoted(name)}"
    try:
        return both.execute(ask % _shown(columns, table.columns)).fetchall()
    except sqlite3.DatabaseError:
        return _plain_ones(both, ask, table, columns)


def _plain_ones(
    both: sqlite3.Connection, ask: str, table: _Table, columns: tuple[str, ...]
) -> list[Row]:
    """Leave out the columns that a function of the app's generates, or all where that fails."""
    plain = []
    for column in table.columns:
        try:
            both.execute(f"{ask} LIMIT 0" % _shown((column,), table.columns))
        except sqlite3.DatabaseError:
            continue
        plain.append(column)
    if not plain:
        return []
    return both.execute(ask % _shown(columns, tuple(plain))).fetchall()


def _shown(columns: tuple[str, ...], there: tuple[str, ...]) -> str:
    # Not quoted where it is missing: SQLite takes an unknown name in quotes for a text.
    return ", ".join(_quoted(column) if column in there else "NULL" for column in columns)

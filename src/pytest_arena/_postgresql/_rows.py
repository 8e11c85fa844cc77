"""PostgreSQL: which rows are in one database and not in another, that once was a copy of it?"""

# ruff: noqa: S608 - names and texts are written by identifier() and literal() alone

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from pytest_arena._changes import Row, limited, net
from pytest_arena._postgresql._content import COLUMNS, KEY, in_batches, one_snapshot
from pytest_arena._postgresql._control import (
    Control,
    ControlFailure,
    identifier,
    literal,
)
from pytest_arena._values import TableRows

if TYPE_CHECKING:
    from collections.abc import Sequence


class _CatalogTable(NamedTuple):
    """A table of the app's, as the catalog has it."""

    name: str  # as the app has it
    columns: list[str]
    key: list[str]
    sources: list[str]  # what is read of it, written for FROM

    def rows(self, shown: str) -> str:
        """Write a query of each row's text, and of what else is ``shown``."""
        columns = ", ".join(map(identifier, self.columns))
        every = " UNION ALL ".join(
            f"SELECT {columns} FROM {source}" for source in self.sources
        )
        return f"SELECT ROW({columns})::text AS image{shown} FROM ({every}) AS every"

    def digest(self) -> str:
        """Write a query of how many rows there are, and of a number that they have in common."""
        # A sum does not ask for an order, and counts a row that is there twice as two.
        total = "coalesce(sum(pg_catalog.hashtextextended(image, 0)), 0)::text"
        return f"SELECT {literal(self.name)}, count(*), {total} FROM ({self.rows('')}) AS images"


@dataclass(frozen=True, slots=True)
class _Read:
    columns: tuple[str, ...] = ()
    key: tuple[str, ...] = ()
    rows: Sequence[tuple[str, Row]] = ()  # each with its text, by which it is compared


@dataclass(frozen=True, slots=True)
class Rows:
    """What stood in the tables of a database: a digest of each, and the rows that were read."""

    digests: dict[str, str] = field(default_factory=dict)
    tables: dict[str, _Read] = field(default_factory=dict)


def read_digests(control: Control) -> Rows:
    """Read no rows: enough to tell which tables are different. Raises as ``read_rows`` does."""
    with one_snapshot(control):
        return Rows(_digests(control, _tables(control)))


def read_rows(control: Control, *, unlike: Rows | None = None) -> Rows:
    """Read the rows of all tables, or only of those that are not as they are in another database.

    Left out are partitions and other rows on foreign servers, temporary tables, the change journal
    and what the login may not read; values that the driver has no type for are texts.

    Cost: the server reads all rows, 1 s for some million; Python those that are asked for.

    Raises:
        Failed: somebody holds a lock on a table (``55P03``), or the server is gone.
    """
    with one_snapshot(control):
        tables = _tables(control)
        digests = _digests(control, tables)
        known = unlike.digests if unlike is not None else {}
        wanted = [
            table for table in tables if digests[table.name] != known.get(table.name)
        ]
        return Rows(
            digests, {table.name: _read(control, table, digests) for table in wanted}
        )


def compared(before: Rows, after: Rows, *, limit: int | None = None) -> list[TableRows]:
    """Return what has gone from the tables, and come to them, net.

    Each has to hold the rows of the tables whose digests differ. A table that was made or dropped
    has all its rows come or gone; where columns were, their values are None on the other side.
    """
    names = {*before.digests, *after.digests}
    different = sorted(
        name for name in names if before.digests.get(name) != after.digests.get(name)
    )
    nothing = _Read()
    found = (
        _changed(
            name, before.tables.get(name, nothing), after.tables.get(name, nothing)
        )
        for name in different
    )
    return [limited(rows, limit) for rows in found if rows.removed or rows.added]


def _changed(name: str, before: _Read, after: _Read) -> TableRows:
    newest = after if after.columns else before
    dropped = [column for column in before.columns if column not in newest.columns]
    columns = (*newest.columns, *dropped)
    if before.columns == after.columns:
        removed, added = net(before.rows, after.rows)
    else:
        removed, added = net(_as(columns, before), _as(columns, after))
    return TableRows(
        name, columns, newest.key, removed=tuple(removed), added=tuple(added)
    )


def _as(columns: tuple[str, ...], table: _Read) -> list[tuple[str, Row]]:
    """The rows with other columns, compared by their values: their texts have other parts."""
    places = [
        table.columns.index(name) if name in table.columns else None for name in columns
    ]
    rows = [
        tuple(None if place is None else row[place] for place in places)
        for _, row in table.rows
    ]
    return [(repr(row), row) for row in rows]


def _tables(control: Control) -> list[_CatalogTable]:
    return [_CatalogTable(*row) for row in control.rows(_TABLES)]


def _digests(control: Control, tables: list[_CatalogTable]) -> dict[str, str]:
    rows = in_batches(control, [table.digest() for table in tables])
    found = {name: f"{number} rows, {total}" for name, number, total in rows}
    # Columns by name: a row's text would be the same under others.
    return {table.name: f"{found[table.name]}, {table.columns}" for table in tables}


def _read(control: Control, table: _CatalogTable, digests: dict[str, str]) -> _Read:
    is_empty = digests[table.name].startswith("0 rows")
    rows = (
        []
        if is_empty
        else [(image, tuple(row)) for image, *row in _values(control, table)]
    )
    return _Read(tuple(table.columns), tuple(table.key), rows)


def _values(control: Control, table: _CatalogTable) -> list[tuple[str, *Row]]:
    columns = "".join(f", {identifier(column)}" for column in table.columns)
    texts = "".join(f", {identifier(column)}::text" for column in table.columns)
    try:
        return control.rows(table.rows(columns))
    except ControlFailure as error:
        if error.sqlstate:
            raise
    # A value that the driver has no type for: a date in the year 10,000, for one.
    return control.rows(table.rows(texts))


_TABLES = f"""
SELECT CASE WHEN n.nspname = 'public' THEN c.relname ELSE n.nspname || '.' || c.relname END::text,
    {COLUMNS},
    {KEY},
    CASE WHEN c.relkind = 'r' OR NOT EXISTS (SELECT FROM pg_catalog.pg_partition_tree(c.oid) t
            JOIN pg_catalog.pg_class leaf ON leaf.oid = t.relid WHERE leaf.relkind = 'f')
        THEN ARRAY[CASE c.relkind WHEN 'r' THEN 'ONLY ' ELSE '' END
            || pg_catalog.format('%I.%I', n.nspname, c.relname)]
        ELSE ARRAY(SELECT 'ONLY ' || pg_catalog.format('%I.%I', s.nspname, leaf.relname)
            FROM pg_catalog.pg_partition_tree(c.oid) t
            JOIN pg_catalog.pg_class leaf ON leaf.oid = t.relid
            JOIN pg_catalog.pg_namespace s ON s.oid = leaf.relnamespace
            WHERE leaf.relkind IN ('r', 'p')) END
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence <> 't'
    AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'arena_journal')
    AND pg_catalog.has_schema_privilege(n.oid, 'USAGE')
    AND pg_catalog.has_table_privilege(c.oid, 'SELECT')
"""

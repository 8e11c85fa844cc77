"""Reads digests and rows of a database."""

# ruff: noqa: S608 - names and texts are written by identifier() and literal() alone

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pytest_arena._postgresql._content import COLUMNS, KEY, in_batches, one_snapshot
from pytest_arena._postgresql._control import (
    Control,
    ControlFailure,
    identifier,
    literal,
)
from pytest_arena._product._read_rows import ReadContent, ReadTable

if TYPE_CHECKING:
    from pytest_arena._changes import Row


class _CatalogTable(NamedTuple):
    """A table of the app, by PostgreSQL's catalog."""

    name: str  # with its schema, if that is not public
    columns: list[str]
    key: list[str]
    sources: list[str]  # the table or its partitions, written for FROM

    def rows(self, values: str) -> str:
        """Write the query of each row's text, followed by ``values``."""
        columns = ", ".join(map(identifier, self.columns))
        rows = " UNION ALL ".join(
            f"SELECT {columns} FROM {source}" for source in self.sources
        )
        return f"SELECT ROW({columns})::text AS image{values} FROM ({rows}) AS rows"

    def digest(self) -> str:
        """Write the query of the number of rows and the sum of their hashes."""
        # A sum does not depend on the order, and counts equal rows.
        total = "coalesce(sum(pg_catalog.hashtextextended(image, 0)), 0)::text"
        return f"SELECT {literal(self.name)}, count(*), {total} FROM ({self.rows('')}) AS images"


def read_digests(control: Control) -> ReadContent:
    """Read only the digests, which show the tables that differ. Raises as ``read_rows`` does."""
    with one_snapshot(control):
        return ReadContent(_digests(control, _tables(control)))


def read_rows(control: Control, *, unlike: ReadContent | None = None) -> ReadContent:
    """Read the rows of all tables, or of those that differ from another database's.

    It omits rows on foreign servers, temporary tables, the change journal, and tables that the
    login may not read. If the driver has no type for a value, the values of its table are texts.

    Cost: the server reads all rows, some million in a second. Python gets the requested rows.

    Raises:
        ControlFailure: another session locks a table (``55P03``), or the server does not answer.
    """
    with one_snapshot(control):
        tables = _tables(control)
        digests = _digests(control, tables)
        known = unlike.digests if unlike is not None else {}
        rows = {}
        for table in tables:
            if digests[table.name] != known.get(table.name):
                rows[table.name] = _read(control, table, digests)
        return ReadContent(digests, rows)


def _tables(control: Control) -> list[_CatalogTable]:
    return [_CatalogTable(*row) for row in control.rows(_TABLES)]


def _digests(control: Control, tables: list[_CatalogTable]) -> dict[str, str]:
    rows = in_batches(control, [table.digest() for table in tables])
    totals = {name: f"{number} rows, {total}" for name, number, total in rows}
    # A row's text does not have the names of the columns.
    return {table.name: f"{totals[table.name]}, {table.columns}" for table in tables}


def _read(control: Control, table: _CatalogTable, digests: dict[str, str]) -> ReadTable:
    rows: list[tuple[str, Row]] = []
    if not digests[table.name].startswith("0 rows"):
        rows = [(image, tuple(row)) for image, *row in _values(control, table)]
    return ReadTable(tuple(table.columns), tuple(table.key), rows)


def _values(control: Control, table: _CatalogTable) -> list[tuple[str, *Row]]:
    columns = "".join(f", {identifier(column)}" for column in table.columns)
    texts = "".join(f", {identifier(column)}::text" for column in table.columns)
    try:
        return control.rows(table.rows(columns))
    except ControlFailure as error:
        if error.sqlstate:
            raise
    # The driver has no type for a value, such as a date in the year 10,000.
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

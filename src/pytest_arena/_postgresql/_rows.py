"""Reads digests and rows of a database."""

# ruff: noqa: S608 - names and texts are written by identifier() and literal() alone

from __future__ import annotations

from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_arena._postgresql._control import (
    ControlFailure,
    identifier,
    literal,
)
from pytest_arena._product._snapshots import ReadContent, ReadTable, compared

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pytest_arena._changes import Row
    from pytest_arena._product._server_control import Control
    from pytest_arena._values import TableRows

# With these settings equal values have equal texts. Settings of the login, of the database and of
# the connection have no effect.
_BEGIN_READING = """
    BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
    SET LOCAL search_path = pg_catalog;
    SET LOCAL lock_timeout = '1s';
    SET LOCAL statement_timeout = 0;
    SET LOCAL datestyle = 'ISO, YMD';
    SET LOCAL intervalstyle = 'postgres';
    SET LOCAL extra_float_digits = 1;
    SET LOCAL bytea_output = 'hex';
    SET LOCAL xmloption = 'content'
"""
# The name of a table ``c``, its columns, and its primary key.
NAME = """CASE WHEN n.nspname = 'public' THEN c.relname
        ELSE n.nspname || '.' || c.relname END::text"""
COLUMNS = """ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated <> 'v'
        ORDER BY a.attnum)"""
KEY = """ARRAY(SELECT a.attname::text FROM pg_catalog.pg_index i
        CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY k(attnum, place)
        JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
        WHERE i.indrelid = c.oid AND i.indisprimary AND k.place <= i.indnkeyatts
        ORDER BY k.place)"""

_AT_ONCE = 50  # queries in one statement, which PostgreSQL plans as a whole


@contextmanager
def one_snapshot(control: Control) -> Iterator[None]:
    """Read the same snapshot in all queries of the block, in one transaction.

    By default times have the database's time zone.
    """
    control.run(_BEGIN_READING)
    try:
        yield
    finally:
        with suppress(ControlFailure):  # a lost connection has raised an error before
            control.run("ROLLBACK")


def in_batches(control: Control, queries: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of many queries, in few round trips."""
    for start in range(0, len(queries), _AT_ONCE):
        yield from control.rows(" UNION ALL ".join(queries[start : start + _AT_ONCE]))


class _CatalogTable(NamedTuple):
    """A table of the app, by PostgreSQL's catalog."""

    name: str  # with its schema, if that is not public
    columns: list[str]
    key: list[str]
    source: str  # written for FROM

    def rows(self, values: str) -> str:
        """Write the query of each row's text, followed by ``values``."""
        columns = ", ".join(map(identifier, self.columns))
        return f"SELECT ROW({columns})::text AS image{values} FROM {self.source}"

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

    It omits temporary tables, the change journal, and tables that the login may not read. If the
    driver has no type for a value, the values of its table are texts.

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


def compare(
    before: Callable[[Callable[[Control], ReadContent]], ReadContent],
    after: Callable[[Callable[[Control], ReadContent]], ReadContent],
    limit: int | None,
) -> list[TableRows]:
    """Return the net difference of two contents. Read the rows of tables whose digests differ.

    Each function calls another one with a connection to its content.
    """
    digests = before(read_digests)
    new = after(partial(read_rows, unlike=digests))
    old = before(partial(read_rows, unlike=new))
    return compared(old, new, limit=limit)


def read_content(control: Control) -> dict[str, str]:
    """Return a digest of each table, sequence and definition of a table.

    Equal digests mean equal content. The digests are read from the database itself, not from a
    journal, so that they can check it.

    Raises:
        ControlFailure: another session locks a table (``55P03``), or the server does not answer.
    """
    with one_snapshot(control):
        definitions = dict(control.rows(_DEFINITIONS))
        called = "CASE WHEN is_called THEN ', called' ELSE ', not called' END"
        sequences = [
            f"SELECT {literal(f'sequence {name}')}, last_value || {called} FROM {quoted}"
            for name, quoted in control.rows(_SEQUENCES)
        ]
        tables = [table.digest() for table in _tables(control)]
        values = dict(in_batches(control, sequences))
        rows = {
            f"table {name}": f"{number} rows, {total}"
            for name, number, total in in_batches(control, tables)
        }
        return {**definitions, **values, **rows}


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
SELECT {NAME}, {COLUMNS}, {KEY},
    CASE c.relkind WHEN 'r' THEN 'ONLY ' ELSE '' END
        || pg_catalog.format('%I.%I', n.nspname, c.relname)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence <> 't'
    AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema')
    AND pg_catalog.has_schema_privilege(n.oid, 'USAGE')
    AND pg_catalog.has_table_privilege(c.oid, 'SELECT')
"""
_OF_APP = """n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
    AND c.relpersistence <> 't'"""
_SEQUENCES = f"""
SELECT {NAME}, pg_catalog.format('%I.%I', n.nspname, c.relname)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE {_OF_APP} AND CASE c.relkind WHEN 'S' THEN pg_catalog.has_schema_privilege(n.oid, 'USAGE')
    AND pg_catalog.has_sequence_privilege(c.oid, 'SELECT') END
"""
# The columns and constraints of each table.
_DEFINITIONS = f"""
SELECT 'definition of table ' || {NAME}, md5(concat(
    (SELECT string_agg(concat_ws(' ', a.attname, format_type(a.atttypid, a.atttypmod),
        a.attnotnull, a.attidentity, a.attgenerated, pg_get_expr(d.adbin, d.adrelid)), ','
        ORDER BY a.attnum)
     FROM pg_catalog.pg_attribute a
     LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
     WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
    (SELECT string_agg(k.conname || pg_get_constraintdef(k.oid), ',' ORDER BY k.conname)
     FROM pg_catalog.pg_constraint k WHERE k.conrelid = c.oid)))
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'f') AND {_OF_APP}
"""

"""Reads digests and rows of a database."""

# ruff: noqa: S608 - names and texts are written by identifier() and literal() alone

from __future__ import annotations

from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_arena._postgresql._control import (
    ControlFailure,
    identifier,
    literal,
    open_control,
)
from pytest_arena._product._snapshots import ReadTable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pytest_arena._changes import Row
    from pytest_arena._process import Answer
    from pytest_arena._product._server_control import Control
    from pytest_arena._product._snapshots import ReadContent
    from pytest_arena._values import Address

# With these settings equal rows have equal texts, whatever the app's session has set.
IMAGE_SETTINGS = {
    "datestyle": "ISO, YMD",
    "intervalstyle": "postgres",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "timezone": "UTC",
    "lc_monetary": "C",
}
_READING = {
    "search_path": "pg_catalog",
    "lock_timeout": "1s",
    "statement_timeout": "0",
    **IMAGE_SETTINGS,
}
_BEGIN_READING = "; ".join(
    [
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        *(f"SET LOCAL {name} = '{value}'" for name, value in _READING.items()),
    ]
)
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


@contextmanager
def one_snapshot(control: Control) -> Iterator[None]:
    """Read the same snapshot in all queries of the block, in one transaction."""
    control.run(_BEGIN_READING)
    try:
        yield
    finally:
        with suppress(ControlFailure):  # a lost connection has raised an error before
            control.run("ROLLBACK")


def in_one(control: Control, queries: Sequence[str]) -> list[tuple[Any, ...]]:
    """Return the rows of many queries, in one round trip."""
    return control.rows(" UNION ALL ".join(queries)) if queries else []


def read(address: Address, question: Callable[[Control], Answer]) -> Answer:
    """Ask a separate connection to a database."""
    with closing(open_control(address)) as control:
        return question(control)


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


def read_rows(control: Control) -> ReadContent:
    """Read the rows of all tables.

    It omits temporary tables, the change journal, and tables that the login may not read. If the
    driver has no type for a value, the values of its table are texts.

    Raises:
        ControlFailure: another session locks a table (``55P03``), or the server does not answer.
    """
    content = {}
    with one_snapshot(control):
        for table in _tables(control):
            rows = [(image, tuple(row)) for image, *row in _values(control, table)]
            content[table.name] = ReadTable(tuple(table.columns), tuple(table.key), rows)
    return content


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
        values = dict(in_one(control, sequences))
        rows = {
            f"table {name}": f"{number} rows, {total}"
            for name, number, total in in_one(control, tables)
        }
        return {**definitions, **values, **rows}


def _tables(control: Control) -> list[_CatalogTable]:
    return [_CatalogTable(*row) for row in control.rows(_TABLES)]


def _values(control: Control, table: _CatalogTable) -> list[tuple[str, *Row]]:
    columns = "".join(f", {identifier(column)}" for column in table.columns)
    texts = "".join(f", {identifier(column)}::text" for column in table.columns)
    try:
        return control.rows(table.rows(columns))
    except ControlFailure:
        # The driver has no type for a value, such as a date in the year 10,000.
        return control.rows(table.rows(texts))


_OF_APP = """n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
    AND c.relpersistence <> 't'"""
_TABLES = f"""
SELECT {NAME}, {COLUMNS}, {KEY},
    pg_catalog.format('ONLY %I.%I', n.nspname, c.relname)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND {_OF_APP}
    AND pg_catalog.has_schema_privilege(n.oid, 'USAGE')
    AND pg_catalog.has_table_privilege(c.oid, 'SELECT')
"""
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

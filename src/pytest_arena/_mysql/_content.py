"""Reads digests and rows of a database."""

# ruff: noqa: S608 - names and texts are written by identifier() and literal() alone

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from pytest_arena._mysql._clone import columns_of, read_plan
from pytest_arena._mysql._control import MySQLControl, identifier, literal
from pytest_arena._product._read_rows import ReadContent, ReadTable
from pytest_arena._values import digest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_AT_ONCE = 50  # tables in one statement
# Types whose texts are exact. The text of a FLOAT has six digits, and as DOUBLE all digits.
_WITH_EXACT_TEXT = {
    "tinyint",
    "smallint",
    "mediumint",
    "int",
    "bigint",
    "decimal",
    "double",
    "date",
    "time",
    "datetime",
    "timestamp",
    "year",
    "uuid",
    "inet4",
    "inet6",
}


@dataclass(frozen=True, slots=True)
class _MeasuredTable:
    name: str
    columns: tuple[str, ...]
    key: tuple[str, ...]
    image: str  # the expression for a row's text
    place: str  # the quoted name

    def digest(self) -> str:
        """Write the query of the number of rows and the sum of their hashes."""
        # A sum does not depend on the order, and counts equal rows.
        halves = []
        for start in (1, 17):
            half = f"CONV(SUBSTR(SHA2(image, 256), {start}, 16), 16, 10)"
            halves.append(f"COALESCE(SUM(CAST({half} AS UNSIGNED)), 0)")
        return (
            f"SELECT {literal(self.name)}, CONCAT(COUNT(*), ' rows, ', {halves[0]}, ' ', "
            f"{halves[1]}) FROM (SELECT {self.image} AS image FROM {self.place}) AS images"
        )


def read_rows(
    control: MySQLControl,
    database: str,
    tables: Mapping[str, str] = MappingProxyType({}),
    *,
    unlike: ReadContent | None = None,
    only_digests: bool = False,
) -> ReadContent:
    """Read the rows of all tables, or of the tables that differ from another database's.

    ``tables`` names other tables to read in place of the database's tables.

    Cost: the server reads all rows. Python gets the requested rows.

    Raises:
        MySQLFailure: the server does not answer, or the database was dropped.
    """
    measured = _tables(control, database, tables)
    digests = _digests(control, measured)
    known = unlike.digests if unlike is not None else {}
    rows = {}
    for table in measured:
        if not only_digests and digests[table.name] != known.get(table.name):
            rows[table.name] = _read(control, table)
    return ReadContent(digests, rows)


def _tables(
    control: MySQLControl, database: str, places: Mapping[str, str]
) -> list[_MeasuredTable]:
    schema = literal(database)
    keys: dict[str, list[str]] = {}
    for table, column in control.rows(
        "SELECT table_name, column_name FROM information_schema.key_column_usage "
        f"WHERE table_schema = {schema} AND constraint_name = 'PRIMARY' "
        "ORDER BY table_name, ordinal_position"
    ):
        keys.setdefault(table, []).append(column)
    listed = control.rows(
        "SELECT table_name FROM information_schema.tables WHERE "
        f"table_schema = {schema} AND table_type NOT IN ('VIEW', 'SEQUENCE')"
    )
    names = {name for (name,) in listed}
    tables = []
    for name, columns in columns_of(control, database).items():
        if name not in names:
            continue
        names_of_columns = tuple(column for column, _ in columns)
        # The key of a system-versioned table has a column that no query returns.
        key = tuple(
            column for column in keys.get(name, ()) if column in names_of_columns
        )
        parts = ", ',', ".join(_text(column, kind) for column, kind in columns)
        place = f"{identifier(database)}.{identifier(name)}"
        table = _MeasuredTable(
            name,
            names_of_columns,
            key,
            f"CONCAT({parts}, '')",
            places.get(name, place),
        )
        tables.append(table)
    return tables


def _text(column: str, kind: str) -> str:
    """Write the expression for a value's text. The value's character set has no effect."""
    name = identifier(column)
    text = f"HEX({name})"
    if kind.lower() == "float":
        text = f"CAST({name} + 0e0 AS CHAR CHARACTER SET utf8mb4)"
    elif kind.lower() in _WITH_EXACT_TEXT:
        text = f"CAST({name} AS CHAR CHARACTER SET utf8mb4)"
    return f"COALESCE(CONCAT('v', {text}), 'NULL')"


def _digests(control: MySQLControl, tables: Sequence[_MeasuredTable]) -> dict[str, str]:
    digests: dict[str, str] = {}
    for start in range(0, len(tables), _AT_ONCE):
        some = tables[start : start + _AT_ONCE]
        question = " UNION ALL ".join(table.digest() for table in some)
        for name, text in control.rows(question):
            digests[name] = str(text)
    # A row's text does not have the names of the columns.
    return {table.name: f"{digests[table.name]}, {table.columns}" for table in tables}


def _read(control: MySQLControl, table: _MeasuredTable) -> ReadTable:
    columns = ", ".join(map(identifier, table.columns))
    answer = control.rows(f"SELECT {table.image}, {columns} FROM {table.place}")
    rows = [(image, tuple(values)) for image, *values in answer]
    return ReadTable(table.columns, table.key, rows)


def content(control: MySQLControl, database: str) -> dict[str, str]:
    """Return a digest of each object in a database.

    Equal digests mean equal content. The content of a table is the multiset of its rows. The
    content of any other object is its definition. The definition of a table contains its next
    AUTO_INCREMENT value.

    Cost: the server reads all rows and definitions.

    Raises:
        MySQLFailure: the server does not answer, or refuses.
    """
    rows = read_rows(control, database, only_digests=True)
    digests = {f"table {name}": text for name, text in rows.digests.items()}
    plan = read_plan(control, database)
    digests["settings of the database"] = plan.options
    for definition in (*plan.tables, *plan.views, *plan.programs):
        text = definition.replace(database, "")
        first = next(line for line in text.splitlines() if not line.startswith("SET "))
        digests[f"definition of {first[:60]} {digest(first)[:6]}"] = digest(text)
    return digests

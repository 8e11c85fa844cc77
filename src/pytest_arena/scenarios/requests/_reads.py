"""The tables and rows that a request reads."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from itertools import islice
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Integer,
    Select,
    String,
    Table,
    TypeDecorator,
    Uuid,
)
from sqlalchemy import Enum as EnumType
from sqlalchemy.engine.cursor import CursorFetchStrategy
from sqlalchemy.engine.default import DefaultExecutionContext
from sqlalchemy.types import TypeEngine

MOST_ROWS = 200
"""The largest number of rows to read from a table or a query."""

Row = Mapping[str, object]

_PlainColumns = tuple[tuple[int, str, str], ...]
"""The columns of a query whose values come from tables unchanged: place, table, column key."""

_INSERTS_INTO = re.compile(r"^\s*INSERT\s+INTO\s+\S+", re.IGNORECASE)
_QUERY = re.compile(r"\bSELECT\b", re.IGNORECASE)
_WORD = re.compile(r"\w+")
_STREAMED = frozenset({"stream_results", "yield_per"})


def read_of(
    statements: Iterable[str],
    tables: Iterable[str],
) -> tuple[str, ...]:
    """Return the tables that the statements may read."""
    words: set[str] = set()
    for statement in statements:
        words |= _words(statement)
    return tuple(sorted(table for table in tables if _words_of_name(table) <= words))


# Each test runs the same limited number of statements again.
@lru_cache(maxsize=5_000)
def _words(statement: str) -> frozenset[str]:
    rest, inserts = _INSERTS_INTO.subn(" ", statement)
    if inserts and not _QUERY.search(rest):
        return frozenset()  # a plain insert reads no table
    return frozenset(_WORD.findall(rest.lower()))


@lru_cache(maxsize=5_000)
def _words_of_name(table: str) -> frozenset[str]:
    return frozenset(_WORD.findall(bare(table)))


def bare(table: str) -> str:
    """Return ``log`` for ``analytics/audit.log``: the table without its database and schema."""
    return table.rpartition("/")[2].rpartition(".")[2].lower()


@dataclass(slots=True, eq=False)
class RowsRead:
    """The rows that the queries of one request fetched from plain cursors."""

    by_statement: dict[str, list[Mapping[str, Row]]] = field(default_factory=dict)
    """The unchanged column values of each fetched row, by table."""

    def statement_ran(self, statement: str, context: object) -> None:
        """Record the rows that are fetched from the cursor of an executed statement."""
        if not isinstance(context, DefaultExecutionContext):
            return
        if type(context.cursor_fetch_strategy) is not CursorFetchStrategy:
            return  # SQLAlchemy does not fetch the rows from the cursor
        if context.is_crud or _STREAMED & context.execution_options.keys():
            return
        columns = _plain_columns(context.compiled)
        record = partial(self._record, statement, columns)
        context.cursor_fetch_strategy = _RecordingStrategy(record)

    def _record(
        self,
        statement: str,
        columns: _PlainColumns,
        rows: Iterable[Sequence[object]],
    ) -> None:
        recorded = self.by_statement.setdefault(statement, [])
        for row in islice(rows, MOST_ROWS):
            values: dict[str, dict[str, object]] = defaultdict(dict)
            for place, table, key in columns:
                values[table][key] = row[place]
            recorded.append(values)

    def may_include(
        self,
        statement: str,
        table: str,
        seeded: Sequence[Row],
    ) -> bool:
        """Return whether a query may have returned one of the seeded rows of a table."""
        rows = self.by_statement.get(statement)
        if rows is None or len(rows) >= MOST_ROWS:
            return True
        if not seeded:  # the seeded values are unknown, so any row may be one of them
            return bool(rows)
        for row in rows:
            values = row.get(table, {})
            if any(_may_be_same(values, seeded_row) for seeded_row in seeded):
                return True
        return False


class _RecordingStrategy(CursorFetchStrategy):
    """Fetches rows as SQLAlchemy does, and records them."""

    __slots__ = ("_record",)

    def __init__(self, record: Callable[[Iterable[Sequence[object]]], None]) -> None:
        self._record = record

    def fetchone(self, *args: Any, **options: Any) -> object:
        row = super().fetchone(*args, **options)
        if row is None:
            self._record([])
        else:
            self._record([row])
        return row

    def fetchmany(self, *args: Any, **options: Any) -> object:
        rows = super().fetchmany(*args, **options)
        self._record(rows)
        return rows

    def fetchall(self, *args: Any) -> Any:
        rows = super().fetchall(*args)
        self._record(rows)
        return rows


@lru_cache(maxsize=1_000)  # SQLAlchemy caches compiled queries as well
def _plain_columns(compiled: Any) -> _PlainColumns:
    """Return the columns of a query whose values come from tables unchanged."""
    if not isinstance(getattr(compiled, "statement", None), Select):
        return ()  # a text, a union
    columns = []
    for place, entry in enumerate(compiled._result_columns):  # noqa: SLF001 - no public name
        column = _plain_column(entry.objects)
        if column is not None:
            columns.append((place, column))
    if len({column for _, column in columns}) < len(columns):
        return ()  # a self-join
    return tuple(
        (place, bare(column.table.name), column.key) for place, column in columns
    )


def _plain_column(objects: Iterable[object]) -> Column[Any] | None:
    """Return the table's column behind a result column, or None for a computed value."""
    base_columns: set[ColumnElement[object]] = set()
    for element in objects:
        if isinstance(element, ColumnElement):
            base_columns |= element.base_columns
    match [*base_columns]:
        case [Column(table=Table()) as column] if _keeps_text(column.type):
            return column
    return None


def _keeps_text(kind: TypeEngine[object]) -> bool:
    """Return whether a value of this type has the same text when it is written and read."""
    if isinstance(kind, TypeDecorator):
        is_changed = (
            type(kind).process_bind_param is not TypeDecorator.process_bind_param
        )
        return not is_changed and _keeps_text(kind.impl_instance)
    return isinstance(kind, String | Integer | Uuid) and not isinstance(kind, EnumType)


def _may_be_same(row: Row, seeded: Row) -> bool:
    """Return whether the columns that both rows have are equal."""
    for key in row.keys() & seeded.keys():
        if _comparable(row[key]) != _comparable(seeded[key]):
            return False
    return True


def _comparable(value: object) -> str:
    """Return a text to compare. SQLite drops hyphens of UUIDs, and PostgreSQL pads CHAR."""
    return str(value).replace("-", "").rstrip()

"""Reads tables, keys and foreign keys of a database, and writes expressions of their rows."""

# ruff: noqa: S608 - names and texts are written by identifier() and literal() alone

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pytest_arena._mysql._control import identifier, literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pytest_arena._mysql._control import MySQLControl

# The table of a template that has its label. It is no part of the content.
LABEL = "arena_manifest"
# The texts of these values are exact. The server compares them, and the next ones, exactly.
_EXACT_TEXT = re.compile(
    "(tiny|small|medium|big)?int|decimal|double|date|time|datetime|timestamp|year|uuid|inet[46]"
)
_EXACT = re.compile(rf"{_EXACT_TEXT.pattern}|float|bit|(var)?binary|\w*blob")
_TEXT = re.compile(r"(var)?char|\w*text|enum|set")


@dataclass(frozen=True, slots=True)
class Table:
    """A table. ``columns`` are pairs of a name and a type, without generated columns.

    ``key`` has the columns of the primary key.
    """

    name: str
    columns: tuple[tuple[str, str], ...]
    key: tuple[str, ...]
    counter: int | None  # the next AUTO_INCREMENT value
    rows: int  # the server's estimate

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the columns."""
        return tuple(name for name, _ in self.columns)

    def listed(self, alias: str) -> str:
        """Write the list of the columns of a row."""
        return ", ".join(f"{alias}.{identifier(name)}" for name in self.names)

    def copying(self, source: str) -> str:
        """Write the statement that copies the rows from another database."""
        name = identifier(self.name)
        columns = ", ".join(map(identifier, self.names))
        place = f"{identifier(source)}.{name}"
        return f"INSERT INTO {name} ({columns}) SELECT {columns} FROM {place}"

    def is_joined(self, one: str, other: str) -> str:
        """Write the condition that two rows have the same key."""
        return " AND ".join(
            f"{one}.{identifier(name)} = {other}.{identifier(name)}"
            for name in self.key
        )

    def is_equal(self, one: str, other: str) -> str:
        """Write the condition that two rows have exactly the same values."""
        return " AND ".join(
            f"{_exact(one, name, kind)} <=> {_exact(other, name, kind)}"
            for name, kind in self.columns
        )

    def image(self, alias: str) -> str:
        """Write the expression for a row's text. Equal texts mean equal rows."""
        texts = [
            _text(f"{alias}.{identifier(name)}", kind) for name, kind in self.columns
        ]
        return f"CONCAT('', {', '.join(texts)})" if texts else "''"


def _exact(alias: str, name: str, kind: str) -> str:
    """Write the expression that the server compares exactly, without a collation."""
    value = f"{alias}.{identifier(name)}"
    if _EXACT.fullmatch(kind):
        return value
    if _TEXT.fullmatch(kind):
        return f"CAST({value} AS BINARY)"
    return f"HEX({value})"


def _text(value: str, kind: str) -> str:
    """Write the expression for a value's text. The value's character set has no effect."""
    text = f"HEX({value})"
    if kind == "float":  # its text has six digits, and as DOUBLE all digits
        text = f"CAST({value} + 0e0 AS CHAR CHARACTER SET utf8mb4)"
    elif _EXACT_TEXT.fullmatch(kind):
        text = f"CAST({value} AS CHAR CHARACTER SET utf8mb4)"
    return f"COALESCE(CONCAT('v', {text}, ','), 'NULL,')"


def read_tables(control: MySQLControl, database: str) -> dict[str, Table]:
    """Return the tables of a database by their names, without views.

    Raises:
        MySQLFailure: the server does not answer.
    """
    schema = literal(database)
    listed = control.rows(
        "SELECT table_name, auto_increment, table_rows FROM information_schema.tables WHERE "
        f"table_schema = {schema} AND table_type NOT LIKE '%VIEW' "
        f"AND table_name <> '{LABEL}' ORDER BY table_name"
    )
    columns: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for name, column, kind in control.rows(
        "SELECT table_name, column_name, data_type FROM information_schema.columns "
        f"WHERE table_schema = {schema} AND COALESCE(generation_expression, '') = '' "
        "ORDER BY table_name, ordinal_position"
    ):
        columns[name].append((column, kind.lower()))
    keys: dict[str, list[str]] = defaultdict(list)
    for name, column in control.rows(
        f"SELECT table_name, column_name FROM information_schema.statistics "
        f"WHERE table_schema = {schema} AND index_name = 'PRIMARY' ORDER BY seq_in_index"
    ):
        keys[name].append(column)
    tables = {}
    for name, counter, rows in listed:
        table = Table(
            name, tuple(columns[name]), tuple(keys[name]), counter, int(rows or 0)
        )
        if not {*table.key} <= {*table.names}:  # a column that the server computes
            table = replace(table, key=())
        tables[name] = table
    return tables


def read_cascades(control: MySQLControl, database: str) -> dict[str, frozenset[str]]:
    """Return, for each table, the tables whose rows foreign keys change with its rows."""
    children = defaultdict(set)
    for child, parent in control.rows(
        "SELECT table_name, referenced_table_name "
        "FROM information_schema.referential_constraints "
        f"WHERE constraint_schema = {literal(database)} AND NOT ("
        "delete_rule IN ('RESTRICT', 'NO ACTION') AND update_rule IN ('RESTRICT', 'NO ACTION'))"
    ):
        children[parent].add(child)
    reached = {}
    for parent in children:
        found: set[str] = set()
        waiting = [parent]
        while waiting:
            new = children.get(waiting.pop(), set()) - found
            found |= new
            waiting += new
        reached[parent] = frozenset(found)
    return reached


def with_cascades(
    names: Iterable[str], cascades: Mapping[str, frozenset[str]]
) -> set[str]:
    """Return tables, and the tables that a cascade may have reached from them."""
    reached = set(names)
    for name in [*reached]:
        reached |= cascades.get(name, frozenset())
    return reached


def reason_against_undo(control: MySQLControl, database: str) -> str:
    """Return the first reason why undo cannot restore the rows of a database, or ""."""
    schema = literal(database)
    reasons = control.rows(f"""
        SELECT table_name, CASE
            WHEN table_type <> 'BASE TABLE' THEN CONCAT(table_type, ': the server keeps old rows')
            ELSE CONCAT('the engine ', engine, ' has no transactions') END
        FROM information_schema.tables WHERE table_schema = {schema}
            AND table_type NOT LIKE '%VIEW' AND (table_type <> 'BASE TABLE' OR engine <> 'InnoDB')
        UNION ALL SELECT trigger_name, 'a trigger would also act when rows are restored'
        FROM information_schema.triggers WHERE event_object_schema = {schema}
        UNION ALL SELECT routine_name, 'a routine may write to any table'
        FROM information_schema.routines WHERE routine_schema = {schema}""")
    return ": ".join(reasons[0]) if reasons else ""

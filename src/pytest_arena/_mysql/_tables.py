"""Reads tables, keys and foreign keys of a database, and writes expressions of their rows."""

# ruff: noqa: S608 - names and texts are written by identifier() and literal() alone

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
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

    ``key`` has the columns of the primary key, or of another unique index without NULLs.
    """

    name: str
    columns: tuple[tuple[str, str], ...]
    key: tuple[str, ...]
    has_primary_key: bool
    counter: int | None  # the next AUTO_INCREMENT value
    rows: int  # the server's estimate

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the columns."""
        return tuple(name for name, _ in self.columns)

    @property
    def primary_key(self) -> tuple[str, ...]:
        """The columns of the primary key, or ()."""
        return self.key if self.has_primary_key else ()

    def listed(self, alias: str) -> str:
        """Write the list of the columns of a row."""
        return ", ".join(f"{alias}.{identifier(name)}" for name in self.names)

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
    """Return the tables of a database by their names, without views and sequences.

    Raises:
        MySQLFailure: the server does not answer.
    """
    schema = literal(database)
    listed = control.rows(
        "SELECT table_name, auto_increment, table_rows FROM information_schema.tables WHERE "
        f"table_schema = {schema} AND table_type NOT LIKE '%VIEW' "
        f"AND table_type <> 'SEQUENCE' AND table_name <> '{LABEL}' ORDER BY table_name"
    )
    columns: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for name, column, kind in control.rows(
        "SELECT table_name, column_name, data_type FROM information_schema.columns "
        f"WHERE table_schema = {schema} AND COALESCE(generation_expression, '') = '' "
        "ORDER BY table_name, ordinal_position"
    ):
        columns[name].append((column, kind.lower()))
    keys = _read_keys(control, schema, columns)
    tables = {}
    for name, counter, rows in listed:
        index, key = keys.get(name, ("", ()))
        tables[name] = Table(
            name,
            tuple(columns[name]),
            key,
            has_primary_key=index == "PRIMARY",
            counter=counter,
            rows=int(rows or 0),
        )
    return tables


def _read_keys(
    control: MySQLControl, schema: str, columns: Mapping[str, list[tuple[str, str]]]
) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Return, for each table with a key, its index and columns, the primary key if possible."""
    indexes: dict[tuple[str, str], list[str]] = defaultdict(list)
    unusable = set()
    for table, index, column, part, nullable in control.rows(
        "SELECT table_name, index_name, column_name, sub_part, nullable "
        f"FROM information_schema.statistics WHERE table_schema = {schema} AND non_unique = 0 "
        "ORDER BY table_name, index_name <> 'PRIMARY', index_name, seq_in_index"
    ):
        indexes[table, index].append(column)
        is_stored = column in {name for name, _ in columns[table]}
        if part is not None or nullable == "YES" or not is_stored:
            unusable.add((table, index))
    keys: dict[str, tuple[str, tuple[str, ...]]] = {}
    for (table, index), names in indexes.items():
        if (table, index) not in unusable:
            keys.setdefault(table, (index, tuple(names)))
    return keys


def read_counters(control: MySQLControl, database: str) -> dict[str, int]:
    """Return the next AUTO_INCREMENT values of a database's tables."""
    rows = control.rows(
        "SELECT table_name, auto_increment FROM information_schema.tables "
        f"WHERE table_schema = {literal(database)} AND auto_increment IS NOT NULL"
    )
    return {name: int(counter) for name, counter in rows}


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
            WHEN table_type = 'SEQUENCE' THEN 'a sequence keeps numbers in the server''s memory'
            WHEN table_type <> 'BASE TABLE' THEN CONCAT(table_type, ': the server keeps old rows')
            ELSE CONCAT('the engine ', engine, ' has no transactions') END
        FROM information_schema.tables WHERE table_schema = {schema}
            AND table_type NOT LIKE '%VIEW' AND (table_type <> 'BASE TABLE' OR engine <> 'InnoDB')
        UNION ALL SELECT trigger_name, 'a trigger would also act when rows are restored'
        FROM information_schema.triggers WHERE event_object_schema = {schema}
        UNION ALL SELECT routine_name, 'a routine may write to any table'
        FROM information_schema.routines WHERE routine_schema = {schema}
        UNION ALL SELECT event_name, 'an event may write at any time'
        FROM information_schema.events WHERE event_schema = {schema}
        UNION ALL SELECT table_name, CONCAT('a foreign key leads to ', unique_constraint_schema)
        FROM information_schema.referential_constraints
        WHERE constraint_schema = {schema} AND constraint_schema <> unique_constraint_schema
        UNION ALL SELECT table_name, 'MATCH would miss rows, as the table has a VIRTUAL column'
        FROM information_schema.statistics s WHERE table_schema = {schema}
            AND index_type = 'FULLTEXT' AND EXISTS (SELECT 1 FROM information_schema.columns c
                WHERE c.table_schema = {schema} AND c.table_name = s.table_name
                AND c.extra LIKE '%VIRTUAL%')""")
    return ": ".join(reasons[0]) if reasons else ""

"""Reads tables, keys and digests of a database, and copies it by statements of SHOW CREATE."""

# ruff: noqa: S608 - names and texts are written by identifier() and literal() alone

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING

from pytest_arena._mysql._control import (
    NO_DATABASE,
    MySQLFailure,
    identifier,
    literal,
)
from pytest_arena._values import digest
from pytest_arena.errors import TemplateError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pytest_arena._product._server_control import Control

# The table of a template that has its label. It is no part of the content.
LABEL = "arena_manifest"
# The texts of these values are exact. The server compares them, and the next ones, exactly.
_EXACT_TEXT = re.compile(
    "(tiny|small|medium|big)?int|decimal|double|date|time|datetime|timestamp|year|uuid|inet[46]"
)
_EXACT = re.compile(rf"{_EXACT_TEXT.pattern}|float|bit|(var)?binary|\w*blob")


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

    def listed(self) -> str:
        """Write the list of the columns of a row ``r``."""
        return ", ".join(f"r.{identifier(name)}" for name in self.names)

    def source(self, database: str) -> str:
        """Write the rows ``r`` of a database."""
        return f"{identifier(database)}.{identifier(self.name)} r"

    def copying(self, source: str) -> str:
        """Write the statement that copies the rows from another database."""
        columns = ", ".join(map(identifier, self.names))
        place = self.source(source)
        return (
            f"INSERT INTO {identifier(self.name)} ({columns}) SELECT {self.listed()} FROM {place}"
        )

    def missing(self, other: str) -> str:
        """Write the condition that another database has no row of the key of ``r``."""
        names = [identifier(name) for name in self.key]
        keys = " AND ".join(f"b.{name} = r.{name}" for name in names)
        place = f"{identifier(other)}.{identifier(self.name)}"
        return f"LEFT JOIN {place} b ON {keys} WHERE b.{names[0]} IS NULL"

    def unlike(self, other: str) -> str:
        """Write the condition that another database has no row that is exactly ``r``."""
        equal = [
            f"{_exact(f'b.{identifier(name)}', kind)} <=> {_exact(f'r.{identifier(name)}', kind)}"
            for name, kind in self.columns
        ]
        return f"{self.missing(other)} OR NOT ({' AND '.join(equal)})"

    def image(self) -> str:
        """Write the expression for the text of a row ``r``. Equal texts mean equal rows."""
        texts = [_text(f"r.{identifier(name)}", kind) for name, kind in self.columns]
        return f"CONCAT('', {', '.join(texts)})" if texts else "''"


def _exact(value: str, kind: str) -> str:
    """Write the expression that the server compares exactly, without a collation."""
    return value if _EXACT.fullmatch(kind) else f"HEX({value})"


def _text(value: str, kind: str) -> str:
    """Write the expression for a value's text. The value's character set has no effect."""
    text = f"HEX({value})"
    if kind == "float":  # its text has six digits, and as DOUBLE all digits
        text = f"CAST({value} + 0e0 AS CHAR CHARACTER SET utf8mb4)"
    elif _EXACT_TEXT.fullmatch(kind):
        text = f"CAST({value} AS CHAR CHARACTER SET utf8mb4)"
    return f"COALESCE(CONCAT('v', {text}, ','), 'NULL,')"


def read_tables(control: Control, database: str) -> dict[str, Table]:
    """Return the tables of a database by their names, without views."""
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
        tables[name] = Table(name, tuple(columns[name]), tuple(keys[name]), counter, int(rows or 0))
    return tables


def read_cascades(control: Control, database: str) -> dict[str, set[str]]:
    """Return, for each table, the tables whose rows foreign keys change with its rows."""
    children = defaultdict(set)
    for child, parent in control.rows(
        "SELECT table_name, referenced_table_name "
        "FROM information_schema.referential_constraints "
        f"WHERE constraint_schema = {literal(database)} AND NOT ("
        "delete_rule IN ('RESTRICT', 'NO ACTION') AND update_rule IN ('RESTRICT', 'NO ACTION'))"
    ):
        children[parent].add(child)
    return children


def with_cascades(names: Iterable[str], cascades: Mapping[str, set[str]]) -> set[str]:
    """Return tables, and the tables that a cascade may have reached from them."""
    reached = set(names)
    waiting = [*reached]
    while waiting:
        new = cascades.get(waiting.pop(), set()) - reached
        reached |= new
        waiting += new
    return reached


# Copies

_NOT_COPIED = """
    SELECT table_type, table_name FROM information_schema.tables
    WHERE table_schema = {0} AND table_type = 'SEQUENCE'
    UNION ALL SELECT 'TRIGGER', trigger_name FROM information_schema.triggers
    WHERE event_object_schema = {0}
    UNION ALL SELECT routine_type, routine_name FROM information_schema.routines
    WHERE routine_schema = {0}"""


@dataclass(frozen=True, slots=True)
class CopyPlan:
    """The statements that copy a database that does not change.

    Each statement runs in the copy, with the copy's name in place of the source's name.
    """

    source: str
    options: str  # of CREATE DATABASE
    creates: dict[str, str] = field(default_factory=dict)  # statements by tables
    views: dict[str, str] = field(default_factory=dict)  # each after those that it reads
    tables: dict[str, Table] = field(default_factory=dict)
    # The tables that foreign keys change, by the changed table.
    cascades: dict[str, set[str]] = field(default_factory=dict)

    def run(self, control: Control, copy: str) -> None:
        """Create the copy. If a part of it exists already, drop that first."""
        name = identifier(copy)
        statements = [
            f"DROP DATABASE IF EXISTS {name}",
            f"CREATE DATABASE {name}{self.options}",
            f"USE {name}",
            *[create.replace(self.source, copy) for create in self.creates.values()],
            "START TRANSACTION",
            *[table.copying(self.source) for table in self.tables.values()],
            "COMMIT",
        ]
        control.run(";\n".join(statements))
        for view in self.views.values():
            control.run(view.replace(self.source, copy))
        # The drop of a database ends the sessions in it.
        control.run("USE information_schema")


# The plan of an empty database with the server's default options.
EMPTY_PLAN = CopyPlan("", "")


def read_plan(control: Control, source: str) -> CopyPlan:
    """Read the plan of a database that does not change during the reading.

    Raises:
        MySQLFailure: the database does not exist, or the server refuses.
        TemplateError: it has an object that no statement copies.
    """
    for kind, name in control.rows(_NOT_COPIED.format(literal(source))):
        raise TemplateError(
            f"the schema has a {kind}: {name}",
            why="pytest-arena copies only tables and views of MySQL, and tests use copies",
            cause="CREATE SEQUENCE, TRIGGER, FUNCTION or PROCEDURE, or a Sequence in the models, "
            "such as that of SQLAlchemy-Continuum or of BigIntBase in advanced-alchemy",
            fix="a schema for tests without it, and a primary key with AUTO_INCREMENT",
        )
    places: dict[str, dict[str, str]] = {"VIEW": {}, "TABLE": {}}
    for name, kind in control.rows(
        "SELECT table_name, table_type FROM information_schema.tables "
        f"WHERE table_schema = {literal(source)} AND table_name <> '{LABEL}' "
        "ORDER BY table_name"
    ):
        of_kind = places.get(kind, places["TABLE"])
        of_kind[name] = f"{identifier(source)}.{identifier(name)}"

    def created_by(kind: str) -> dict[str, str]:
        shown = {}
        for name, place in places[kind].items():
            _, shown[name], *_ = control.rows(f"SHOW CREATE {kind} {place}")[0]
        return shown

    views = created_by("VIEW")
    read: dict[str, list[str]] = {}
    for name, create in views.items():
        others = [each for each, place in places["VIEW"].items() if place in create]
        others.remove(name)
        read[name] = others
    return CopyPlan(
        source,
        _options_of(control, source),
        created_by("TABLE"),
        {name: views[name] for name in TopologicalSorter(read).static_order()},
        read_tables(control, source),
        read_cascades(control, source),
    )


def _options_of(control: Control, database: str) -> str:
    """Return the options of a database: its default character set and collation."""
    [(charset, collation)] = control.rows(
        "SELECT default_character_set_name, default_collation_name "
        f"FROM information_schema.schemata WHERE schema_name = {literal(database)}"
    ) or [("", "")]
    if not charset:
        raise MySQLFailure(f"Unknown database '{database}'", NO_DATABASE)
    return f" CHARACTER SET {charset} COLLATE {collation}"


# Digests

_COUNTER = re.compile(r" AUTO_INCREMENT=(\d+)")
_ROWS_OF = "table "
_COUNTED = "next number of "


def read_content(control: Control, database: str) -> dict[str, str]:
    """Return a digest of each object in a database. The server reads all rows and definitions."""
    plan = read_plan(control, database)
    digests = {"settings of the database": plan.options}
    for name, create in plan.creates.items():
        counter = _COUNTER.search(create)
        if counter is not None:
            digests[f"{_COUNTED}{name}"] = counter[1]
        text = _COUNTER.sub("", create, count=1)
        digests[f"definition of table {name}"] = digest(text)
    for name, create in plan.views.items():
        digests[f"definition of view {name}"] = digest(create.replace(database, ""))
    for name, table in plan.tables.items():
        [(text,)] = control.rows(_digest(database, table))
        digests[f"{_ROWS_OF}{name}"] = str(text)
    return digests


def has_same_schema(before: dict[str, str], after: dict[str, str]) -> bool:
    """Return whether two contents differ at most in rows and AUTO_INCREMENT values."""
    return all(name.startswith((_ROWS_OF, _COUNTED)) for name, _ in before.items() ^ after.items())


def _digest(database: str, table: Table) -> str:
    """Write the query of the number of rows and the sum of their hashes."""
    # A sum does not depend on the order, and counts equal rows.
    number = "CONV(SUBSTR(SHA2(image, 256), 1, 16), 16, 10)"
    return (
        f"SELECT CONCAT(COUNT(*), ' rows, ', COALESCE(SUM(CAST({number} AS UNSIGNED)), 0)) "
        f"FROM (SELECT {table.image()} AS image FROM {table.source(database)}) AS images"
    )

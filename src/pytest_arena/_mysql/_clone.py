"""Copies a database on its server, by the statements of SHOW CREATE."""

# ruff: noqa: S608 - names and texts are written by identifier() and literal() alone

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pytest_arena._mysql._control import (
    NO_DATABASE,
    NO_TABLE,
    SQL_MODE,
    MySQLFailure,
    identifier,
    literal,
)
from pytest_arena._mysql._tables import (
    LABEL,
    Table,
    read_cascades,
    read_tables,
    reason_against_undo,
)
from pytest_arena.errors import TemplateError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_arena._mysql._control import MySQLControl

_AT_ONCE = 100  # statements in one message, which has at most 16 MB
_NO_VIEW_YET = (NO_TABLE, 1356)  # a view names another view, which is created later


@dataclass(frozen=True, slots=True)
class CopyPlan:
    """The statements that copy a database that does not change.

    Each statement runs in the copy, with the copy's name in place of the source's name.
    """

    source: str
    options: str  # of CREATE DATABASE
    creates: dict[str, str] = field(default_factory=dict)  # statements by tables
    views: dict[str, str] = field(default_factory=dict)
    # Routines and triggers: the kind and the statement of each.
    programs: tuple[tuple[str, str], ...] = ()
    tables: dict[str, Table] = field(default_factory=dict)
    # The tables that foreign keys change, by the changed table.
    cascades: dict[str, frozenset[str]] = field(default_factory=dict)
    reason_against_undo: str = ""  # why no row of a copy can be restored in place

    @property
    def has_functions(self) -> bool:
        """Whether a SELECT may call a function that writes."""
        return any(kind == "FUNCTION" for kind, _ in self.programs)

    def run(self, control: MySQLControl, copy: str) -> None:
        """Create the copy. If a part of it exists already, drop that first.

        Raises:
            MySQLFailure: the server refused a statement, or the connection is lost.
        """
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
        for start in range(0, len(statements), _AT_ONCE):
            control.run(";\n".join(statements[start : start + _AT_ONCE]))
        self._create_views(control, copy)
        for _, program in self.programs:
            control.run(program.replace(self.source, copy))
        if self.programs:
            control.run(f"SET SESSION sql_mode = '{SQL_MODE}'")

    def _create_views(self, control: MySQLControl, copy: str) -> None:
        waiting = [view.replace(self.source, copy) for view in self.views.values()]
        attempts = len(waiting) ** 2
        while waiting:
            attempts -= 1
            view = waiting.pop(0)
            try:
                control.run(view)
            except MySQLFailure as error:
                if error.number not in _NO_VIEW_YET or attempts < 0:
                    raise
                waiting.append(view)


# The plan of an empty database with the server's default options.
EMPTY_PLAN = CopyPlan("", "")


def read_plan(control: MySQLControl, source: str) -> CopyPlan:
    """Read the plan of a database that does not change during the reading.

    Raises:
        MySQLFailure: the database does not exist, or the server refuses.
        TemplateError: it has an object that no statement copies.
    """
    names: dict[str, list[str]] = {"VIEW": [], "SEQUENCE": [], "TABLE": []}
    for name, kind in control.rows(
        "SELECT table_name, table_type FROM information_schema.tables "
        f"WHERE table_schema = {literal(source)} AND table_name <> '{LABEL}' "
        "ORDER BY table_name"
    ):
        names.get(kind, names["TABLE"]).append(name)
    if names["SEQUENCE"]:
        raise TemplateError(
            f"the schema has a SEQUENCE: {', '.join(names['SEQUENCE'])}",
            why="pytest-arena copies no sequences of MariaDB, and tests use copies",
            cause="CREATE SEQUENCE, or a Sequence in the models",
            fix="a primary key with AUTO_INCREMENT",
        )

    def shown(kind: str) -> dict[str, str]:
        return {name: _shown(control, kind, source, name)[1] for name in names[kind]}

    return CopyPlan(
        source,
        _options_of(control, source),
        shown("TABLE"),
        shown("VIEW"),
        tuple(_programs(control, source)),
        read_tables(control, source),
        read_cascades(control, source),
        reason_against_undo(control, source),
    )


def _options_of(control: MySQLControl, database: str) -> str:
    """Return the options of a database: its default character set and collation."""
    [(charset, collation)] = control.rows(
        "SELECT default_character_set_name, default_collation_name "
        f"FROM information_schema.schemata WHERE schema_name = {literal(database)}"
    ) or [("", "")]
    if not charset:
        raise MySQLFailure(f"Unknown database '{database}'", NO_DATABASE)
    return f" CHARACTER SET {charset} COLLATE {collation}"


def _shown(control: MySQLControl, kind: str, source: str, name: str) -> tuple[Any, ...]:
    place = f"{identifier(source)}.{identifier(name)}"
    return control.rows(f"SHOW CREATE {kind} {place}")[0]


def _programs(control: MySQLControl, source: str) -> Iterator[tuple[str, str]]:
    """Yield kinds and statements of routines and triggers, each with its SQL mode."""
    schema = literal(source)
    programs = control.rows(
        "SELECT routine_type, routine_name FROM information_schema.routines "
        f"WHERE routine_schema = {schema} AND routine_type IN ('FUNCTION', 'PROCEDURE') "
        "ORDER BY routine_type, routine_name"
    )
    programs += control.rows(
        "SELECT 'TRIGGER', trigger_name FROM information_schema.triggers "
        f"WHERE event_object_schema = {schema} "
        "ORDER BY event_object_table, action_timing, event_manipulation, action_order"
    )
    for kind, name in programs:
        _, mode, create, *_ = _shown(control, kind, source, name)
        if create is None:
            raise MySQLFailure(f"the text of {kind} {name} is hidden", 1227)
        yield kind, f"SET SESSION sql_mode = {literal(mode)};\n{create}"

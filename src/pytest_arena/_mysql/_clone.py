"""Copies a database on its server, by the statements of SHOW CREATE."""

# ruff: noqa: S608 - names and texts are written by identifier() and literal() alone

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_arena._mysql._control import (
    NO_DATABASE,
    NO_TABLE,
    SQL_MODE,
    MySQLFailure,
    identifier,
    literal,
)
from pytest_arena._mysql._tables import LABEL, read_tables

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

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
    tables: tuple[str, ...] = ()
    rows: tuple[str, ...] = ()
    views: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()  # routines, triggers and events
    names_that_write: tuple[str, ...] = ()  # of functions and sequences
    has_events: bool = False
    changes_sessions: bool = False  # a routine or a trigger changes the session

    def run(self, control: MySQLControl, copy: str) -> None:
        """Create the copy. If a part of it exists already, drop that first.

        Raises:
            MySQLFailure: the server refused a statement, or the connection is lost.
        """
        name = identifier(copy)
        begin = [
            f"DROP DATABASE IF EXISTS {name}",
            f"CREATE DATABASE {name}{self.options}",
            f"USE {name}",
        ]
        rows = ["START TRANSACTION", *self.rows, "COMMIT"] if self.rows else []
        tables = [table.replace(self.source, copy) for table in self.tables]
        statements = [*begin, *tables, *rows]
        for start in range(0, len(statements), _AT_ONCE):
            control.run(";\n".join(statements[start : start + _AT_ONCE]))
        if self.views:
            self._create_views(control, copy)
        if self.programs:
            for program in self.programs:
                control.run(program.replace(self.source, copy))
            control.run(f"SET SESSION sql_mode = '{SQL_MODE}'; SET NAMES utf8mb4")

    def _create_views(self, control: MySQLControl, copy: str) -> None:
        waiting = [view.replace(self.source, copy) for view in self.views]
        while waiting:
            later = [view for view in waiting if not _is_created(control, view)]
            if len(later) == len(waiting):
                control.run(later[0])  # raises the reason
            waiting = later


def _is_created(control: MySQLControl, view: str) -> bool:
    """Create a view. Return False if it names a view that does not exist yet."""
    try:
        control.run(view)
    except MySQLFailure as error:
        if error.number not in _NO_VIEW_YET:
            raise
        return False
    return True


# The plan of an empty database with the server's default options.
EMPTY_PLAN = CopyPlan("", "")


def read_plan(control: MySQLControl, source: str) -> CopyPlan:
    """Read the plan of a database that does not change during the reading.

    Raises:
        MySQLFailure: the database does not exist, or the server refuses.
    """
    names: dict[str, list[str]] = {"VIEW": [], "SEQUENCE": [], "TABLE": []}
    for name, kind in control.rows(
        "SELECT table_name, table_type FROM information_schema.tables "
        f"WHERE table_schema = {literal(source)} AND table_name <> '{LABEL}' "
        "ORDER BY table_name"
    ):
        names.get(kind, names["TABLE"]).append(name)
    sequences: list[str] = []
    for name in names["SEQUENCE"]:
        sequences += _sequence(control, source, name)
    tables = [_shown(control, "TABLE", source, name)[1] for name in names["TABLE"]]
    functions = control.rows(
        "SELECT routine_name FROM information_schema.routines "
        f"WHERE routine_schema = {literal(source)} AND routine_type = 'FUNCTION'"
    )
    programs = tuple(_programs(control, source))
    return CopyPlan(
        source,
        _options_of(control, source),
        (*sequences, *tables),
        tuple(_rows(control, source, names["TABLE"])),
        tuple(_shown(control, "VIEW", source, name)[1] for name in names["VIEW"]),
        programs,
        names_that_write=(*[name for (name,) in functions], *names["SEQUENCE"]),
        has_events=any(_EVENT.search(program) for program in programs),
        changes_sessions=any(_CHANGES_SESSION.search(program) for program in programs),
    )


_EVENT = re.compile(r"(?i)\bCREATE\b[^;]*?\bEVENT\b")
_CHANGES_SESSION = re.compile(
    r"(?ix) \bSET\b[^;]*@ | \bSET\s+(?:SESSION|LOCAL|NAMES)\b | \bINTO\s+@ | @[\w`]+\s*:="
    r"| \bCREATE\s+(?:OR\s+REPLACE\s+)?TEMPORARY\b | \bGET_LOCK\s*\( | \bPREPARE\b"
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


_CACHE = re.compile(r"\bcache \d+ (?=(?:no)?cycle ENGINE=)")


def _sequence(control: MySQLControl, source: str, name: str) -> list[str]:
    """Return the statements for a sequence of MariaDB, with its next value.

    A copy caches no values, because a copy of it would skip them. Each copy of a template skips the
    values that the template has cached.
    """
    create = _shown(control, "SEQUENCE", source, name)[1]
    create = _CACHE.sub("nocache ", create)
    place = f"{identifier(source)}.{identifier(name)}"
    [(number, cycle)] = control.rows(
        f"SELECT next_not_cached_value, cycle_count FROM {place}"
    )
    return [create, f"SELECT SETVAL({identifier(name)}, {number}, 0, {cycle})"]


def _rows(control: MySQLControl, source: str, tables: list[str]) -> Iterator[str]:
    """Yield the statement that copies the rows, for each table that has rows."""
    columns = read_tables(control, source)
    for name in _with_rows(control, source, tables):
        names = ", ".join(map(identifier, columns[name].names))
        place = f"{identifier(source)}.{identifier(name)}"
        yield f"INSERT INTO {identifier(name)} ({names}) SELECT {names} FROM {place}"


def _with_rows(control: MySQLControl, source: str, tables: Iterable[str]) -> list[str]:
    questions = []
    for name in tables:
        place = f"{identifier(source)}.{identifier(name)}"
        questions.append(
            f"(SELECT {literal(name)} FROM DUAL WHERE EXISTS (SELECT 1 FROM {place}))"
        )
    names: list[str] = []
    for start in range(0, len(questions), _AT_ONCE):
        rows = control.rows(" UNION ALL ".join(questions[start : start + _AT_ONCE]))
        names += [name for (name,) in rows]
    return names


def _programs(control: MySQLControl, source: str) -> Iterator[str]:
    """Yield the statements for routines, triggers and events, each with its settings."""
    schema = literal(source)
    routines = control.rows(
        "SELECT routine_type, routine_name FROM information_schema.routines "
        f"WHERE routine_schema = {schema} AND routine_type IN ('FUNCTION', 'PROCEDURE') "
        "ORDER BY routine_type, routine_name"
    )
    for kind, name in routines:
        _, mode, create, charset, collation, _ = _shown(control, kind, source, name)
        if create is None:
            raise MySQLFailure(f"the text of {kind} {name} is hidden", 1227)
        yield _with_settings(create, mode, charset, collation)
    triggers = control.rows(
        "SELECT trigger_name FROM information_schema.triggers "
        f"WHERE event_object_schema = {schema} "
        "ORDER BY event_object_table, action_timing, event_manipulation, action_order"
    )
    for (name,) in triggers:
        _, mode, create, charset, collation, *_ = _shown(
            control, "TRIGGER", source, name
        )
        yield _with_settings(create, mode, charset, collation)
    events = control.rows(
        f"SELECT event_name FROM information_schema.events WHERE event_schema = {schema}"
    )
    for (name,) in events:
        _, mode, _, create, charset, collation, _ = _shown(
            control, "EVENT", source, name
        )
        yield _with_settings(create, mode, charset, collation)


def _with_settings(create: str, mode: str, charset: str, collation: str) -> str:
    """Return a statement that keeps the settings with which its program was created."""
    # The statement itself is UTF-8, so another character set would corrupt it.
    names = ""
    if charset.startswith("utf8"):
        names = f"SET NAMES {charset} COLLATE {collation};\n"
    return f"{names}SET SESSION sql_mode = {literal(mode)};\n{create}"

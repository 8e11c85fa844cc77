"""Restores written tables from a frozen database on the same server, and reads their changes.

The values never leave the server, so no text, driver or time zone can change them.
"""

# ruff: noqa: S608 - names are written by identifier() alone

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_arena._mysql._control import identifier, literal
from pytest_arena._product._level_stack import ReadTable
from pytest_arena._product._statements import Reach

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pytest_arena._mysql._clone import Table
    from pytest_arena._product._server_control import Control
    from pytest_arena._product._statements import Statement


# No table has such a name.
_ANY_TABLE = "*"
_SCHEMA = ""


@dataclass(frozen=True, slots=True)
class Written:
    """The tables that may have been written since a start."""

    tables: frozenset[str]  # in lower case

    def __bool__(self) -> bool:
        return bool(self.tables)

    @property
    def has_new_schema(self) -> bool:
        """Whether the schema may have changed."""
        return _SCHEMA in self.tables

    def names_in(self, known: set[str]) -> set[str]:
        """Return the names of the written tables. A view's name may mean any table."""
        by_name: dict[str, set[str]] = {}
        for name in known:
            by_name.setdefault(name.lower(), set()).add(name)
        if not self.tables <= by_name.keys():
            return {*known}
        return {name for table in self.tables for name in by_name[table]}


class WriteLog:
    """The tables that statements may have written, in order. A position in it is a time."""

    def __init__(self) -> None:
        self._tables: list[str] = []

    def note(self, statement: Statement, database: str) -> None:
        """Note a statement of a connection to a database."""
        if statement.reach is Reach.TABLE:
            place, _, table = statement.table.lower().rpartition(".")
            self._tables.append(table if place in {"", database.lower()} else _ANY_TABLE)
        elif statement.reach is not Reach.NOTHING:
            self.note_all(is_schema=statement.reach is Reach.SCHEMA)

    def note_all(self, *, is_schema: bool) -> None:
        """Note that any table may have been written, or the schema as well."""
        self._tables.append(_SCHEMA if is_schema else _ANY_TABLE)

    def position(self) -> int:
        """Return the present position."""
        return len(self._tables)

    def since(self, position: int) -> Written:
        """Return what may have been written since a position."""
        return Written(frozenset(self._tables[position:]))

    def forget(self, first: int, last: int) -> None:
        """Forget the writes between two positions, which were undone."""
        del self._tables[first:last]


# The control connection has foreign key checks off. TIMESTAMP values are compared as UTC. READ
# COMMITTED takes no locks on the template's rows.
SESSION = (
    "SET SESSION time_zone = '+00:00', SESSION lock_wait_timeout = 1, "
    "SESSION innodb_lock_wait_timeout = 1; "
    "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED"
)

# The rows of a table that only one of two databases has.
TableDifference = tuple[ReadTable, ReadTable]


def refill(control: Control, frozen: str, live: str, tables: Mapping[str, Table]) -> None:
    """Give tables the rows and the next AUTO_INCREMENT values that they have in a frozen database.

    Cost: the server compares all rows of these tables, and writes those that differ.

    Raises:
        MySQLFailure: another session holds a lock on a row, or has read a table whose counter has
            moved. Or the server refuses, for example after a change of the schema.
    """
    statements = [f"USE {identifier(live)}", "START TRANSACTION"]
    for table in tables.values():
        statements += _restoring(table, frozen, live)
    control.run("; ".join([*statements, "COMMIT"]))
    _restore_counters(control, live, tables)


def _restoring(table: Table, frozen: str, live: str) -> Iterator[str]:
    """Yield the statements that restore a table of the current database."""
    if not table.key:
        yield f"DELETE FROM {identifier(table.name)}"
        yield table.copying(frozen)
        return
    # All changed rows are deleted first, so that no row of the template meets a used unique value.
    yield f"DELETE r FROM {table.source(live)} {table.unlike(frozen)}"
    yield f"{table.copying(frozen)} {table.missing(live)}"


def _restore_counters(control: Control, live: str, tables: Mapping[str, Table]) -> None:
    """Restore the next AUTO_INCREMENT values. Rolled back inserts move them, too."""
    counters = dict(
        control.rows(
            "SELECT table_name, auto_increment FROM information_schema.tables "
            f"WHERE table_schema = {literal(live)} AND auto_increment IS NOT NULL"
        )
    )
    for name, table in tables.items():
        first = table.counter or 1
        if counters.get(name, first) != first:
            place = f"{identifier(live)}.{identifier(name)}"
            control.run(f"ALTER TABLE {place} AUTO_INCREMENT = {first}")


def read_difference(
    control: Control,
    before: tuple[str, Mapping[str, Table]],
    after: tuple[str, Mapping[str, Table]],
    names: Iterable[str],
) -> dict[str, TableDifference]:
    """Return the rows of tables that only one of two databases has, the earlier database first.

    A table without a key, or with other columns, comes with all its rows.
    """
    differences = {}
    for name in sorted(names):
        old = before[1].get(name)
        new = after[1].get(name)
        # Rows of the same key are compared. A table without a key comes with all rows.
        is_joined = bool(
            old and new and old.key and (old.columns, old.key) == (new.columns, new.key)
        )
        removed = _read(control, old, before[0], after[0] if is_joined else "")
        added = _read(control, new, after[0], before[0] if is_joined else "")
        if removed.rows or added.rows:
            differences[name] = (removed, added)
    return differences


def _read(control: Control, table: Table | None, database: str, unlike: str) -> ReadTable:
    """Read the rows of a table, only those that another database lacks if it is named."""
    if table is None:
        return ReadTable()
    question = f"SELECT {table.image()}, {table.listed()} FROM {table.source(database)}"
    if unlike:
        question = f"{question} {table.unlike(unlike)}"
    rows = [(image, tuple(values)) for image, *values in control.rows(question)]
    return ReadTable(table.names, table.key, rows)

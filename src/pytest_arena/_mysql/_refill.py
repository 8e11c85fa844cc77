"""Puts back the rows of a few tables, where nothing but rows may have changed.

A copy of a database creates a file for each table, which costs milliseconds each, and on a busy
disk tens of them. To delete and insert the rows of the changed tables costs less than one file.
"""

# ruff: noqa: S608 - names and texts are written by identifier() and literal() alone

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_arena._mysql._control import identifier, literal
from pytest_arena._mysql.drivers._reach import changes_rows_only

if TYPE_CHECKING:
    from pytest_arena._mysql._clone import CopyPlan
    from pytest_arena._mysql._control import MySQLControl

_BEGINNING = 4096  # characters, in which an INSERT names its table
# A session that holds a lock is ended with its database, so pytest-arena does not wait for it.
_HURRIED = "SET SESSION lock_wait_timeout = 1, SESSION innodb_lock_wait_timeout = 1"
_PATIENT = "SET SESSION lock_wait_timeout = 10, SESSION innodb_lock_wait_timeout = 10"


class TouchedTables:
    """The tables whose rows statements may have changed since a copy.

    ``is_more``: they may have changed definitions, or tables that the statements do not name.
    """

    def __init__(self, plan: CopyPlan) -> None:
        self._plan = plan
        self._names: set[str] = set()
        self.is_more = not plan.allows_refill
        self._seen: set[str] = set()  # beginnings of statements

    def note(self, statement: str) -> None:
        """Note a statement that may write."""
        if self.is_more or statement in self._seen:
            return
        if not changes_rows_only(statement):
            self.is_more = True
            return
        text = statement.lower()
        if text.lstrip().startswith(("insert", "replace")):
            text = text[:_BEGINNING]
        plan = self._plan
        others = (*plan.names_that_write, *plan.view_names)
        named = {name for name in plan.table_names if _is_in(name, text)}
        if not named or any(_is_in(name, text) for name in others):
            self.is_more = True
        self._names |= named
        if len(statement) < _BEGINNING:
            self._seen.add(statement)

    def note_more(self) -> None:
        """Note that other tables may have changed, too."""
        self.is_more = True

    def tables(self) -> set[str]:
        """Return the tables, with those that refer to them: a cascade may have changed these."""
        tables: set[str] = set()
        waiting = set(self._names)
        while waiting:
            name = waiting.pop()
            tables.add(name)
            waiting |= self._plan.referring.get(name, set()) - tables
        return tables


def _is_in(name: str, text: str) -> bool:
    return name.lower().replace("`", "``") in text


def refill(control: MySQLControl, live: str, plan: CopyPlan, tables: set[str]) -> None:
    """Give tables of a copy the rows and the numbers of its source.

    Raises:
        MySQLFailure: another session holds a lock, or the connection is lost. The rows are as
            before or as in the source, the numbers may be either.
    """
    statements = [f"USE {identifier(live)}", _HURRIED, "START TRANSACTION"]
    for name in sorted(tables):
        statements.append(f"DELETE FROM {identifier(name)}")
        if name in plan.rows:
            statements.append(plan.rows[name])
    statements.append("COMMIT")
    try:
        control.run(";\n".join(statements))
        _restore_counters(control, live, plan, tables)
    finally:
        control.run(f"ROLLBACK; {_PATIENT}")


def restore_counters(
    control: MySQLControl, live: str, plan: CopyPlan, tables: set[str]
) -> None:
    """Give tables of a copy the AUTO_INCREMENT numbers of its source. Raises as ``refill`` does."""
    control.run(f"USE {identifier(live)}; {_HURRIED}")
    try:
        _restore_counters(control, live, plan, tables)
    finally:
        control.run(_PATIENT)


def _restore_counters(
    control: MySQLControl, live: str, plan: CopyPlan, tables: set[str]
) -> None:
    before = _numbers(control, plan.source, tables)
    for name, number in _numbers(control, live, tables).items():
        if number != before.get(name):
            wanted = before.get(name) or 1
            control.run(f"ALTER TABLE {identifier(name)} AUTO_INCREMENT = {wanted}")


def _numbers(
    control: MySQLControl, database: str, tables: set[str]
) -> dict[str, int | None]:
    """Return the next AUTO_INCREMENT number of each table."""
    names = ", ".join(map(literal, sorted(tables)))
    rows = control.rows(
        "SELECT table_name, auto_increment FROM information_schema.tables "
        f"WHERE table_schema = {literal(database)} AND table_name IN ({names})"
    )
    return dict(rows)

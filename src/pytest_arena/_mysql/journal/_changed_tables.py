"""Finds the changed tables by the journal's entries and by foreign keys."""

# ruff: noqa: S608 - names are written by identifier() alone

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from pytest_arena._mysql._control import identifier
from pytest_arena._mysql.journal._restore_statements import JournaledTable
from pytest_arena._mysql.journal._row_triggers import (
    MAY_CASCADE,
    journal_names,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pytest_arena._mysql._control import MySQLControlLine
    from pytest_arena._mysql.journal._schema_facts import CascadingKey, SchemaFacts


class ChangedTables:
    """The tables of a database, and their entries in the journals."""

    def __init__(
        self, control: MySQLControlLine, facts: SchemaFacts, database: str, side: str
    ) -> None:
        self._control = control
        self._facts = facts
        self.tables: dict[str, JournaledTable] = {}
        self._by_number: dict[int, str] = {}
        names = journal_names(facts)
        self.journals = [f"{identifier(side)}.{name}" for name in names.values()]
        for name, table in facts.tables.items():
            live = f"{identifier(database)}.{identifier(name)}"
            journal = f"{identifier(side)}.{names[table.signature]}"
            self.tables[name] = JournaledTable(table, live, journal)
            self._by_number[table.number] = name

    def entries(self, *, is_locking: bool = False) -> dict[str, bool]:
        """Return the tables with entries, and whether a cascade may have begun in the table.

        ``is_locking`` waits for transactions that have written. Cost: one round trip.
        """
        entries: dict[str, bool] = {}
        if not self.journals:
            return entries
        lock = "FOR UPDATE" if is_locking else ""
        questions = [
            f"(SELECT t, MAX(kind >= {MAY_CASCADE}) FROM {journal} GROUP BY t {lock})"
            for journal in self.journals
        ]
        for number, may_cascade in self._control.rows(" UNION ALL ".join(questions)):
            entries[self._by_number[int(number)]] = bool(may_cascade)
        return entries

    def touched(
        self, bases: dict[str, str], *, is_locking: bool = False
    ) -> dict[str, bool]:
        """Return the tables with entries, and those that a cascade may have reached.

        True means that the whole table is restored. ``bases`` have the rows from the time when the
        journals were last emptied.
        """
        touched = {}
        parents = []
        for name, may_cascade in self.entries(is_locking=is_locking).items():
            touched[name] = not self.tables[name].table.key
            if may_cascade:
                parents.append(name)
        self._follow_cascades(parents, bases, touched)
        return touched

    def deleting_entries(self, names: Iterable[str]) -> list[str]:
        """Return the statements that delete the entries of tables, one for each journal."""
        table_numbers = defaultdict(list)
        for name in names:
            journaled = self.tables[name]
            table_numbers[journaled.journal].append(str(journaled.table.number))
        return [
            f"DELETE FROM {journal} WHERE t IN ({', '.join(numbers)})"
            for journal, numbers in table_numbers.items()
        ]

    def _follow_cascades(
        self, parents: list[str], bases: dict[str, str], touched: dict[str, bool]
    ) -> None:
        # Tables without known keys of the rows that a cascade has changed.
        whole: set[str] = set()
        waiting = [*parents]
        while waiting:
            parent = waiting.pop()
            for key in self._facts.cascades_from(parent):
                child = key.child
                if parent not in whole and self._have_keys(key):
                    is_whole = False
                    is_new = self._record_cascaded(key, bases)
                else:
                    is_whole = True
                    is_new = child not in whole
                    whole.add(child)
                if is_new:
                    touched[child] = is_whole or touched.get(child, False)
                    waiting.append(child)

    def _have_keys(self, key: CascadingKey) -> bool:
        """Return whether the parent and the child have keys."""
        parent = self.tables[key.parent].table
        child = self.tables[key.child].table
        return bool(parent.key and child.key)

    def _record_cascaded(self, key: CascadingKey, bases: dict[str, str]) -> bool:
        """Record the rows that a cascade may have changed. Return whether some are new."""
        parent = self.tables[key.parent]
        child = self.tables[key.child]
        sources = [(bases[key.parent], bases[key.child])]
        if key.on_update:
            sources.append((parent.live, child.live))
        is_new = False
        for source in sources:
            # Both statements are in one message, because other threads use the connection, too.
            record = parent.record_cascaded(child, key, source)
            [(number,)] = self._control.rows(f"{record}; SELECT ROW_COUNT()")
            is_new = is_new or int(number) > 0
        return is_new

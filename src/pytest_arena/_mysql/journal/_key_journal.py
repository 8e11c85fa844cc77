"""The journal of one database: its levels, and how a level is left."""

# ruff: noqa: S608 - names are written by identifier() alone

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from pytest_arena._mysql._control import MySQLFailure, identifier, literal
from pytest_arena._mysql.journal._changed_tables import ChangedTables
from pytest_arena._mysql.journal._ddl_witness import DdlWitness
from pytest_arena._mysql.journal._journal_control import LOCKED
from pytest_arena._mysql.journal._journal_levels import JournalLevel
from pytest_arena._mysql.journal._net_rows import ChangedRows, JournalMoment
from pytest_arena._mysql.journal._restore_statements import in_transaction
from pytest_arena._mysql.journal._row_triggers import (
    guard_app_triggers,
    journal_names,
    journal_tables,
    row_triggers,
)
from pytest_arena._mysql.journal._schema_facts import read_schema
from pytest_arena._product import held_by

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pytest_arena._mysql._control import MySQLControlLine
    from pytest_arena._values import TableRows


class SchemaChanged(Exception):
    """The schema has changed, so that the database must be replaced. ``args`` name the changes."""


class KeyJournal:
    """The journal of a copy of a template. Both are databases on one server.

    Triggers record the keys of changed rows. At the end of a level the server replaces the rows
    with these keys by the rows at the level's start. These are rows of the template, or of copies
    of tables that a wider level has changed. The journals and the copies are in the database
    ``side``.

    The cost depends on the number of changed rows and tables. For a table without a usable key, it
    depends on the size of the table. So it does when a wider level that has changed the table is
    left.

    ``side`` is the name of an empty database, which the caller drops later. The constructor drops
    triggers of an earlier journal.
    """

    isolation = "undo"

    def __init__(
        self, control: MySQLControlLine, database: str, template: str, side: str
    ) -> None:
        self._control = control
        self._database = database
        self._side = side
        self._facts = read_schema(control, database)
        self._changed = ChangedTables(control, self._facts, database, side)
        for statement in journal_tables(side, journal_names(self._facts)):
            control.rows(statement)
        self._create_triggers()
        bases = {
            name: f"{identifier(template)}.{identifier(name)}"
            for name in self._facts.tables
        }
        self._levels = [JournalLevel(bases, self._known.counters)]
        self._copy_number = 0

    def _create_triggers(self) -> None:
        """Create the triggers in a copy, and note its schema."""
        self._control.rows("SET SESSION lock_wait_timeout = 10")
        guard_app_triggers(self._control, self._database)
        counted = set()
        for name, journaled in self._changed.tables.items():
            if journaled.table.has_counter:
                counted.add(name)
            triggers = row_triggers(
                self._database, self._facts, journaled.journal, journaled.table
            )
            self._control.rows(";\n".join(triggers))
        self._control.rows("SET SESSION lock_wait_timeout = 1")
        self._witness = DdlWitness(self._control, self._database, counted)
        self._known = self._witness.read()
        self._digest = self._witness.digest()

    @property
    def fails_under_lock_tables(self) -> bool:
        """Whether the triggers fail in a session that has locked tables to write, as on MariaDB.

        If a statement has used the journal before, MariaDB refuses the trigger's INSERT.
        """
        return self._witness.is_mariadb

    @property
    def depth(self) -> int:
        """The number of open levels."""
        return len(self._levels) - 1

    def enter(self, *, is_used: bool = True) -> None:
        """Open a level above the current rows.

        ``is_used``: a connection may have been used since the level below was entered, or since a
        level above it was left.

        Cost: nothing without ``is_used``. Otherwise two round trips, and a copy of each table that
        the level below has changed.

        Raises:
            SchemaChanged: the level below has changed the schema.
            Held: a transaction holds locks. No level was opened.
        """
        below = self._levels[-1]
        if is_used:
            self._note_truncated(below)
            with self._locks_reported():
                self._end_journal(below)
                for name in below.missing_copies():
                    below.copies[name] = self._copy(name)
        self._levels.append(JournalLevel(below.bases_above(), self._known.counters))

    def _end_journal(self, level: JournalLevel) -> None:
        """Empty the journals. From now on the level's changed tables are restored whole."""
        touched = self._changed.touched(level.bases_above(), is_locking=True)
        # Ctrl-C may interrupt this. Without the entries, the level must know its changed tables.
        self._replace(level, touched)
        if touched:
            self._execute(self._changed.deleting_entries(touched))

    def _touched(
        self, level: JournalLevel, *, is_locking: bool = False
    ) -> dict[str, bool]:
        """Return the tables that the level has changed. True means the whole table."""
        touched = self._changed.touched(level.bases_above(), is_locking=is_locking)
        return {**touched, **dict.fromkeys(level.replaced, True)}

    def rewind(self) -> bool:
        """Restore the rows and counters of the matching ``enter``. Return whether rows differed.

        The level stays open.

        Cost: two round trips, and another if rows changed.

        Raises:
            SchemaChanged: the rows are unchanged. The caller replaces the database by a new copy of
                the template, and calls ``reinstall``.
            Held: a transaction holds locks.
        """
        level = self._levels[-1]
        self._note_truncated(level)
        with self._locks_reported():
            touched = self._touched(level, is_locking=True)
            self._restore(level, touched)
        self._drop(level.begin_again())
        return bool(touched)

    def cut_to(self, depth: int) -> None:
        """Close the levels above ``depth``, and keep the current rows.

        There may be several, if Ctrl-C has interrupted an enter or a leave. After ``rewind`` this
        costs nothing.
        """
        while self.depth > depth:
            level = self._levels[-1]
            below = self._levels[-2]
            self._replace(below, level.replaced)
            self._levels.pop()
            self._drop(level.copies.values())

    def reinstall(self, database: str) -> None:
        """Continue in another copy of the template.

        The copy gets triggers, and the rows and counters at the start of the top level.
        """
        self._database = database
        self._changed = ChangedTables(self._control, self._facts, database, self._side)
        self._create_triggers()
        template = self._levels[0].bases
        level = self._levels[-1]
        touched = {
            name: True for name, base in level.bases.items() if base != template[name]
        }
        for journal in self._changed.journals:
            self._control.rows(f"DELETE FROM {journal}")
        self._restore(level, touched)
        self._drop(level.begin_again())

    def start_tables(self, number: int) -> Mapping[str, str]:
        """Return, for each table, the table that has the rows at the start of a level."""
        return self._levels[number].bases

    def is_untouched(self) -> bool:
        """Return whether no transaction has committed rows in the top level.

        Cost: two round trips.
        """
        level = self._levels[-1]
        try:
            self._note_truncated(level)
        except SchemaChanged:
            return False
        return not level.replaced and not self._changed.entries()

    def has_moved_counters(self) -> bool:
        """Return whether a counter had moved when the state was last read.

        A rollback restores no counter.
        """
        return bool(self._moved_counters(self._levels[-1]))

    def _note_truncated(self, level: JournalLevel) -> None:
        """Note the tables that were truncated or rebuilt since the last call.

        Raises:
            SchemaChanged: the schema has changed.
        """
        known = self._known
        state = self._witness.read()
        if not state.is_same_schema(known):
            # Other workers on the server alter tables to restore counters.
            tables_only = state.other_ddl == known.other_ddl
            digest = self._witness.digest(tables_only=tables_only)
            kinds = [
                kind for kind, part in digest.items() if part != self._digest[kind]
            ]
            if kinds:
                raise SchemaChanged(*kinds)
        self._known = state
        self._replace(level, state.new_tables(known))

    def _restore(self, level: JournalLevel, touched: dict[str, bool]) -> None:
        """Restore rows in a transaction, then the moved counters."""
        statements: list[str] = []
        for name, is_whole in touched.items():
            table = self._changed.tables[name]
            statements += table.restore(level.bases[name], is_whole=is_whole)
        statements += self._changed.deleting_entries(touched)
        for name, counter in self._moved_counters(level):
            # ALTER TABLE first commits the rows.
            self._known.add_alter()
            live = self._changed.tables[name].live
            statements.append(f"ALTER TABLE {live} AUTO_INCREMENT = {counter}")
        if statements:
            self._execute(statements)
        self._known.restore_counters(level.counters)

    def _moved_counters(self, level: JournalLevel) -> list[tuple[str, int]]:
        return [
            (name, counter)
            for name, counter in level.counters.items()
            if self._known.counters[name] != counter
        ]

    def _execute(self, statements: list[str]) -> None:
        try:
            self._control.rows(in_transaction(statements))
        except BaseException:
            self._control.rows("ROLLBACK")
            raise

    def _replace(self, level: JournalLevel, names: Iterable[str]) -> None:
        self._drop(level.replace(names))

    def _copy(self, name: str) -> str:
        """Copy the current rows of a table into the side database. Return the copy's name."""
        self._copy_number += 1
        copy = f"{identifier(self._side)}.copy_{self._copy_number}"
        journaled = self._changed.tables[name]
        columns = journaled.table.write_columns()
        self._known.add_ddl()
        self._control.rows(f"CREATE TABLE {copy} LIKE {journaled.live}")
        self._control.rows(
            f"INSERT INTO {copy} ({columns}) SELECT {columns} FROM {journaled.live}"
        )
        return copy

    def _drop(self, copies: Iterable[str]) -> None:
        for copy in copies:
            self._known.add_ddl()
            self._control.rows(f"DROP TABLE {copy}")

    @contextmanager
    def _locks_reported(self) -> Iterator[None]:
        """Raise Held if a transaction holds a lock for too long."""
        try:
            yield
        except MySQLFailure as error:
            if error.number not in LOCKED:
                raise
            raise held_by(self.lock_holders(), self._database) from error

    def lock_holders(self) -> list[int]:
        """Return the ids of the database's connections that are inside a transaction.

        A prepared XA transaction has no connection.
        """
        holders = self._control.rows(f"""
            SELECT p.ID FROM information_schema.INNODB_TRX x
            JOIN information_schema.PROCESSLIST p ON p.ID = x.trx_mysql_thread_id
            WHERE p.DB = {literal(self._database)} AND p.ID <> CONNECTION_ID()""")
        return [int(number) for (number,) in holders]

    def moment(self, *, exact: bool = False) -> JournalMoment:
        """Return the current changes of the top level, for ``rows_changed``.

        Cost: a round trip, and two for each changed table, which read the changed rows. Only an
        ``exact`` moment notices a TRUNCATE.

        Raises:
            SchemaChanged: the schema has changed, and the moment must be ``exact``.
        """
        level = self._levels[-1]
        if exact:
            self._note_truncated(level)
        moment = JournalMoment()
        for name, is_whole in self._touched(level).items():
            table = self._changed.tables[name]
            before = self._control.rows(
                table.select(level.bases[name], is_whole=is_whole)
            )
            after = self._control.rows(table.select(table.live, is_whole=is_whole))
            moment.tables[name] = ChangedRows.of(before, after)
        return moment

    def rows_changed(
        self,
        since: JournalMoment | None = None,
        until: JournalMoment | None = None,
        *,
        limit: int | None = None,
    ) -> list[TableRows]:
        """Return the net committed changes of the top level, at most ``limit`` rows of a table.

        The changes begin at the moment ``since`` or at the level's start, and end at the moment
        ``until`` or now.

        Raises:
            SchemaChanged: the schema has changed, and ``until`` is None.
        """
        until = until or self.moment(exact=True)
        earlier = since.tables if since is not None else {}
        changed = []
        for name in sorted(until.tables):
            changes = until.tables[name].since(earlier.get(name, ChangedRows()))
            rows = changes.table_rows(self._facts.tables[name], limit)
            if rows.removed or rows.added:
                changed.append(rows)
        return changed

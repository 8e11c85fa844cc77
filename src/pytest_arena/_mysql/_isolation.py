"""The isolation on MySQL: a level stack over databases whose written tables are restored."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from pytest_arena._mysql._clone import (
    has_same_schema,
    read_content,
    read_tables,
    with_cascades,
)
from pytest_arena._mysql._control import MySQLControl, MySQLFailure, connect, literal
from pytest_arena._mysql._driver_guard import writers_in
from pytest_arena._mysql._refill import (
    SESSION,
    TableDifference,
    WriteLog,
    read_difference,
    refill,
)
from pytest_arena._origin import shown_line
from pytest_arena._product import Held
from pytest_arena._product._level_stack import (
    FrozenDatabase,
    LevelStack,
    Look,
    NeedsCopy,
    ReadTable,
    Start,
    Undo,
    compared,
)
from pytest_arena.errors import IsolationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pytest_arena._mysql._clone import CopyPlan
    from pytest_arena._mysql._server_registry import MySQLRegistry
    from pytest_arena._product import Usage
    from pytest_arena._product._server_control import Control
    from pytest_arena._product._statements import Statement
    from pytest_arena._values import Address, ServerLogin, TableRows


# A transaction that waits, in the server's text about its transactions.
_WAITS = (
    r"---TRANSACTION (?:(?!---TRANSACTION)[\s\S])*?\nLOCK WAIT (?:(?!---)[\s\S])*? thread id {},"
)
# For larger tables, pytest-arena does not compare rows after each request.
_ROWS_OF_A_MOMENT = 5000


@dataclass(frozen=True, slots=True)
class Moment:
    """The content at one time: the differences from a start, by table."""

    first: Start
    tables: Mapping[str, TableDifference]


@dataclass(slots=True, eq=False)
class MySQLDatabase(Undo):
    """A database that tests use. The statements show which tables they may have written.

    The state of a start is its position in the log. If another process may use the database,
    pytest-arena compares all of its content.
    """

    name: str
    registry: MySQLRegistry
    restoring: Control  # restores and compares rows
    writes: WriteLog
    login: ServerLogin
    uses: Usage
    frozen_digests: dict[str | None, dict[str, str]] = field(default_factory=dict)

    @property
    def address(self) -> Address:
        """The address of the database, with the login of the app's connections."""
        return self.registry.address_of(self.name).as_(self.login)

    # Statements of other processes

    def _note_others(self, start: Start) -> None:
        """Note whether another process may have written since a start.

        Cost: nothing, or the server reads all rows and definitions.
        """
        if not self.uses.may_have_others():
            return
        base = start.base.name
        with self.registry.reporting("the live database cannot be compared"):
            if base not in self.frozen_digests:
                self.frozen_digests[base] = self.digests(base) if base else {}
            before = self.frozen_digests[base]
            now = self.digests()
        if now != before:
            self.writes.note_all(is_schema=not has_same_schema(before, now))

    def digests(self, name: str = "") -> dict[str, str]:
        """Return the digests of this database's content, or of a frozen one's."""
        return self.registry.control.call(read_content, name or self.name)

    # Levels

    def begin_copy(self, base: FrozenDatabase) -> Start:
        """Return the start of this new copy of a frozen database."""
        with self.registry.reporting("no database for the test"):
            base.description = self.registry.plan_of(base.name)
        return Start(base, self.writes.position())

    def begin(self, now: Start) -> Start | NeedsCopy:
        """Return the last start, unless a statement may have written since then."""
        self._note_others(now)
        return NeedsCopy() if self.writes.since(now.state) else now

    def restore(self, start: Start, *, is_in_use: bool) -> bool | NeedsCopy:
        """Restore the rows and counters of written tables. Return whether there are any.

        Raises:
            Held: another session holds a lock.
        """
        del is_in_use
        self._note_others(start)
        position = self.writes.position()
        written = self.writes.since(start.state)
        if not written:
            return False
        if writers_in(self.name):
            raise Held(self.name)
        if written.has_new_schema or not start.base.name:
            return NeedsCopy("a statement that may have changed the schema")
        content: CopyPlan = start.base.description
        names = with_cascades(written.names_in({*content.tables}), content.cascades)
        tables = {name: content.tables[name] for name in sorted(names)}
        try:
            self.restoring.call(refill, content.source, self.name, tables)
        except MySQLFailure as error:
            # A transaction that has only read prevents the ALTER TABLE that restores a counter. The
            # drop of the replaced database ends its session, also the one that restores.
            return NeedsCopy(f"an error, as of an open transaction: {error}")
        self.writes.forget(start.state, position)
        return True

    def carry(self, start: Start, carried: object) -> None:
        """Note that this new copy has the content of a start."""
        del carried
        self.writes.forget(start.state, self.writes.position())

    def look(self, start: Start) -> Look:
        """Return whether a statement may have written since a start, and the open writers."""
        self._note_others(start)
        return Look(bool(self.writes.since(start.state)), writers=frozenset(writers_in(self.name)))

    # Rows

    def moment(self, first: Start, *, exact: bool) -> Moment | None:
        """Return the changes since a start.

        Return None after a change of the schema or with large written tables, because reading costs
        too much, unless ``exact``. If another process may use the database, all tables count.
        """
        with self.registry.reporting("the live database cannot be read"):
            if not exact and self._costs_too_much(first):
                return None
            return Moment(first, self._since(first, None))

    def _costs_too_much(self, first: Start) -> bool:
        written = self.writes.since(first.state)
        if written.has_new_schema:
            return True
        content: CopyPlan = first.base.description
        names = {*content.tables}
        if not self.uses.may_have_others():
            names = with_cascades(written.names_in(names), content.cascades)
        return sum(content.tables[name].rows for name in names) > _ROWS_OF_A_MOMENT

    def rows_changed(
        self, first: Start | Moment, last: Start | Moment | None, limit: int | None
    ) -> list[TableRows]:
        """Return the changes of the written tables, by comparisons with a start.

        Raises:
            IsolationError: the schema has changed since a moment.
        """
        # All moments of a level have the same first start.
        start = first.first if isinstance(first, Moment) else first
        if isinstance(last, Moment):
            start = last.first
        with self.registry.reporting("the databases cannot be compared"):
            before = self._since(start, first)
            now = self._since(start, last)
        old = {}
        new = {}
        for name in {*before, *now}:
            removed_before, added_before = before.get(name, _NO_ROWS)
            removed, added = now.get(name, _NO_ROWS)
            # The earlier rows of both differences are the same.
            old[name] = _joined(name, added_before, removed)
            new[name] = _joined(name, added, removed_before)
        return compared(old, new, limit)

    def _since(self, start: Start, time: Start | Moment | None) -> Mapping[str, TableDifference]:
        """Return the differences of a time, None for now, from a start."""
        if time is start:
            return {}
        if isinstance(time, Moment):
            return time.tables
        first: CopyPlan = start.base.description
        position = start.state
        if time is None:
            self._note_others(start)
            last_name = self.name
            last_tables = first.tables
            if self.writes.since(position).has_new_schema:
                last_tables = self.restoring.call(read_tables, self.name)
        else:
            last_name = time.base.description.source
            last_tables = time.base.description.tables
            position = min(position, time.state)
        names = self.writes.since(position).names_in({*first.tables, *last_tables})
        return self.restoring.call(
            read_difference,
            (first.source, first.tables),
            (last_name, last_tables),
            with_cascades(names, first.cascades),
        )


_NO_ROWS = (ReadTable(), ReadTable())


def _joined(name: str, first: ReadTable, second: ReadTable) -> ReadTable:
    """Return the rows of both.

    Raises:
        IsolationError: the columns have changed since the first time.
    """
    if first.columns and second.columns and first.columns != second.columns:
        raise IsolationError(
            "the changes since a moment of this test are not known",
            why=f"the test has changed the columns of {name} since then",
            cause=shown_line("a statement such as ALTER TABLE"),
            fix="compare with the start of the test: arena.changes()",
        )
    table = first if first.columns else second
    return ReadTable(table.columns, table.key, [*first.rows, *second.rows])


class MySQLIsolation(LevelStack[MySQLDatabase]):
    """The isolation for databases on MySQL and MariaDB: ``undo`` or ``clone``.

    Cost of enter and leave: nothing if no statement may have written. ``undo``: some round trips,
    and the server compares the rows of the written tables. ``clone``: a copy and new connections.
    Both: another copy for a level above a changed level.
    """

    def __init__(
        self,
        registry: MySQLRegistry,
        template: str | None,
        isolation: str,
        *,
        login: ServerLogin,
        uses: Usage,
        note: Callable[[str], None],
    ) -> None:
        self._registry = registry
        self._login = login
        self._usage = uses
        self._writes = WriteLog()
        self._restoring = MySQLControl(
            partial(connect, registry.address_of()),
            lambda control: control.run(SESSION),
        )
        super().__init__(self._template(template), isolation, uses=uses, note=note)

    def _template(self, content: str | None) -> FrozenDatabase:
        return FrozenDatabase(self._registry, content)

    @property
    def address(self) -> Address:
        """The address of the live database."""
        return self.live.address

    def _open(self, base: FrozenDatabase) -> MySQLDatabase:
        name = base.take()
        return MySQLDatabase(
            name, self._registry, self._restoring, self._writes, self._login, self._usage
        )

    def _freeze(self) -> FrozenDatabase:
        name = self._registry.copy_now("live", self.live.name)
        return FrozenDatabase(self._registry, name, is_ours=True)

    def _discard(self, live: MySQLDatabase) -> None:
        self._registry.drop_later(live.name)

    def note_statement(self, statement: Statement, generation: int) -> None:
        """Note a statement that a connection of this process is about to send."""
        if generation == self.generation:
            self._writes.note(statement, self.live.name)

    def save(self, title: str) -> str:
        """Keep a copy of the current state for inspection. Return the database's name."""
        name = self._registry.copy_now("kept", self.live.name)
        self._registry.keep(name, title)
        return name

    def close(self) -> None:
        """Drop the databases of this isolation, in the background."""
        super().close()
        self._restoring.close()

    def end(self, pid: int, database: str, *, cancel: bool = False) -> None:
        """End a connection to a live or replaced database, or cancel only its statement."""
        control = self._registry.control
        if not cancel:
            with self._registry.reporting("a connection cannot be ended"):
                self._registry.end_sessions(f"id = {pid} AND db = {literal(database)}", control)
            return
        with suppress(MySQLFailure):  # the session has ended
            control.run(f"KILL QUERY {pid}")

    def is_waiting(self, pid: int) -> bool:
        """Return whether a session waits for a lock of rows."""
        with self._registry.reporting("a session cannot be looked at"):
            # The tables of the schema show the waits of the last 0.1 seconds.
            [(*_, status)] = self._registry.control.rows("SHOW ENGINE INNODB STATUS")
        return re.search(_WAITS.format(pid), status) is not None

    def content(self) -> dict[str, str]:
        """Return digests of the live database's current content."""
        with self._registry.reporting("the live database cannot be read"):
            return self.live.digests()

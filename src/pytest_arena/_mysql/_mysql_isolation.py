"""The levels of a database: its written tables are restored in place, or a copy replaces it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

from pytest_arena._changes import limited
from pytest_arena._mysql._content import has_same_schema, read_content
from pytest_arena._mysql._control import (
    NO_DATABASE,
    MySQLControl,
    MySQLControlLine,
    MySQLFailure,
    open_control,
)
from pytest_arena._mysql._refill import (
    SESSION,
    TableDifference,
    read_difference,
    restore_counters,
    restore_rows,
)
from pytest_arena._mysql._sessions import sessions_inside, writers_in
from pytest_arena._mysql._statements import may_write
from pytest_arena._mysql._tables import (
    read_cascades,
    read_tables,
    reason_against_undo,
    with_cascades,
)
from pytest_arena._mysql._written import Written
from pytest_arena._origin import user_line
from pytest_arena._process import until
from pytest_arena._product import Held, held_by, nothing
from pytest_arena._product._read_rows import ReadTable, changed_rows
from pytest_arena.errors import ArenaError, IsolationError, impossible

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pytest_arena._mysql._server_registry import MySQLRegistry
    from pytest_arena._mysql._tables import Table
    from pytest_arena._product import Usage
    from pytest_arena._values import Address, ServerLogin, TableRows

_ValueT = TypeVar("_ValueT")
_END_SECONDS = 5.0
# For larger tables, pytest-arena does not compare rows after each request.
_ROWS_OF_A_MOMENT = 5000


class FrozenDatabase:
    """A database on the server that does not change. Without a name it is empty."""

    def __init__(
        self, registry: MySQLRegistry, name: str | None, *, is_ours: bool = False
    ) -> None:
        self._registry = registry
        self.name = name
        self._is_ours = is_ours  # the isolation has created the database

    @cached_property
    def tables(self) -> dict[str, Table]:
        """The tables. Raises as ``MySQLControl.rows`` does."""
        return self._read(read_tables)

    @cached_property
    def cascades(self) -> dict[str, frozenset[str]]:
        """The tables that foreign keys change, by the changed table."""
        return self._read(read_cascades)

    @cached_property
    def content(self) -> dict[str, str]:
        """The digests of the content."""
        return self._read(read_content)

    def _read(
        self, read: Callable[[MySQLControl, str], dict[str, _ValueT]]
    ) -> dict[str, _ValueT]:
        name = self.name
        if name is None:
            return {}
        return self._registry.control.call(lambda control: read(control, name))

    def drop(self) -> None:
        """Drop the database if the isolation has created it."""
        if self._is_ours and self.name:
            self._registry.drop_later(self.name)


@dataclass(slots=True, eq=False)
class MySQLLevel:
    """A level. ``base`` is equal to the live database at the level's start."""

    base: FrozenDatabase
    isolation: str
    recent: Written = field(default_factory=Written)  # since the last snapshot
    older: Written = field(default_factory=Written)  # before it
    # The content that replaced the level's content. Then only a copy restores the start.
    replacement: FrozenDatabase | None = None
    needs_copy: bool = False

    @property
    def written(self) -> Written:
        """What may have been written since the level's start."""
        return self.older + self.recent

    @property
    def first(self) -> FrozenDatabase:
        """The content with which the changes of the level are compared."""
        return self.replacement or self.base

    def note_snapshot(self) -> None:
        """Note that a snapshot has the changes so far."""
        self.older += self.recent
        self.recent = Written()

    def note_restored(self) -> None:
        """Note that the content is as at the level's start again."""
        self.older = Written()
        self.recent = Written()

    def add(self, above: MySQLLevel) -> None:
        """Note the changes of a level above, which are kept."""
        self.older += above.older
        self.recent += above.recent
        self.needs_copy |= above.needs_copy

    def replace(self, content: FrozenDatabase) -> None:
        """Note the content that has replaced the level's content."""
        self.note_restored()
        self.replacement = content
        self.needs_copy = True

    def spoil(self) -> None:
        """Note that only a copy restores the level's start."""
        self.needs_copy = True


@dataclass(frozen=True, slots=True)
class RefillMoment:
    """The committed changes of a level at one time."""

    first: FrozenDatabase
    tables: Mapping[str, TableDifference]


class MySQLIsolation:
    """The isolation for databases on MySQL and MariaDB: ``undo`` or ``clone``.

    The driver's statements show which tables a level may have written. ``undo`` compares these
    tables with a frozen database, and restores the rows that differ. If that is impossible, for
    example after DDL, a copy replaces the database. With ``clone`` a copy always replaces it.

    A level above a changed level begins with a snapshot, which is a copy of the live database.

    If another process may use the database, pytest-arena compares all of its content.

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
        self._uses = uses
        self._note = note
        self._check: Callable[[], None] = nothing
        self._line = MySQLControlLine(self._connect)
        self._templates: dict[str | None, FrozenDatabase] = {}
        self.generation = 1
        self._next_isolation = ""
        self._number_of_writes = 0
        self._last_moment: tuple[object, int, RefillMoment] | None = None
        # The level that was left last, if its start is not restored.
        self._unrestored: MySQLLevel | None = None
        frozen = self._template(template)
        with registry.reporting("no database for the first test"):
            self._plan = registry.plan_of(template)
            self.live = registry.create("live", template=template)
        self._stack = [MySQLLevel(frozen, isolation)]
        # A frozen database that is equal to the live database, apart from the top level's writes.
        self._base = frozen
        self._snapshots: set[FrozenDatabase] = set()

    def _template(self, name: str | None) -> FrozenDatabase:
        return self._templates.setdefault(name, FrozenDatabase(self._registry, name))

    def _connect(self) -> MySQLControl:
        """Connect to restore rows."""
        address = self._registry.address_of()
        control = open_control(address, patience=address.patience)
        control.run(SESSION)
        return control

    @property
    def name(self) -> str:
        """The name of the isolation in use."""
        return self._stack[-1].isolation

    @property
    def address(self) -> Address:
        """The address of the live database, with the login of the app's connections."""
        return self._registry.address_of(self.live).as_(self._login)

    @property
    def depth(self) -> int:
        """The number of open levels."""
        return len(self._stack) - 1

    # Statements

    def note_statement(self, statement: str, generation: tuple[int, int]) -> None:
        """Note a statement that a connection of this process is about to send."""
        _, number = generation
        if number == self.generation and self._may_write(statement):
            self._number_of_writes += 1
            self._stack[-1].recent.note(statement, self.live)

    def may_change_session(self, statement: str) -> bool:
        """Return whether a statement may run a routine or trigger that changes the session."""
        return self._plan.changes_sessions and self._may_write(statement)

    def _may_write(self, statement: str) -> bool:
        return may_write(statement, self._plan.names_that_write)

    def _note_others(self) -> None:
        """Note whether an event or another process may have changed the top level.

        Cost: nothing, or the server reads all rows and definitions.
        """
        written = self._stack[-1].recent
        if self._plan.has_events:
            written.note_all()
        if not self._uses.may_have_others():
            return
        with self._registry.reporting("the live database cannot be compared"):
            before = self._base.content
            now = self._live_content()
        if now != before:
            written.note_all()
        if not has_same_schema(before, now):
            written.note_schema()

    # Levels

    def call_after_leave(self, check: Callable[[], None]) -> None:
        """Call a function after each level is left. If it raises, the level stays."""
        self._check = check

    def choose_next_isolation(self, isolation: str) -> str:
        """Set the isolation of the next level. Return why the level cannot have it, or ""."""
        if isolation == "undo" and self.name != "undo":
            reason = self._reason_against_undo()
            if reason:
                return reason
        self._next_isolation = isolation
        return ""

    def _reason_against_undo(self) -> str:
        with self._registry.reporting("the schema cannot be read"):
            return self._registry.control.call(
                lambda control: reason_against_undo(control, self.live)
            )

    def enter(self) -> None:
        """Open a level above the current state.

        If the level below has changed, this takes a snapshot.

        Raises:
            Held: an open transaction prevents it. The database is unchanged.
            IsolationError: the disk is full.
        """
        if self._unrestored is not None:
            self._finish_leave(self._unrestored)
        below = self._stack[-1]
        isolation = self._next_isolation or below.isolation
        self._next_isolation = ""
        carried = Written()
        self._note_others()
        if below.recent:
            # Some suites undo each test by a savepoint in the transaction of a wider fixture.
            # Then only an open transaction has written, and the test may commit it.
            if self.writers() and self.is_untouched():
                carried += below.recent
            else:
                self._check_for_writers()
                isolation = self._take_snapshot(isolation)
        self._stack.append(MySQLLevel(self._base, isolation, carried))
        self._tidy()

    def _take_snapshot(self, isolation: str) -> str:
        """Freeze a copy of the live database. Return the isolation of the levels above it."""
        with self._uses.alone():
            name = self._registry.copy_now("live", self.live)
        self._base = FrozenDatabase(self._registry, name, is_ours=True)
        self._snapshots.add(self._base)
        self._stack[-1].note_snapshot()
        self._plan = self._registry.plan_of(name)
        reason = self._reason_against_undo() if isolation == "undo" else ""
        if reason:
            self._note(f"{{test}} is isolated by clone, since {reason}")
            return "clone"
        return isolation

    def leave(self) -> bool:
        """Restore the state of the matching ``enter``. Return whether it may have changed.

        Raises:
            Held: a transaction has uncommitted rows or locks. The database is unchanged.
            IsolationError: no copy can be made. The level is still open.
        """
        if not self.depth:
            raise impossible("a level was left that had not been entered")
        level = self._stack[-1]
        self._unrestored = None
        was_changed = not self.is_clean()
        if was_changed:
            self._check_for_writers()
            self._restore(level)
        try:
            self._check()
        except BaseException:
            # The level stays open. `leave_by_force` leaves it.
            level.spoil()
            raise
        self._stack.pop()
        self._tidy()
        return was_changed

    def _restore(self, level: MySQLLevel) -> None:
        """Restore the start of the top level in place, or by a copy."""
        if not level.needs_copy and level.isolation == "undo":
            reason = self._refill(level)
            if not reason:
                level.note_restored()
                self._freeze_at(level.base)
                return
            self._note(f"undo: {{test}}: its database was replaced: {reason}")
        self._replace_by_copy(level)

    def _refill(self, level: MySQLLevel) -> str:
        """Restore the rows and counters of written tables. Return why that is impossible, or "".

        Raises:
            Held: another session holds a lock.
        """
        frozen = level.base
        written = level.written
        if written.has_new_schema or frozen.name is None:
            return "a statement may have changed the schema"
        source = frozen.name
        with self._registry.reporting("the live database cannot be restored"):
            known = frozen.tables
            names = written.names_in({*known})
            names = with_cascades(names, frozen.cascades)
        tables = {name: known[name] for name in sorted(names)}

        def refill(control: MySQLControl) -> None:
            restore_rows(control, source, self.live, tables.values())
            restore_counters(control, self.live, tables)

        try:
            self._line.call(refill)
        except Held:
            # A transaction that has only read prevents the ALTER TABLE that restores a counter.
            if not sessions_inside(self.live):
                raise
            return "an open transaction has read a table whose AUTO_INCREMENT has moved"
        except MySQLFailure as error:
            return f"its rows cannot be restored: {error}"
        return ""

    def leave_by_force(self) -> None:
        """Restore the top level's start by a copy, and end all connections first."""
        level = self._stack.pop()
        # Ctrl-C may interrupt the restore. The next `enter` then restores the level.
        self._unrestored = level
        try:
            # If a session cannot be ended here, the drop of its database ends it.
            with suppress(MySQLFailure, ArenaError):
                self._registry.end_sessions(self.live)
            self._finish_leave(level)
        except BaseException:
            self._stack[-1].spoil()
            raise

    def _finish_leave(self, level: MySQLLevel) -> None:
        self._replace_by_copy(level)
        self._unrestored = None
        self._tidy()

    def _replace_by_copy(self, level: MySQLLevel) -> None:
        """Replace the live database by a copy of the start of a level."""
        level.spoil()
        self._move_to(level.base)
        level.note_restored()

    def _move_to(self, frozen: FrozenDatabase) -> None:
        """Replace the live database by a copy of a frozen one. Its connections become stale."""
        with self._uses.alone():
            self.generation += 1  # connections end, also if this fails
            with self._registry.reporting("the live database cannot be replaced"):
                live = self._registry.create("live", template=frozen.name)
                self._freeze_at(frozen)
            last = self.live
            self.live = live
            self.generation += 1
            self._registry.drop_later(last)

    def _freeze_at(self, frozen: FrozenDatabase) -> None:
        """Note the frozen database that is now equal to the live database."""
        self._base = frozen
        self._plan = self._registry.plan_of(frozen.name)

    def forget(self, *, is_undone: bool = False) -> None:
        """Close the top level and keep its changes. Counters keep their values."""
        del is_undone
        level = self._stack.pop()
        below = self._stack[-1]
        below.add(level)
        self._tidy()

    def replace(self, content: str | None) -> None:
        """Replace the current state by a template's content, or by an empty database."""
        frozen = self._template(content)
        self._move_to(frozen)
        level = self._stack[-1]
        level.replace(frozen)
        self._tidy()

    def _tidy(self) -> None:
        """Drop the snapshots that no level needs."""
        self._last_moment = None
        used = {self._base}
        for level in self._stack:
            used |= {level.base, level.first}
        for frozen in self._snapshots - used:
            frozen.drop()
        self._snapshots &= used

    def _check_for_writers(self) -> None:
        writers = self.writers()
        if writers:
            raise held_by(writers, self.live)

    # Keep and close

    def save(self, title: str) -> str:
        """Keep a copy of the current state for inspection. Return the database's name."""
        with self._uses.alone():
            name = self._registry.copy_now("kept", self.live)
        self._registry.keep(name, title)
        return name

    def close(self) -> None:
        """Drop the databases of this isolation, in the background."""
        self._registry.drop_later(self.live)
        for frozen in self._snapshots:
            frozen.drop()
        self._line.close()

    # Questions

    def is_free(self) -> bool:
        """Return whether no client of this process is inside a transaction and holds locks."""
        return not sessions_inside(self.live)

    def is_untouched(self) -> bool:
        """Return whether no transaction has committed rows in the top level."""
        if self.is_clean():
            return True
        level = self._stack[-1]
        if level.needs_copy or level.written.has_new_schema:
            return False
        with suppress(MySQLFailure):
            return not self._difference(level)
        return False

    def is_clean(self) -> bool:
        """Return whether no statement in the top level may have written."""
        self._note_others()
        level = self._stack[-1]
        return not (level.written or level.needs_copy)

    def writers(self) -> set[int]:
        """Return the live database's sessions that have uncommitted rows."""
        return writers_in(self.live)

    def end(self, pid: int, *, cancel: bool = False) -> None:
        """End a connection to a live or replaced database, or cancel only its statement."""
        control = self._registry.control
        command = "KILL QUERY" if cancel else "KILL"
        with self._registry.reporting("a connection cannot be ended"):
            try:
                control.run(f"{command} {pid}")
            except MySQLFailure as error:
                if error.is_lost:
                    raise
                return  # the session has ended
            if not cancel:
                # A session keeps its locks until it has rolled back.
                processes = "information_schema.processlist"
                question = f"SELECT 1 FROM {processes} WHERE id = {pid}"  # noqa: S608 - a number
                until(lambda: not control.rows(question), within=_END_SECONDS)

    # Rows

    def _live_content(self) -> dict[str, str]:
        return self._registry.control.call(
            lambda control: read_content(control, self.live)
        )

    def _difference(self, level: MySQLLevel) -> dict[str, TableDifference]:
        """Return the changes of the top level so far, by table."""
        first = level.first
        before = first.tables
        written = level.written

        def read(control: MySQLControl) -> dict[str, TableDifference]:
            after = before
            if written.has_new_schema:
                after = read_tables(control, self.live)
            names = written.names_in({*before, *after})
            names = with_cascades(names, first.cascades)
            return read_difference(
                control, (first.name or "", before), (self.live, after), names
            )

        return self._line.call(read)

    def moment(self, *, exact: bool = False) -> RefillMoment | None:
        """Return the current changes of the top level.

        Return None if that costs too much, unless ``exact``: after a change of the schema, with
        large written tables. If another process may use the database, all tables count.

        Cost: nothing if no statement may have written since the last moment. Else the server
        compares the rows of the written tables.
        """
        level = self._stack[-1]
        with self._registry.reporting("the live database cannot be read"):
            if not exact and self._costs_too_much(level):
                return None
            self._note_others()
            if not level.written:
                return RefillMoment(level.first, {})
            last = self._last_moment
            key = (level, self._number_of_writes)
            is_exact = exact or self._uses.may_have_others()
            if not is_exact and last is not None and last[:2] == key:
                return last[2]
            moment = RefillMoment(level.first, self._difference(level))
        self._last_moment = None
        # A COMMIT of an open transaction does not count as a write, so this moment is not kept.
        if not sessions_inside(self.live):
            self._last_moment = (level, self._number_of_writes, moment)
        return moment

    def _costs_too_much(self, level: MySQLLevel) -> bool:
        if level.written.has_new_schema:
            return True
        tables = level.first.tables
        names = {*tables}
        if not self._uses.may_have_others():
            names = with_cascades(level.written.names_in(names), level.first.cascades)
        return sum(tables[name].rows for name in names) > _ROWS_OF_A_MOMENT

    def rows_changed(
        self,
        since: object = None,
        until: object = None,
        *,
        depth: int = 0,
        limit: int | None = None,
    ) -> list[TableRows]:
        """Return the changes of the written tables, by a comparison with the level's start.

        Raises:
            IsolationError: the schema has changed since a moment.
        """
        number = self.depth - depth
        if number < 0:
            return []
        level = self._stack[number]
        with self._registry.reporting("the databases cannot be compared"):
            now: Mapping[str, TableDifference]
            if depth:
                now = self._difference_below(level, self._stack[number + 1])
            elif isinstance(until, RefillMoment):
                now = until.tables
            else:
                self._note_others()
                now = self._difference(level)
        before: Mapping[str, TableDifference] = {}
        if isinstance(since, RefillMoment):
            before = since.tables
        changed = []
        for name in sorted({*before, *now}):
            rows = _between(name, before.get(name), now.get(name))
            if rows.removed or rows.added:
                changed.append(limited(rows, limit))
        return changed

    def _difference_below(
        self, level: MySQLLevel, above: MySQLLevel
    ) -> dict[str, TableDifference]:
        """Compare the contents at the start of a level and of the level above."""
        first = level.first
        start = above.base
        if first is start:
            return {}
        names = level.written.names_in({*first.tables, *start.tables})
        names = with_cascades(names, first.cascades)
        return self._line.call(
            lambda control: read_difference(
                control,
                (first.name or "", first.tables),
                (start.name or "", start.tables),
                names,
            )
        )

    def content(self) -> dict[str, str]:
        """Return digests of the live database's current content.

        Raises:
            IsolationError: the database was dropped.
        """
        with self._registry.reporting("the live database cannot be read"):
            try:
                return self._live_content()
            except MySQLFailure as error:
                if error.number != NO_DATABASE:
                    raise
                raise IsolationError(
                    f"the test's database {self.live} was dropped",
                    why="its content cannot be compared",
                    cause="a program outside of the tests has dropped it",
                    fix="pytest …   # again",
                ) from error


_NO_ROWS = (ReadTable(), ReadTable())


def _between(
    name: str, since: TableDifference | None, until: TableDifference | None
) -> TableRows:
    """Return the changes of a table between two differences from the same earlier rows.

    Raises:
        IsolationError: the columns have changed since the first time.
    """
    removed, added = until or _NO_ROWS
    if since is None:
        return changed_rows(name, removed, added)
    removed_before, added_before = since
    tables = [table for table in (*since, removed, added) if table.columns]
    first = tables[0]
    if any(table.columns != first.columns for table in tables):
        raise IsolationError(
            "the changes since a moment of this test are not known",
            why=f"the test has changed the columns of {name} since then",
            cause=str(user_line() or "a statement such as ALTER TABLE"),
            fix="compare with the start of the test: arena.changes()",
        )
    before = [*added_before.rows, *removed.rows]
    after = [*added.rows, *removed_before.rows]
    return changed_rows(
        name,
        ReadTable(first.columns, first.key, before),
        ReadTable(first.columns, first.key, after),
    )

"""The levels of a database: each begins with a copy of the level below."""

# ruff: noqa: S608 - names and numbers alone

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_arena._mysql._content import ReadContent, compared, content, read_rows
from pytest_arena._mysql._control import NO_DATABASE, MySQLFailure
from pytest_arena._mysql._refill import TouchedTables, refill
from pytest_arena._mysql.drivers._reach import may_write
from pytest_arena._mysql.drivers._records import sessions_inside, writers_in
from pytest_arena._process import until
from pytest_arena._product import held_by, nothing
from pytest_arena.errors import ArenaError, IsolationError, impossible

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_arena._mysql._server_registry import MySQLRegistry
    from pytest_arena._product import Usage
    from pytest_arena._values import Address, TableRows

_END_SECONDS = 5.0
_COUNTERS = """SHOW GLOBAL STATUS WHERE Variable_name IN ('Innodb_lsn_current',
    'Innodb_redo_log_current_lsn', 'Handler_write', 'Handler_update', 'Handler_delete')"""


class FrozenDatabase:
    """A database on the server that does not change, None for an empty one."""

    def __init__(
        self, own: MySQLRegistry, name: str | None, *, is_ours: bool = False
    ) -> None:
        self._own = own
        self.name = name
        self._is_ours = is_ours  # this isolation has made it and drops it
        self._digests: ReadContent | None = None
        self._content: dict[str, str] | None = None

    def copy(self) -> str:
        """Return the name of a new copy.

        Raises:
            IsolationError: no copy can be made.
        """
        return self._own.create("live", template=self.name)

    def rows(self, *, unlike: ReadContent | None = None) -> ReadContent:
        """Return the digests of its tables, or with ``unlike`` the rows of those that differ.

        Raises:
            MySQLFailure: the server does not answer.
        """
        name = self.name
        if name is None:
            return ReadContent()
        control = self._own.control
        if unlike is not None:
            return control.call(lambda control: read_rows(control, name, unlike=unlike))
        if self._digests is None:
            self._digests = control.call(
                lambda control: read_rows(control, name, only_digests=True)
            )
        return self._digests

    def content(self) -> dict[str, str] | None:
        """Return digests of its content, None if it is empty.

        Raises:
            MySQLFailure: the server does not answer.
        """
        name = self.name
        if self._content is None and name is not None:
            self._content = self._own.control.call(
                lambda control: content(control, name)
            )
        return self._content

    def drop(self) -> None:
        """Drop the database if it ``is_ours``."""
        if self._is_ours and self.name:
            self._own.drop_later(self.name)


@dataclass(slots=True, eq=False)
class _CloneLevel:
    """A level. ``below`` is the state to restore when it is left.

    ``start`` is the state with which it begins. ``now`` is its present state, as far as nothing was
    written since.
    """

    below: FrozenDatabase
    start: FrozenDatabase
    now: FrozenDatabase

    def freeze(self, snapshot: FrozenDatabase) -> None:
        """Note a snapshot of the present state."""
        self.now = snapshot

    def begin_with(self, snapshot: FrozenDatabase) -> None:
        """Note that the content was replaced."""
        self.start = snapshot
        self.now = snapshot


class CloneIsolation:
    """The isolation for databases on MySQL and MariaDB: copies of a template or of the level below.

    The driver's statements show whether a level may have written: a level that has only sent
    SELECT and the like is left without a query. MySQL has no cheap number that changes with each
    write to one database. If another process may use the database, the server's counters decide.

    A level that has only sent INSERT, UPDATE, DELETE and REPLACE is left in place: the tables that
    the statements name, and those that refer to them, get their rows and numbers back. Another
    level is left by a new copy, as is one of a database with triggers.

    Cost of enter and leave: nothing if no statement may have written. In place: the rows of the
    named tables, and one ALTER TABLE for each number that has moved. By a copy: each table, and new
    connections. A level above a changed one costs another copy.
    """

    name = "clone"

    def __init__(
        self,
        own: MySQLRegistry,
        template: str | None,
        *,
        uses: Usage,
        tell: Callable[[str], None],
    ) -> None:
        self._own = own
        self._uses = uses
        self._tell = tell
        self._check: Callable[[], None] = nothing
        self._templates: dict[str | None, FrozenDatabase] = {}
        self._snapshots: list[FrozenDatabase] = []  # made here, and dropped here
        self.generation = 0
        self._is_written = False
        self._counters: object = None  # at the last copy
        # The state that the next level begins with, if it could not be restored.
        self._owed: FrozenDatabase | None = None
        first = self._template(template)
        self.live = ""
        self._become(first)
        with own.saying("no database for the first test"):
            self._put(first)
        self._stack = [_CloneLevel(first, first, first)]

    def _template(self, name: str | None) -> FrozenDatabase:
        return self._templates.setdefault(name, FrozenDatabase(self._own, name))

    @property
    def address(self) -> Address:
        """The address of the live database."""
        return self._own.address_of(self.live)

    @property
    def depth(self) -> int:
        """The number of open levels."""
        return len(self._stack) - 1

    def note_statement(self, statement: str, generation: tuple[int, int]) -> None:
        """Note a statement that a connection of this process is about to send."""
        _, number = generation
        if number != self.generation:
            return
        if may_write(statement, self._plan.names_that_write):
            self._is_written = True
            self._touched.note(statement)

    def _has_changed(self) -> bool:
        """Return whether a statement or another process may have written since the last copy."""
        # The number changes at each call if the database may be used without a checkout, as by
        # another process, whose statements are not noted.
        if self._plan.has_events:
            self._is_written = True
        if self._uses() != self._uses():
            self._touched.note_more()
            if not self._is_written:
                self._compare_with_base()
        return self._is_written

    def _compare_with_base(self) -> None:
        """Find writes whose statements were not noted.

        The counters are the server's: other databases move them, too.
        """
        counters = self._read_counters()
        if counters == self._counters:
            return
        with self._own.saying("the live database cannot be compared"):
            self._is_written = self._base.content() != self._live_content()
        if not self._is_written:
            self._counters = counters

    def _become(self, snapshot: FrozenDatabase) -> None:
        """Note that the live database equals a snapshot now."""
        self._base = snapshot
        self._plan = self._own.plan_of(snapshot.name)
        self._touched = TouchedTables(self._plan)
        self._is_written = False

    def _read_counters(self) -> object:
        """Return numbers of the server that change with each write to any database.

        Raises:
            ArenaError: the server does not answer.
        """
        with self._own.saying("the server's counters cannot be read"):
            return self._own.control.rows(_COUNTERS)

    # Levels

    def call_after_leave(self, check: Callable[[], None]) -> None:
        """Call a function after each level is left. If it raises, the level stays."""
        self._check = check

    def enter(self) -> None:
        """Open a level above the current state. Copy the database if the level has written.

        Raises:
            Held: an open transaction prevents a copy. Nothing was done.
            IsolationError: the disk is full.
        """
        level = self._stack[-1]
        if self._owed is not None:
            self._restore(self._owed)
        if self._has_changed() and not self._is_only_uncommitted(level):
            self._check_for_writers()
            with self._uses.alone():
                level.freeze(self._frozen())
        self._stack.append(_CloneLevel(level.now, level.now, level.now))
        self._tidy()

    def _is_only_uncommitted(self, level: _CloneLevel) -> bool:
        """Return whether open transactions have written, and nothing was committed.

        Some suites undo each test by savepoints in a transaction of a wider fixture.
        """
        return bool(self.writers()) and self._has_rows_of(level.now)

    def _has_rows_of(self, snapshot: FrozenDatabase) -> bool:
        """Return whether the committed rows equal those of a snapshot."""
        with suppress(MySQLFailure):
            now = self._live_rows(only_digests=True)
            return now.digests == snapshot.rows().digests
        return False

    def _frozen(self) -> FrozenDatabase:
        """Return a copy of the live database."""
        # A thread that has a connection may write meanwhile, which is noted again.
        self._is_written = False
        self._counters = self._read_counters()
        try:
            name = self._own.copy_now("frozen", self.live)
            snapshot = FrozenDatabase(self._own, name, is_ours=True)
            self._snapshots.append(snapshot)
            was_written = self._is_written
            self._become(snapshot)
        except BaseException:
            self._is_written = True
            raise
        if was_written:
            self._is_written = True
            self._touched.note_more()
        return snapshot

    def leave(self) -> bool:
        """Restore the state of the matching ``enter``. Return whether it may have changed.

        Raises:
            Held: a transaction has uncommitted rows. Nothing was done.
            IsolationError: no copy can be made. The level still exists.
        """
        if not self.depth:
            raise impossible("a level was left that had not been entered")
        level = self._stack[-1]
        was_changed = self._has_changed() or level.now is not level.below
        if was_changed:
            self._check_for_writers()
            self._restore(level.below)
        self._stack.pop()
        try:
            self._check()
        except BaseException:
            # The level stays, and is left by force.
            self._stack.append(level)
            self._is_written = True
            self._touched.note_more()
            raise
        self._tidy()
        return was_changed

    def leave_by_force(self) -> None:
        """Restore the top level's start, and end all connections first."""
        level = self._stack[-1]
        self._stack.pop()
        # A session that cannot be ended ends with its database.
        with suppress(MySQLFailure, ArenaError):
            self._own.end_sessions(self.live)
        self._stack[-1].freeze(level.below)
        self._touched.note_more()
        self._owed = level.below
        self._restore(level.below)
        self._tidy()

    def _restore(self, snapshot: FrozenDatabase) -> None:
        """Give the live database the state of a snapshot: by its rows, or by another copy."""
        with self._uses.alone():
            if not self._is_refilled(snapshot):
                self._put(snapshot)
        self._owed = None

    def _is_refilled(self, snapshot: FrozenDatabase) -> bool:
        """Put back the rows of the changed tables. Return False if that is impossible."""
        touched = self._touched
        if snapshot is not self._base or touched.is_more or sessions_inside(self.live):
            return False
        tables = touched.tables()
        plan = self._plan
        try:
            if tables:
                self._own.in_registry(
                    lambda control: refill(control, self.live, plan, tables)
                )
        except MySQLFailure:
            return False
        self._become(snapshot)
        self._counters = self._read_counters()
        return True

    def _put(self, snapshot: FrozenDatabase) -> None:
        """Make a copy of a snapshot the live database, and drop the last one."""
        self.generation += 1  # connections end, also if this fails
        last = self.live
        self.live = snapshot.copy()
        self.generation += 1
        self._become(snapshot)
        self._counters = self._read_counters()
        if last:
            self._own.drop_later(last)

    def forget(self, *, is_undone: bool = False) -> None:
        """Close the top level and keep its changes. Counters keep their numbers."""
        del is_undone
        level = self._stack.pop()
        self._stack[-1].freeze(level.now)
        self._tidy()

    def replace(self, content: str | None) -> None:
        """Replace the current state by a template's content, or by an empty database."""
        snapshot = self._template(content)
        with self._uses.alone():
            self._put(snapshot)
        self._stack[-1].begin_with(snapshot)
        self._tidy()

    def _tidy(self) -> None:
        """Drop the snapshots that no level needs."""
        if not self._snapshots:
            return
        used: set[FrozenDatabase] = set()
        for level in self._stack:
            used |= {level.below, level.start, level.now}
        for snapshot in set(self._snapshots) - used:
            self._snapshots.remove(snapshot)
            snapshot.drop()

    def _check_for_writers(self) -> None:
        writers = writers_in(self.live)
        if writers:
            raise held_by(writers, self.live)

    # Keep and close

    def save(self, title: str) -> str:
        """Keep a copy of the current state for inspection. Return the database's name."""
        with self._uses.alone():
            name = self._own.copy_now("kept", self.live)
        self._own.keep(name, title)
        return name

    def close(self) -> None:
        """Drop the live database and the snapshots of this isolation, in the background."""
        self._own.drop_later(self.live)
        for snapshot in self._snapshots:
            snapshot.drop()

    # Questions

    def is_free(self) -> bool:
        """Whether no client of this process is inside a transaction, and so has no locks."""
        return not sessions_inside(self.live)

    def is_untouched(self) -> bool:
        """Whether no row was committed in the top level: its rows are compared with the start."""
        level = self._stack[-1]
        if not self._has_changed() and level.now is level.start:
            return True
        return self._has_rows_of(level.start)

    def is_clean(self) -> bool:
        """Whether no statement in the top level may have written."""
        level = self._stack[-1]
        return not self._has_changed() and level.now is level.below

    def writers(self) -> set[int]:
        """Return the live database's sessions that have uncommitted rows."""
        return writers_in(self.live)

    def end(self, pid: int, *, cancel: bool = False) -> None:
        """End a connection to a live or replaced database, or cancel only its statement."""
        control = self._own.control
        with self._own.saying("a connection cannot be ended"):
            try:
                control.run(f"KILL {'QUERY ' if cancel else ''}{pid}")
            except MySQLFailure as error:
                if error.is_lost:
                    raise
                return  # no such session: it has ended
            if not cancel:
                # A session keeps its locks until it has rolled back.
                question = (
                    f"SELECT 1 FROM information_schema.processlist WHERE id = {pid}"
                )
                until(lambda: not control.rows(question), within=_END_SECONDS)

    # ReadContent

    def _live_rows(
        self, *, unlike: ReadContent | None = None, only_digests: bool = False
    ) -> ReadContent:
        return self._own.control.call(
            lambda control: read_rows(
                control, self.live, unlike=unlike, only_digests=only_digests
            )
        )

    def _live_content(self) -> dict[str, str]:
        return self._own.control.call(lambda control: content(control, self.live))

    def moment(self, *, exact: bool = False) -> ReadContent | None:
        """Return None: a database has no history. With ``exact``, read all rows instead."""
        if not exact:
            return None
        with self._own.saying("the live database cannot be read"):
            return self._live_rows()

    def rows_changed(
        self,
        since: object = None,
        until: object = None,
        *,
        depth: int = 0,
        limit: int | None = None,
    ) -> list[TableRows]:
        """Compare the rows with those of the level's start, or with a moment.

        The server computes digests of all tables. pytest-arena reads the rows of those that differ.
        """
        number = self.depth - depth
        if number < 0:
            return []
        start = self._stack[number].start
        with self._own.saying("the databases cannot be compared"):
            if depth:
                end = self._stack[number + 1].below
                return self._compared(start, end, limit)
            after = until if isinstance(until, ReadContent) else None
            if isinstance(since, ReadContent):
                return compared(
                    since, after or self._live_rows(unlike=since), limit=limit
                )
            after = after or self._live_rows(unlike=start.rows())
            return compared(start.rows(unlike=after), after, limit=limit)

    def _compared(
        self, start: FrozenDatabase, end: FrozenDatabase, limit: int | None
    ) -> list[TableRows]:
        if start is end:
            return []
        after = end.rows(unlike=start.rows())
        return compared(start.rows(unlike=after), after, limit=limit)

    def content(self) -> dict[str, str]:
        """Return digests of the live database's current content.

        Raises:
            IsolationError: the database was dropped.
        """
        with self._own.saying("the live database cannot be read"):
            try:
                return self._live_content()
            except MySQLFailure as error:
                if error.number != NO_DATABASE:
                    raise
                raise IsolationError(
                    f"the test's database {self.live} was dropped",
                    why="its content cannot be compared",
                    cause="a program outside of the tests has dropped it",
                    fix="pytest …   # once more",
                ) from error

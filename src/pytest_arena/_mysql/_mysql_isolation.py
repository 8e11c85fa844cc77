"""The levels of a database: restored in place by a journal, or by a copy."""

# ruff: noqa: S608 - numbers alone

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING

from pytest_arena._mysql._content import content, read_rows
from pytest_arena._mysql._control import (
    NO_DATABASE,
    MySQLControl,
    MySQLControlLine,
    MySQLFailure,
    open_control,
)
from pytest_arena._mysql._frozen import (
    FrozenDatabase,
    LevelBase,
    MySQLLevel,
    NoJournal,
)
from pytest_arena._mysql.drivers._reach import bare, may_write
from pytest_arena._mysql.drivers._records import sessions_inside, writers_in
from pytest_arena._mysql.journal._journal_control import SESSION
from pytest_arena._mysql.journal._key_journal import KeyJournal, SchemaChanged
from pytest_arena._mysql.journal._net_rows import JournalMoment
from pytest_arena._mysql.journal._schema_facts import find_reasons_against_undo
from pytest_arena._origin import user_line
from pytest_arena._process import until
from pytest_arena._product import Held, held_by, nothing
from pytest_arena._product._read_rows import ReadContent, compared
from pytest_arena.errors import ArenaError, IsolationError, impossible

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_arena._mysql._server_registry import MySQLRegistry
    from pytest_arena._product import Usage
    from pytest_arena._values import Address, TableRows

_END_SECONDS = 5.0
_UNREADABLE = "the live database cannot be read"
_LOCKS_TO_WRITE = re.compile(r"(?is)\s*LOCK\s+TABLES?\b.*\bWRITE\b")
# Any other statement that may write may also change the schema, for example a CALL.
_CHANGES_ROWS = re.compile(r"(?i)\s*(?:INSERT|UPDATE|DELETE|REPLACE)\b[^;]*\Z")
_XA_PREPARE = re.compile(r"(?i)\s*XA\s+PREPARE\s+(?P<name>[^;]+)")


class MySQLIsolation:
    """The isolation for databases on MySQL and MariaDB: ``undo`` or ``clone``.

    ``undo`` restores the rows in place by a key journal. If the journal cannot restore a level,
    for example after DDL, a copy replaces the database. With ``clone`` a copy replaces the database
    after each level that may have written.

    If the journal cannot restore a level, and another level is entered above it, pytest-arena takes
    a snapshot of the database: a ``LevelBase``, whose journal has the levels above.

    The driver's statements show whether a level may have written. After a level with only SELECT
    and similar statements, no query is needed. If another process may use the database, the journal
    or a comparison decides.

    Cost of enter and leave: nothing if no statement may have written. ``undo``: some round trips,
    and the time of the changes. ``clone``: a copy and new connections, and another copy for a level
    above a changed level.
    """

    def __init__(
        self,
        registry: MySQLRegistry,
        template: str | None,
        isolation: str,
        *,
        uses: Usage,
        note: Callable[[str], None],
        may_clone: bool,
    ) -> None:
        self._registry = registry
        self._uses = uses
        self._note = note
        # A level may be a clone if a wider fixture creates content that no journal can restore.
        self._may_clone = may_clone
        self._check: Callable[[], None] = nothing
        self._templates: dict[str | None, FrozenDatabase] = {}
        self._line = MySQLControlLine(self._connect)
        self.generation = 1
        self._next_isolation = ""
        self._is_written = False
        self._number_of_writes = 0
        # The last moment, by its level and the number of writes before it.
        self._last_moment: dict[tuple[MySQLLevel, int], JournalMoment] = {}
        # What statements of this process have done since the last level was entered.
        self._may_have_ddl = False
        self._has_new_schema = False
        # The names of prepared XA transactions, in the app's spelling.
        self._prepared: set[str] = set()
        # The level that was left last, if its start is not restored.
        self._unrestored: MySQLLevel | None = None
        frozen = self._template(template)
        self._plan = registry.plan_of(template)
        with registry.reporting("no database for the first test"):
            self.live = frozen.copy()
            base = self._new_base(isolation, frozen, self.live)
        self._bases = [base]
        self._stack = [MySQLLevel(base, 0, (base, 0))]

    def _template(self, name: str | None) -> FrozenDatabase:
        return self._templates.setdefault(name, FrozenDatabase(self._registry, name))

    def _connect(self) -> MySQLControl:
        """Connect for the journal."""
        address = self._registry.address_of()
        control = open_control(address, patience=address.patience)
        for statement in SESSION:
            control.run(statement)
        return control

    def _new_base(self, isolation: str, frozen: FrozenDatabase, live: str) -> LevelBase:
        """Return the base of a live database that equals a frozen one."""
        if isolation == "clone":
            return LevelBase(frozen, NoJournal())
        side = self._registry.create("journal")
        try:
            journal = KeyJournal(self._line, live, frozen.name or "", side)
        except BaseException:
            self._registry.drop_later(side)
            raise
        return LevelBase(frozen, journal, side)

    @property
    def name(self) -> str:
        """The name of the isolation in use."""
        return self._bases[-1].journal.isolation

    @property
    def address(self) -> Address:
        """The address of the live database."""
        return self._registry.address_of(self.live)

    @property
    def depth(self) -> int:
        """The number of open levels."""
        return len(self._stack) - 1

    def note_statement(self, statement: str, generation: tuple[int, int]) -> None:
        """Note a statement that a connection of this process is about to send.

        Raises:
            IsolationError: the triggers of the journal would fail after this statement.
        """
        _, number = generation
        if number != self.generation:
            return
        journal = self._bases[-1].journal
        fails = isinstance(journal, KeyJournal) and journal.fails_under_lock_tables
        if fails and _LOCKS_TO_WRITE.match(statement):
            raise IsolationError(
                f"undo cannot restore rows that a test writes under {statement.strip()}",
                why="the triggers of undo record the changed rows, and MariaDB refuses the second "
                "write of a trigger under LOCK TABLES (error 1442)",
                cause=str(user_line() or "a statement LOCK TABLES"),
                fix='@pytest.mark.arena(isolation="clone")',
            )
        if may_write(statement, self._plan.names_that_write):
            self._note_write()
            if not _CHANGES_ROWS.match(bare(statement)):
                self._may_have_ddl = True
        prepare = _XA_PREPARE.match(statement)
        if prepare is not None:
            self._prepared.add(prepare["name"])

    def may_change_session(self, statement: str) -> bool:
        """Return whether a statement may run a routine or trigger that changes the session."""
        plan = self._plan
        return plan.changes_sessions and may_write(statement, plan.names_that_write)

    def _note_write(self) -> None:
        self._number_of_writes += 1
        self._is_written = True

    def _has_changed(self) -> bool:
        """Return whether a statement or another process may have written in the top level."""
        if self._plan.has_events:
            self._note_write()
        # The number changes at each call while a connection is checked out. It also does if another
        # process may use the database, because pytest-arena does not see its statements.
        if self._uses() != self._uses() and self._may_differ():
            self._note_write()
        return self._is_written

    def _may_differ(self) -> bool:
        if self._is_written:
            return True
        base = self._bases[-1]
        journal = base.journal
        with self._registry.reporting("the live database cannot be compared"):
            if isinstance(journal, KeyJournal):
                return not journal.is_untouched() or journal.has_moved_counters()
            return base.frozen.content() != self._live_content()

    def _roll_back_prepared(self) -> None:
        """Roll back prepared XA transactions whose sessions have ended, and report them.

        Such a transaction keeps its locks after the end of its session.
        """
        for name in sorted(self._prepared):
            # The server refuses if the transaction has ended, or if its session is open.
            with suppress(MySQLFailure):
                self._registry.control.run(f"XA ROLLBACK {name}")
                self._note(
                    f"{self.name}: {{test}} has left the XA transaction {name}, rolled back"
                )

    # Levels

    def call_after_leave(self, check: Callable[[], None]) -> None:
        """Call a function after each level is left. If it raises, the level stays."""
        self._check = check

    def choose_next_isolation(self, isolation: str) -> str:
        """Set the isolation of the next level. Return why the level cannot have it, or ""."""
        if isolation == "undo" and self.name != "undo":
            with self._registry.reporting("the schema cannot be read"):
                reason = first_reason_against_undo(self._registry, self.live)
            if reason:
                return reason
        self._next_isolation = isolation
        return ""

    def enter(self) -> None:
        """Open a level above the current state.

        If the journal cannot restore the changes of the level below, this takes a snapshot.

        Raises:
            Held: an open transaction prevents it. The database is unchanged.
            IsolationError: the disk is full, or no journal can restore the changes of the level
                below.
        """
        if self._unrestored is not None:
            self._finish_leave(self._unrestored)
        level = self._stack[-1]
        requested = self._next_isolation
        self._next_isolation = ""
        has_changed = self._has_changed()
        # Some suites undo each test by a savepoint in the transaction of a wider fixture. Then only
        # open transactions have written.
        is_used = has_changed and not (self.writers() and self.is_untouched())
        if is_used:
            self._check_for_writers()
            self._is_written = False
        try:
            self._enter_base(is_used=is_used)
        except BaseException:
            self._is_written = self._is_written or is_used
            raise
        if has_changed:
            level.note_written()
        base = self._bases[-1]
        number = base.journal.depth
        self._may_have_ddl = False
        self._has_new_schema = False
        self._stack.append(MySQLLevel(base, number, (base, number)))
        if requested not in {"", self.name}:
            self._change_isolation(requested)
        self._tidy()

    def _enter_base(self, *, is_used: bool) -> None:
        """Open a level in the journal. If that is impossible, open it above a snapshot."""
        with self._registry.reporting("the level cannot be entered"):
            try:
                self._bases[-1].journal.enter(is_used=is_used)
            except SchemaChanged:
                self._add(self._snapshot(self.name))
                self._bases[-1].journal.enter(is_used=False)

    def _change_isolation(self, isolation: str) -> None:
        """Give the top level another isolation, on a new snapshot of the live database."""
        try:
            with self._registry.reporting("the level cannot be entered"):
                base = self._snapshot(isolation)
        except BaseException:
            self._pop()
            raise
        self._add(base)
        self._stack[-1].begin_with(base)

    def _add(self, base: LevelBase) -> None:
        """Add a base, to which the live database is now equal."""
        self._bases.append(base)
        self._plan = self._registry.plan_of(base.frozen.name)

    def _snapshot(self, isolation: str) -> LevelBase:
        """Return a new base: a copy of the live database."""
        reason = ""
        if isolation != "clone":
            reason = first_reason_against_undo(self._registry, self.live)
        if reason and not self._may_clone:
            raise IsolationError(
                f"a fixture has created content that undo cannot restore: {reason}",
                why="the tests above this fixture change rows that only a copy would restore",
                cause="the set-up of a fixture with a wide scope",
                fix="arena_isolation = auto   (with auto these tests are isolated by clone)",
            )
        if reason:
            self._note(f"{{test}} is isolated by clone, since {reason}")
            isolation = "clone"
        with self._uses.alone():
            name = self._registry.copy_now("frozen", self.live)
            frozen = FrozenDatabase(self._registry, name, is_ours=True)
            try:
                # An open transaction that has read would block the creation of triggers.
                is_in_the_way = isolation == "undo" and sessions_inside(self.live)
                # `clone` must also work if the journal's triggers fail. A copy has no triggers.
                has_old_triggers = isolation == "clone" and self.name == "undo"
                if is_in_the_way or has_old_triggers:
                    return self._moved_to(frozen, isolation)
                return self._new_base(isolation, frozen, self.live)
            except BaseException:
                frozen.drop()
                raise

    def _moved_to(self, frozen: FrozenDatabase, isolation: str) -> LevelBase:
        """Replace the live database by a copy of a frozen database, and drop the old one."""
        live = frozen.copy()
        try:
            base = self._new_base(isolation, frozen, live)
        except BaseException:
            self._registry.drop_later(live)
            raise
        self._go_to(live)
        return base

    def _go_to(self, live: str) -> None:
        """Make another database the live database. Connections to the old one become stale."""
        last = self.live
        self.generation += 1
        self.live = live
        self.generation += 1
        self._registry.drop_later(last)

    def leave(self) -> bool:
        """Restore the state of the matching ``enter``. Return whether it may have changed.

        Raises:
            Held: a transaction has uncommitted rows or locks. The database is unchanged.
            IsolationError: no copy can be made. The level is still open.
        """
        if not self.depth:
            raise impossible("a level was left that had not been entered")
        level = self._stack[-1]
        self._forget_unrestored()
        self._roll_back_prepared()
        was_changed = level.is_written or self._has_changed()
        if was_changed:
            self._check_for_writers()
            was_changed = self._rewind(level)
        try:
            self._check()
        except BaseException:
            # The level stays open. `leave_by_force` leaves it.
            level.spoil()
            raise
        self._pop()
        return was_changed

    def _pop(self) -> None:
        self._prepared.clear()
        level = self._stack.pop()
        level.base.journal.cut_to(level.number - 1)
        self._tidy()

    def _rewind(self, level: MySQLLevel) -> bool:
        """Restore the start of the top level. Return whether it had changed."""
        if level.base is not self._bases[-1] or level.is_spoiled:
            self._replace_by_copy(level)
            return True
        self._is_written = False
        reason = ""
        journal = level.base.journal
        journal.cut_to(level.number)
        try:
            return journal.rewind()
        except SchemaChanged as change:
            if change.args:
                reason = f"{', '.join(change.args)} has changed"
        except Held:
            self._is_written = True
            # A transaction that has only read prevents the ALTER TABLE that restores a counter.
            if self.writers() or not sessions_inside(self.live):
                raise
        except MySQLFailure as error:
            self._is_written = True
            reason = f"the key journal fails: {error}"
        if reason:
            self._note(f"undo: {{test}}: its database was replaced: {reason}")
        self._replace_by_copy(level)
        return True

    def leave_by_force(self) -> None:
        """Restore the top level's start by a copy, and end all connections first."""
        level = self._stack[-1]
        level.spoil()
        self._forget_unrestored()
        # Ctrl-C may interrupt the restore. The next `enter` then restores the level.
        self._unrestored = level
        self._stack.pop()
        try:
            # If a session cannot be ended here, the drop of its database ends it.
            with suppress(MySQLFailure, ArenaError):
                self._registry.end_sessions(self.live)
            self._roll_back_prepared()
            self._prepared.clear()
            self._finish_leave(level)
        except BaseException:
            self._stack[-1].spoil()
            raise

    def _finish_leave(self, level: MySQLLevel) -> None:
        self._replace_by_copy(level)
        self._forget_unrestored()
        self._tidy()

    def _forget_unrestored(self) -> None:
        level = self._unrestored
        if level is not None:
            level.base.journal.cut_to(level.number - 1)
            self._unrestored = None

    def _replace_by_copy(self, level: MySQLLevel) -> None:
        """Replace the live database by a copy in the state of a level's start."""
        level.spoil()
        while self._bases[-1] is not level.base:
            self._drop(self._bases.pop())
        with self._uses.alone():
            self.generation += 1  # connections end, also if this fails
            with self._registry.reporting("the live database cannot be replaced"):
                live = level.base.frozen.copy()
                level.base.journal.cut_to(level.number)
                try:
                    self._reinstall(level.base.journal, live)
                except BaseException:
                    self._registry.drop_later(live)
                    raise
            self._plan = self._registry.plan_of(level.base.frozen.name)
            self._go_to(live)
            self._is_written = False

    def _reinstall(self, journal: KeyJournal | NoJournal, live: str) -> None:
        """Let a journal continue in the copy ``live``, which replaces the live database."""
        if isinstance(journal, KeyJournal):
            # An open transaction may hold locks on entries of the journal, even if its UPDATE
            # has changed no row.
            self._registry.end_sessions(self.live)
        journal.reinstall(live)

    def forget(self, *, is_undone: bool = False) -> None:
        """Close the top level and keep its changes. Counters keep their values."""
        del is_undone
        if self._stack[-1].is_written:
            self._stack[-2].note_written()
        self._pop()

    def replace(self, content: str | None) -> None:
        """Replace the current state by a template's content, or by an empty database."""
        frozen = self._template(content)
        with (
            self._registry.reporting("the content cannot be replaced"),
            self._uses.alone(),
        ):
            base = self._moved_to(frozen, self.name)
        self._add(base)
        self._is_written = False
        self._stack[-1].begin_with(base)
        self._tidy()

    def _tidy(self) -> None:
        """Drop the bases that no level needs, except the top one."""
        self._last_moment.clear()
        if len(self._bases) == 1:
            return
        used = {self._bases[-1]}
        for level in self._stack:
            used |= {level.base, level.start[0]}
        for base in self._bases:
            if base not in used:
                self._drop(base)
        self._bases = [base for base in self._bases if base in used]

    def _drop(self, base: LevelBase) -> None:
        base.frozen.drop()
        if base.side:
            self._registry.drop_later(base.side)

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
        for base in self._bases:
            self._drop(base)
        self._line.close()

    # Questions

    def is_free(self) -> bool:
        """Return whether no client of this process is inside a transaction and holds locks."""
        return not sessions_inside(self.live)

    def is_untouched(self) -> bool:
        """Return whether no transaction has committed rows in the top level."""
        level = self._stack[-1]
        if self.is_clean():
            return True
        base, number = level.start
        journal = base.journal
        is_on_top = base is self._bases[-1]
        with suppress(MySQLFailure):
            if is_on_top and isinstance(journal, KeyJournal):
                return journal.is_untouched()
            now = self._live_rows(only_digests=True)
            return now.digests == base.rows(number).digests
        return False

    def is_clean(self) -> bool:
        """Return whether no statement in the top level may have written."""
        level = self._stack[-1]
        return not (level.is_written or self._has_changed())

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
                question = f"SELECT 1 FROM {processes} WHERE id = {pid}"
                until(lambda: not control.rows(question), within=_END_SECONDS)

    # Rows

    def _live_rows(
        self, *, unlike: ReadContent | None = None, only_digests: bool = False
    ) -> ReadContent:
        return self._registry.control.call(
            lambda control: read_rows(
                control, self.live, unlike=unlike, only_digests=only_digests
            )
        )

    def _live_content(self) -> dict[str, str]:
        return self._registry.control.call(lambda control: content(control, self.live))

    def moment(self, *, exact: bool = False) -> JournalMoment | ReadContent | None:
        """Return the current changes by the journal.

        Without a journal, and after a change of the schema, return None, or all rows with
        ``exact``.

        Cost: nothing if no statement may have written since the last moment.
        """
        journal = self._bases[-1].journal
        has_journal = exact or not self._has_new_schema
        with self._registry.reporting(_UNREADABLE):
            if has_journal and isinstance(journal, KeyJournal):
                try:
                    return self._journal_moment(journal, exact=exact)
                except SchemaChanged:
                    self._has_new_schema = True
            return self._live_rows() if exact else None

    def _journal_moment(self, journal: KeyJournal, *, exact: bool) -> JournalMoment:
        if self.is_clean():
            return JournalMoment()
        key = (self._stack[-1], self._number_of_writes)
        if key in self._last_moment and not exact:
            return self._last_moment[key]
        moment = journal.moment(exact=exact or self._may_have_ddl)
        self._last_moment.clear()
        # A COMMIT of an open transaction does not count as a write, so this moment is not cached.
        if not sessions_inside(self.live):
            self._last_moment[key] = moment
        return moment

    def rows_changed(
        self,
        since: object = None,
        until: object = None,
        *,
        depth: int = 0,
        limit: int | None = None,
    ) -> list[TableRows]:
        """Return the changes by the journal, or by a comparison with the level's start.

        For a comparison the server computes a digest of each table. pytest-arena reads the rows of
        tables whose digests differ. For a level below another level it always compares.

        Raises:
            IsolationError: the schema has changed since a moment.
        """
        number = self.depth - depth
        if number < 0:
            return []
        level = self._stack[number]
        with self._registry.reporting("the databases cannot be compared"):
            if depth:
                return self._compared(level, self._stack[number + 1], limit)
            base, inner = level.start
            journal = base.journal
            if (
                base is self._bases[-1]
                and isinstance(journal, KeyJournal)
                and isinstance(since, JournalMoment | None)
                and isinstance(until, JournalMoment | None)
            ):
                with suppress(SchemaChanged):
                    return journal.rows_changed(since, until, limit=limit)
            if isinstance(since, JournalMoment) and since.tables:
                raise IsolationError(
                    "the changes since a moment of this test are not known",
                    why="the test has changed the schema since then, so that the key journal has "
                    "no rows of the changed tables",
                    cause=str(user_line() or "a statement such as ALTER TABLE"),
                    fix="compare with the start of the test: arena.changes()",
                )
            before = since if isinstance(since, ReadContent) else None
            after = until if isinstance(until, ReadContent) else None
            after = after or self._live_rows(unlike=before or base.rows(inner))
            before = before or base.rows(inner, unlike=after)
            return compared(before, after, limit=limit)

    def _compared(
        self, level: MySQLLevel, above: MySQLLevel, limit: int | None
    ) -> list[TableRows]:
        """Compare the contents at the start of a level and of the level above."""
        start, number = level.start
        after = above.base.rows(above.number, unlike=start.rows(number))
        return compared(start.rows(number, unlike=after), after, limit=limit)

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


def first_reason_against_undo(registry: MySQLRegistry, database: str) -> str:
    """Return the first reason why undo cannot restore a database, "" if it can."""
    reasons = find_reasons_against_undo(registry.control, database)
    for name, reason in reasons.items():
        return f"{name}: {reason}" if name else reason
    return ""

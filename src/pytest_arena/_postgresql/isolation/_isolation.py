"""The levels of a database: in place, or by a copy."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from pytest_arena._postgresql._control import ControlFailure, literal
from pytest_arena._postgresql._rows import read_content
from pytest_arena._postgresql.isolation._live import NEVER, Look, ServerLevel
from pytest_arena._postgresql.isolation._plain import PlainDatabase
from pytest_arena._postgresql.isolation._rolled_back import (
    RolledBackDatabase,
    Uncommitted,
)
from pytest_arena._postgresql.isolation._snapshots import RowsLost, Snapshot
from pytest_arena._process import until
from pytest_arena._product import held_by, nothing
from pytest_arena.errors import ArenaError, impossible

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_arena._postgresql.registry import ServerRegistry
    from pytest_arena._product import Usage
    from pytest_arena._values import Address, TableRows

_Live = PlainDatabase
_Level = ServerLevel[_Live]
_END_SECONDS = 5.0  # for a backend that drops its temporary tables before it exits
_UNCHANGED = Look()
_CHANGED = Look(is_changed=True, has_rows=True)
KINDS: dict[str, type[_Live]] = {
    "rollback": RolledBackDatabase,
}


def as_built(template: str | None) -> str | None:
    """Return the template itself: no role needs rights in it."""
    return template


class ServerIsolation:
    """The isolation for databases on a server.

    The class of a level's live database restores it: ``undo`` undoes changes in place, ``clone``
    replaces the database by a copy, ``rollback`` rolls back to a savepoint. If no connection has
    used the database since the last level, pytest-arena does not ask the server (``uses``).

    ``choose_next_isolation`` sets the isolation of the next level. If another isolation is in use,
    pytest-arena copies the live database and enters the level in the copy. No connection reaches
    the original database until the level is left. The copy stays for the next such level, until a
    connection uses the original database, or a level is entered or left there.

    Cost of enter and leave: nothing if no connection used the database.

    - ``undo``: two round trips and the time of the changes.
    - ``clone``: one round trip without writes, or two with sequences. After writes it costs three
      round trips and new connections.
    - ``rollback``: nothing without a write, one round trip after a write.
    - Another isolation: two copies of the live database and new connections, unless a copy exists.
    """

    def __init__(
        self,
        registry: ServerRegistry,
        template: str | None,
        isolation: str,
        *,
        with_rights: Callable[[str | None], str | None] = as_built,
        uses: Usage,
        note: Callable[[str], None],
    ) -> None:
        self._registry = registry
        self._with_rights = with_rights
        self._uses = uses
        self._note = note
        self._check: Callable[[], None] = nothing
        self._snapshots: list[Snapshot] = []  # this isolation freezes and drops them
        # The level of another isolation that was left last, and the number of uses at that time.
        self._spare: tuple[_Level, int] | None = None
        live = self._new_live(isolation)
        first = Snapshot(registry, live.template(with_rights(template)))
        self._templates = {(isolation, template): first}
        with registry.reporting("no database for the first test"):
            live.replace_by_copy(first)
        self.generation = 1
        self._stack = [ServerLevel(live)]

    def _new_live(self, isolation: str) -> _Live:
        return KINDS[isolation](self._registry, self._uses, self._note)

    @property
    def live(self) -> _Live:
        """The top level's database."""
        return self._stack[-1].live

    @property
    def address(self) -> Address:
        """The address of the top level's database."""
        return self.live.address

    @property
    def name(self) -> str:
        """The name of the isolation in use."""
        return self.live.isolation

    @property
    def depth(self) -> int:
        """The number of open levels."""
        return len(self._stack) - 1

    # Levels

    def call_after_leave(self, check: Callable[[], None]) -> None:
        """Call a function after each level is left. If it raises, the level stays."""
        self._check = check

    def enter(self) -> None:
        """Open a level above the current state.

        If the level needs a copy, or the schema was changed, this takes a snapshot. All connections
        end.

        Raises:
            Held: an open transaction prevents a copy. The database is unchanged.
            IsolationError: the disk is full, or the other isolation does not work here.
        """
        level = self._stack[-1]
        level.live.close_moments(are_over=False)
        if level.unrestored:
            self._restore_copy(level.unrestored)
        if level.live.may_have_changed and level.live.needs_snapshot(self._stack):
            self._take_snapshot(level)
        self.generation += level.live.was_lost()
        level.live.begin_level(len(self._stack))
        self._stack.append(ServerLevel(level.live))
        self._tidy()

    def _take_snapshot(self, level: _Level) -> None:
        with self._uses.alone():
            self.generation += 1  # connections end, also if `take_snapshot` fails
            level.live.take_snapshot(self.depth)
            self._snapshots.append(level.live.snapshot)
            level.begin_in_snapshot()
            self.generation += 1

    def leave(self) -> bool:
        """Restore the state of the matching ``enter``. Return whether it had changed."""
        depth = self.depth
        if not depth:
            raise impossible("a level was left that had not been entered")
        level = self._stack[-1]
        live = level.live
        live.close_moments(are_over=True)
        was_changed = False
        if level.is_in_other_database or not level.is_restorable_in_place:
            was_changed = self._leave_copy(level)
        elif level.is_written or live.may_have_changed:
            restoration = live.leave(depth)
            was_changed = restoration.was_changed
            if restoration.marks:
                self._restore_copy(level)
                live.report_marks(restoration.marks)
        self._stack.pop()
        self.generation += level.is_in_other_database or live.was_lost()
        try:
            self._check()
        except BaseException:
            # The level stays open. `leave_by_force` leaves it.
            self._stack.append(level)
            self.generation += level.is_in_other_database
            level.require_copy()
            raise
        self._tidy(level if level.is_in_other_database else None)
        return was_changed

    def _leave_copy(self, level: _Level) -> bool:
        """Leave a level that is not restored in place. Return whether it had changed."""
        _check_for_writers(self)
        if level.is_in_other_database:
            return not self.is_clean()
        self._restore_copy(level)
        return True

    def _restore_copy(self, level: _Level) -> None:
        """Replace the database by a copy in the state of a level's start.

        The level is the top level, or a level that was left and is not restored yet.

        Raises:
            RowsLost: rows of the levels below cannot be read. The start of the top level was not
                restored. The start of a left level was restored without these rows.
        """
        top = self._stack[-1]
        live = level.live
        levels = self._stack if level is top else [*self._stack, level]
        number = len(levels) - 1
        archive = live.archive(levels)
        if not isinstance(archive, RowsLost):
            # A second attempt may find the live database dropped, and needs the archive.
            level.keep_archive(archive)
        with self._uses.alone():
            try:
                live.replace_by_copy(level.snapshot, level.base, number, archive)
                top.note_unrestored(None)
            except RowsLost:
                if level is not top:
                    live.replace_by_copy(level.snapshot, level.base, number, [])
                    top.note_unrestored(None)
                raise
            finally:
                self.generation += 1

    def leave_by_force(self) -> None:
        """Restore the top level's start, and end all connections first."""
        level = self._stack[-1]
        live = level.live
        if level.is_in_other_database:
            self.forget()
            return
        live.close_moments(are_over=True)
        # If a connection cannot be ended here, the drop of its database ends it.
        with suppress(ControlFailure, ArenaError):
            live.end_clients()
        self.generation += 1
        is_left = level.is_restorable_in_place and live.leave_after_clients_ended(
            self.depth
        )
        if not is_left:
            # Ctrl-C may interrupt the restore. The next `enter` then restores the level.
            self._stack[-2].note_unrestored(level)
        self._stack.pop()
        try:
            if not is_left:
                self._restore_copy(level)
        finally:
            self._tidy()

    def forget(self, *, is_undone: bool = False) -> None:
        """Close the top level and keep its changes. With ``is_undone`` restore its sequences."""
        level = self._stack[-1]
        live = level.live
        if level.is_in_other_database:
            self._stack.pop()
            self.generation += 1
            live.discard()
        else:
            live.close_moments(are_over=False)
            live.forget(
                self._stack, is_undone=is_undone and level.is_restorable_in_place
            )
            self._stack.pop()
            live.limit_base(self.depth)
        self._tidy()

    def replace(self, content: str | None) -> None:
        """Replace the current state by a template's content, or by an empty database."""
        live = self.live
        live.close_moments(are_over=True)
        archive = live.archive(self._stack)
        key = live.isolation, content
        if key not in self._templates:
            template = live.template(self._with_rights(content))
            self._templates[key] = Snapshot(self._registry, template)
        start = self._templates[key]
        if isinstance(archive, Uncommitted):
            self._begin_in_other_database(start)
            return
        with self._uses.alone():
            live.replace_by_copy(start, self.depth, self.depth, [])
            self.generation += 1
        self._stack[-1].begin_with(start, archive)
        self._tidy()

    def _begin_in_other_database(self, start: Snapshot) -> None:
        """Begin with other content in another database. The current database stays unchanged."""
        live = self._new_live(self.live.isolation)
        with self._uses.alone():
            self.generation += 1
            live.replace_by_copy(start, self.depth, self.depth)
            level = ServerLevel(live, is_in_other_database=True)
            level.require_copy()  # no later level begins with this content
            self._stack[-1] = level
            self.generation += 1
        self._tidy()

    def _tidy(self, spare: _Level | None = None) -> None:
        """Drop the last spare level, and the snapshots that no level needs."""
        if not (spare or self._spare or self._snapshots):
            return
        last_spare = self._spare
        self._spare = (spare, self._uses()) if spare else None
        if last_spare is not None:
            last_spare[0].live.discard()
        levels = [*self._stack]
        levels += [level.unrestored for level in self._stack if level.unrestored]
        if spare:
            levels.append(spare)
        used: set[Snapshot] = set()
        for level in levels:
            used |= {level.snapshot, level.start, level.live.snapshot}
        for snapshot in set(self._snapshots) - used:
            self._snapshots.remove(snapshot)
            snapshot.drop()

    # Keep and close

    def save(self, title: str) -> str:
        """Keep the current state for inspection, without its journal. Return the database's name.

        This keeps a copy. A copy would end the transaction of a session. If a transaction is open,
        the live database itself is kept when another database replaces it.
        """
        live = self.live
        with self._registry.reporting("the database cannot be kept"):
            can_copy = live.is_copyable and not live.clients_inside()
            if live.kept_as is None and can_copy:
                with self._uses.alone():
                    self.generation += 1
                    return live.keep(live.make_copy(), title)
            live.check_replaceable(self._stack)
        return live.keep_later(self._registry.names.new("kept"), title)

    def close(self) -> None:
        """Drop all databases and snapshots of this isolation, in the background."""
        self._tidy()
        for live in dict.fromkeys(level.live for level in reversed(self._stack)):
            live.discard()
        for snapshot in (*self._templates.values(), *self._snapshots):
            snapshot.drop()

    # Questions

    def is_free(self) -> bool:
        """Whether no client is inside a transaction, so that no client holds locks."""
        try:
            return not self.live.clients_inside()
        except (ControlFailure, ArenaError):
            return True  # `leave` reports the error

    def is_untouched(self) -> bool:
        """Whether nothing was committed in the top level."""
        # Not `is_changed`: open and rolled back transactions move sequences, too.
        return not self._look().has_rows

    def is_clean(self) -> bool:
        """Whether nothing was changed in the top level, and no open transaction changes it."""
        look = self._look()
        return not (look.is_changed or look.writers or look.prepared or look.locks)

    def _look(self) -> Look:
        level = self._stack[-1]
        live = level.live
        if not level.is_restorable_in_place or level.is_written:
            return _CHANGED
        if not live.may_have_changed:
            return _UNCHANGED
        uses = self._uses()
        try:
            look = live.look(self.depth)
        except ArenaError:
            return _CHANGED
        if not look.is_changed:
            live.note_clean(NEVER if look.writers or look.locks else uses)
        return look

    def writers(self) -> set[int]:
        """Return the live database's backends inside a transaction with changes."""
        return set(self.live.look(self.depth).writers)

    def end(self, pid: int, database: str, *, cancel: bool = False) -> None:
        """End a connection to a live or replaced database, or cancel only its statement."""
        if any(level.live.end_client(pid, cancel=cancel) for level in self._stack):
            return
        function = "pg_cancel_backend" if cancel else "pg_terminate_backend"
        backend = (
            f"FROM pg_stat_activity WHERE pid = {pid} "
            f"AND datname = {literal(database)} AND pid <> pg_backend_pid()"
        )
        control = self._registry.control
        with self._registry.reporting("a connection cannot be ended"):
            is_ended = bool(control.rows(f"SELECT {function}(pid) {backend}"))
            if is_ended and not cancel:
                # A backend keeps its advisory locks until it has exited.
                until(
                    lambda: not control.rows(f"SELECT {backend}"), within=_END_SECONDS
                )

    def moment(self, *, exact: bool = False) -> object:
        """Return a point in time for ``rows_changed``.

        Under ``clone`` only ``exact`` moments exist, which read the rows of all tables.
        """
        return self._stack[-1].live.moment(self._stack, exact=exact)

    def rows_changed(
        self,
        since: object = None,
        until: object = None,
        *,
        depth: int = 0,
        limit: int | None = None,
    ) -> list[TableRows]:
        """Return the rows that were committed in a level, net."""
        number = self.depth - depth
        levels = self._stack
        if number < 0:
            return []
        live = levels[number].live
        while levels[-1].live is not live:
            levels = levels[:-1]
        moments = (None, None) if depth else (since, until)
        return live.rows_changed(levels, number, moments, limit)

    def content(self) -> dict[str, str]:
        """Return digests of the live database's current content."""
        with self._registry.reporting("the live database cannot be read"):
            return self.live.reader.call(read_content)


def _check_for_writers(isolation: ServerIsolation) -> None:
    writers = isolation.writers()
    if writers:
        raise held_by(writers, isolation.live.name)

"""How a database on a server is brought back: in place, or by a copy."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from pytest_arena._postgresql._control import ControlFailure
from pytest_arena._postgresql.isolation._journaled import JournaledDatabase
from pytest_arena._postgresql.isolation._live import NEVER, PlainDatabase
from pytest_arena._postgresql.isolation._server_levels import RowsLost, ServerLevel, Snapshot
from pytest_arena._postgresql.registry import new_name
from pytest_arena._product import Held, held_by
from pytest_arena.errors import ArenaError, impossible

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_arena._postgresql.isolation._live import Uses
    from pytest_arena._postgresql.journal._server import Look
    from pytest_arena._postgresql.registry import ServerRegistry
    from pytest_arena._values import Address, TableRows

__all__ = ["ServerIsolation"]

_Live = JournaledDatabase | PlainDatabase
_Level = ServerLevel[_Live]
_SHOWN = 3
_KINDS: dict[str, type[_Live]] = {"undo": JournaledDatabase, "clone": PlainDatabase}


class ServerIsolation:
    """The isolation for databases on a server.

    Each level names the live database that it stands in, and that decides how it is left:
    ``undo`` takes changes back in place, ``clone`` puts a copy in the database's place. Where
    nobody has used the database, nothing is asked: see ``uses``.

    ``ask_for`` says by which isolation the next level is entered. Where that is another one than
    the one in use, the live database is copied with all that stands in it, and the level is
    entered on the copy. When it is left, the database below is as it was: nobody has been led to
    it meanwhile. The copy is kept for the next such level, if that comes before anybody has used
    the database below, or has entered or left a level there.

    Cost of enter + leave: nothing where nobody used the database. ``undo``: two round trips, and
    the time that the changes take. ``clone``: one round trip, two with sequences, where nothing was
    written; else three, and new connections. For the first of some levels of another isolation two
    copies of the live database, and all connections are made anew.
    """

    def __init__(
        self,
        own: ServerRegistry,
        template: str | None,
        isolation: str,
        *,
        uses: Uses,
        tell: Callable[[str], None],
    ) -> None:
        self._own, self._uses, self._tell = own, uses, tell
        self.generation = 0
        self.check: Callable[[], None] | None = None
        self._asked_for = ""
        self._templates: dict[tuple[str, str | None], Snapshot] = {}
        self._snapshots: list[Snapshot] = []  # frozen by us, to be dropped by us
        self._owed: _Level | None = None  # what is live still has to become this level's start
        self._is_wrong = False  # a check has failed: what was taken back is not what it should be
        # A level of another isolation that was left, and how many uses there were then.
        self._spare: tuple[_Level, int] | None = None
        live = _KINDS[isolation](own, uses, tell)
        first = self._template(live, template)
        with own.saying("no database for the first test"):
            live.begin(first)
        self.generation += 1
        self._stack = [ServerLevel(live, first, 0, first)]

    @property
    def name(self) -> str:
        """That of the isolation in use."""
        return self._live.isolation

    @property
    def _live(self) -> _Live:
        return self._stack[-1].live

    @property
    def address(self) -> Address:
        """How one logs in to the live database now."""
        return self._live.address

    @property
    def depth(self) -> int:
        """How many levels are open."""
        return len(self._stack) - 1

    def _template(self, live: _Live, content: str | None) -> Snapshot:
        key = live.isolation, content
        if key not in self._templates:
            self._templates[key] = Snapshot(self._own, live.template(content))
        return self._templates[key]

    # Levels

    def ask_for(self, isolation: str) -> None:
        """Have the next level entered by another isolation than the one in use."""
        self._asked_for = isolation

    def enter(self) -> None:
        """Open a level above the state that stands now.

        A snapshot is taken where a copy is needed, or the schema was changed: all connections end.

        Raises:
            Held: somebody's open transaction is in the way of a copy; nothing was done.
            IsolationError: there is no room for it, or the other isolation cannot be had here.
        """
        asked_for, self._asked_for = self._asked_for, ""
        self._live.moments.begin()
        self._pay()
        if asked_for not in {"", self.name}:
            if writers := self.writers():
                raise held_by(writers, self._live.name)
            self._stack.append(self._reused(asked_for) or self._switched(asked_for))
            self.generation += 1
            return
        self._drop_spare()
        live = self._live
        if live.may_have_changed:
            if live.needs_snapshot(self._stack):
                self._take_snapshot(live)
            self.generation += live.was_lost()
        self._stack.append(ServerLevel(live, live.snapshot, live.base, live.snapshot))

    def _take_snapshot(self, live: _Live) -> None:
        self.generation += 1  # whoever was connected is not any more, even if this fails
        live.fork()
        self.generation += 1
        self._snapshots.append(live.snapshot)
        live.base, self._stack[-1].is_written = self.depth, False

    def leave(self) -> bool:
        """Go back to the state at the matching ``enter``."""
        level = self._stack[-1]
        if self._is_switched():
            return self._leave_switched(level)
        self._drop_spare()
        level.live.moments.end()
        was_changed = self._is_restored(level)
        self._is_wrong = True
        if self.check is not None:
            self.check()
        self._is_wrong = False
        self._stack.pop()
        self._owed = None
        self._drop_unused()
        self.generation += level.live.was_lost()
        return was_changed

    def _is_switched(self) -> bool:
        """Whether the top level stands in another database than the one below it."""
        if not self.depth:
            raise impossible("a level was left that had not been entered")
        return self._stack[-1].live is not self._stack[-2].live

    def _stands(self, level: _Level) -> bool:
        """Whether the live database is the one that the level was entered in."""
        live = level.live
        is_same = level.archive is None and level.snapshot is live.snapshot
        return is_same and live.kept_as is None and self._owed is None

    def _is_restored(self, level: _Level) -> bool:
        """Take the top level back, and return whether there was something to do."""
        live, marks = level.live, tuple[str, ...]()
        if self._stands(level):
            if not level.is_written and not live.may_have_changed:
                return False
            left = live.leave(self.depth)
            if not left.marks:
                return left.was_changed
            marks = left.marks
        elif writers := self.writers():
            raise held_by(writers, live.name)
        self._bring_back(self._stack)
        if marks and isinstance(live, JournaledDatabase):
            self._tell(_replaced(marks))
        return True

    def _bring_back(self, levels: list[_Level]) -> None:
        """Put a copy in place that stands as the last of the levels did at its start.

        Raises:
            RowsLost: what the levels below had written cannot be had; nothing was done.
        """
        level, archive = levels[-1], levels[-1].live.archive(levels)
        if not isinstance(archive, RowsLost):
            level.archive = archive  # should this be broken off: what is live may be gone by then
        level.live.put(level.snapshot, len(levels) - 1, archive)
        self.generation += 1
        level.live.base = level.base

    def leave_by_force(self) -> None:
        """Go back without asking who is inside a transaction: all connections are ended."""
        level = self._stack[-1]
        if self._is_switched():
            self._switch_back()
            return
        self._drop_spare()
        level.live.moments.end()
        with suppress(ControlFailure, ArenaError):  # what is not ended goes with its database
            level.live.end_all()
        self.generation += 1
        may_be_left, self._is_wrong = self._stands(level) and not self._is_wrong, False
        is_left = may_be_left and level.live.leave_ended(self.depth)
        self._stack.pop()
        if not is_left:
            self._owed = level
            self._pay()
        self._drop_unused()

    def _pay(self) -> None:
        level = self._owed
        if level is None:
            return
        try:
            self._bring_back([*self._stack, level])
        except RowsLost:
            level.live.put(level.snapshot, len(self._stack), [])
            self.generation += 1
            level.live.base, self._owed = level.base, None
            raise
        self._owed = None

    def forget(self, *, is_undone: bool = False) -> None:
        """Drop the top level, and keep what stands; sequences go back if all else was undone."""
        level = self._stack[-1]
        if self._is_switched():
            self._switch_back()
            return
        self._drop_spare()
        level.live.moments.begin()
        level.live.forget(self._stack, is_undone=is_undone and self._stands(level))
        self._stack.pop()
        level.live.base = min(level.live.base, self.depth)
        self._drop_unused()

    def replace(self, content: str | None) -> None:
        """Give the level that stands now another content: a template's, or none."""
        level = self._stack[-1]
        self._drop_spare()
        level.live.moments.end()
        archive = level.live.archive(self._stack)
        snapshot = self._template(level.live, content)
        level.live.put(snapshot, self.depth, [])
        self.generation += 1
        level.archive, level.start, level.is_written, level.told = archive, snapshot, False, []
        level.live.base = self.depth
        self._drop_unused()

    # A level of another isolation

    def _switched(self, isolation: str) -> _Level:
        """Return a level that stands in a copy of what is live, prepared for another isolation."""
        self.generation += 1  # whoever was connected is not any more, even if this fails
        source = self._live.copied()
        live = _KINDS[isolation](self._own, self._uses, self._tell)
        try:
            with self._own.saying(f"no copy for isolation={isolation!r}"):
                live.prepare(source)
            self._own.freeze(source)
            snapshot = Snapshot(self._own, source, is_ours=True)
            live.begin(snapshot)
        except BaseException:
            self._own.drop_later(source)
            raise
        self._snapshots.append(snapshot)
        live.base = len(self._stack)
        return ServerLevel(live, snapshot, live.base, snapshot)

    def _reused(self, isolation: str) -> _Level | None:
        """Return such a level in the copy that was left last, if it still is one."""
        spare, self._spare = self._spare, None
        if spare is None:
            return None
        level, uses = spare
        if level.live.isolation == isolation and uses == self._uses():
            self._stack.append(level)
            try:
                self._is_restored(level)
                return ServerLevel(level.live, level.snapshot, level.base, level.snapshot)
            except (Held, ArenaError):  # somebody goes on in it, to whom it may be left
                pass
            finally:
                self._stack.pop()
        self._spare = spare
        self._drop_spare()
        return None

    def _leave_switched(self, level: _Level) -> bool:
        if writers := self.writers():
            raise held_by(writers, level.live.name)
        has_changed = not self.is_clean()
        self._drop_spare()
        level.live.moments.end()
        self._stack.pop()
        self.generation += 1
        try:
            if self.check is not None:
                self.check()
        except BaseException:
            self._stack.append(level)  # the level is still there, to be left by force
            self.generation += 1
            raise
        self._spare = level, self._uses()
        return has_changed

    def _switch_back(self) -> None:
        level = self._stack.pop()
        self.generation += 1
        level.live.give_up()
        self._drop_unused()

    def _drop_spare(self) -> None:
        spare, self._spare = self._spare, None
        if spare is not None:
            spare[0].live.give_up()
            self._drop_unused()

    def _drop_unused(self) -> None:
        others = (self._owed, self._spare and self._spare[0])
        levels = [*self._stack, *(level for level in others if level is not None)]
        used = {level.live.snapshot for level in levels}
        used |= {snapshot for level in levels for snapshot in (level.snapshot, level.start)}
        for snapshot in [snapshot for snapshot in self._snapshots if snapshot not in used]:
            self._snapshots.remove(snapshot)
            snapshot.drop()

    # Kept, and closed

    def save(self, title: str) -> str:
        """Keep what stands for a look, without its journal. Returns the name of the database.

        It is a copy; or, where a session is inside a transaction, which making one would end, the
        live database itself, as it is when it is left.
        """
        live = self._live
        with self._own.saying("the database cannot be kept"):
            if live.kept_as is None and not live.clients_inside():
                self.generation += 1
                return live.keep(live.copied(), title)
        live.kept_as = live.kept_as or (new_name("kept"), title)
        return live.kept_as[0]

    def close(self) -> None:
        """Have everything dropped that was made here."""
        self._drop_spare()
        for live in dict.fromkeys(level.live for level in reversed(self._stack)):
            live.give_up()
        for snapshot in (*self._templates.values(), *self._snapshots):
            snapshot.drop()

    # Questions

    def is_free(self) -> bool:
        """Whether no client is inside a transaction, which has locks on whatever it has read."""
        try:
            return not self._live.clients_inside()
        except (ControlFailure, ArenaError):
            return True  # that is no lock, and leaving tells of it

    def is_untouched(self) -> bool:
        """Whether nothing was committed in the top level."""
        # Sequences move where a transaction is open, too, or was rolled back.
        return self._is_as_entered(lambda look: not look.has_rows)

    def is_clean(self) -> bool:
        """Whether nothing was changed in the top level, nor is about to be."""
        return self._is_as_entered(
            lambda look: not (look.is_changed or look.writers or look.prepared or look.locks)
        )

    def _is_as_entered(self, is_so: Callable[[Look], bool]) -> bool:
        level, live = self._stack[-1], self._live
        if not self._stands(level) or level.is_written:
            return False
        if not live.may_have_changed:
            return True
        seen = self._uses()
        try:
            look = live.look(self.depth)
        except ArenaError:
            return False
        if not look.is_changed:
            live.seen = NEVER if look.writers or look.locks else seen
        return is_so(look)

    def writers(self) -> set[int]:
        """Return the backends that are inside a transaction with changes, in the live database."""
        return set(self._live.look(self.depth).writers)

    def end(self, pid: int, *, cancel: bool = False) -> None:
        """End a connection to the live database, or only the statement that it is at."""
        with self._own.saying("a connection cannot be ended"):
            self._live.end(pid, cancel=cancel)

    def moment(self, *, exact: bool = False) -> object:
        """Return a point in time, for ``rows_changed``.

        By a copy there is none but an ``exact`` one: the rows of all tables, as they stand.
        """
        return self._live.moment(self._stack, exact=exact)

    def rows_changed(
        self,
        since: object = None,
        until: object = None,
        *,
        depth: int = 0,
        limit: int | None = None,
    ) -> list[TableRows]:
        """Return the rows that were committed in a level, net."""
        number, levels = self.depth - depth, self._stack
        if number < 0:
            return []
        live = levels[number].live
        while levels[-1].live is not live:
            levels = levels[:-1]
        moments = (None, None) if depth else (since, until)
        return live.rows_changed(levels, number, moments, limit)

    def content(self) -> dict[str, str]:
        """Return digests of all that stands in the live database now."""
        with self._own.saying("the live database cannot be read"):
            return self._live.content()


def _replaced(marks: tuple[str, ...]) -> str:
    """Return the line for the summary: what no journal can take back. ``{test}`` is filled in."""
    more = len(marks) - _SHOWN
    # A table comes with its indexes and sequences: it is what somebody has written down.
    first = sorted(marks, key=lambda mark: " TABLE " not in mark)
    shown = ", ".join(first[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
    return "undo: {test}: its database was replaced: " + shown

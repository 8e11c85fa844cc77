"""How a database on a server is brought back: in place, or by a copy."""

# ruff: noqa: S608 - names and texts are written by identifier() and literal() alone

from __future__ import annotations

from contextlib import closing, nullcontext, suppress
from typing import TYPE_CHECKING

from pytest_arena._postgresql import _clone_sql as sql
from pytest_arena._postgresql._content import content
from pytest_arena._postgresql._control import ControlFailure, literal, open_control
from pytest_arena._postgresql._session_functions import session_functions
from pytest_arena._postgresql.isolation._live import (
    NEVER,
    JournaledDatabase,
    ServerLevel,
)
from pytest_arena._postgresql.isolation._plain import PlainDatabase
from pytest_arena._postgresql.isolation._snapshots import RowsLost, Snapshot
from pytest_arena._postgresql.journal._server import Look
from pytest_arena._postgresql.registry import new_name
from pytest_arena._product import Held, held_by, nothing
from pytest_arena.errors import ArenaError, impossible

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_arena._postgresql.isolation._live import Uses
    from pytest_arena._postgresql.registry import ServerRegistry
    from pytest_arena._values import TableRows

_Live = JournaledDatabase | PlainDatabase
_Level = ServerLevel[_Live]
_UNCHANGED, _CHANGED = Look(), Look(is_changed=True, has_rows=True)
KINDS: dict[str, type[_Live]] = {"undo": JournaledDatabase, "clone": PlainDatabase}


def as_built(template: str | None) -> str | None:
    """Return a template itself: nobody has to be given anything in it."""
    return template


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
        given: Callable[[str | None], str | None] = as_built,
        uses: Uses,
        tell: Callable[[str], None],
    ) -> None:
        self._own, self._given, self._uses, self._tell = own, given, uses, tell
        # Whoever connected until the generation moves would be led to a database that is gone.
        self._alone = getattr(uses, "alone", nullcontext)
        self.check: Callable[[], None] = nothing
        self._asked_for = ""
        self._snapshots: list[Snapshot] = []  # frozen by us, to be dropped by us
        # A level of another isolation that was left, and how many uses there were then.
        self._spare: tuple[_Level, int] | None = None
        live = KINDS[isolation](own, uses, tell)
        first = Snapshot(own, live.template(given(template)))
        self._templates = {(isolation, template): first}
        with own.saying("no database for the first test"):
            live.put(first)
            with closing(open_control(live.address)) as control:
                self.session_functions = session_functions(control)
        self.generation = 1
        self._stack = [ServerLevel(live)]

    @property
    def live(self) -> _Live:
        """The database that the top level stands in."""
        return self._stack[-1].live

    @property
    def name(self) -> str:
        """That of the isolation in use."""
        return self.live.isolation

    @property
    def depth(self) -> int:
        """How many levels are open."""
        return len(self._stack) - 1

    # Levels

    def ask_for(self, isolation: str) -> None:
        """Have the next level isolated this way."""
        self._asked_for = isolation

    def enter(self) -> None:
        """Open a level above the state that stands now.

        A snapshot is taken where a copy is needed, or the schema was changed: all connections end.

        Raises:
            Held: somebody's open transaction is in the way of a copy; nothing was done.
            IsolationError: there is no room for it, or the other isolation cannot be had here.
        """
        asked_for, self._asked_for = self._asked_for, ""
        level, live = self._stack[-1], self.live
        live.close_moments(are_over=False)
        if level.owed:
            self._bring_back(level.owed)
        if asked_for not in {"", self.name}:
            _check_that_nobody_writes(self)
            with self._alone():
                self._stack.append(self._elsewhere(asked_for))
                self.generation += 1
        else:
            if live.may_have_changed and live.needs_snapshot(self._stack):
                with self._alone():
                    self.generation += (
                        1  # whoever was connected is not any more, even if it fails
                    )
                    live.fork(self.depth)
                    self._snapshots.append(live.snapshot)
                    level.is_written = False
                    self.generation += 1
            self.generation += live.was_lost()
            self._stack.append(ServerLevel(live))
        self._tidy()

    def leave(self) -> bool:
        """Go back to the state at the matching ``enter``."""
        if not self.depth:
            raise impossible("a level was left that had not been entered")
        level, live = self._stack[-1], self.live
        live.close_moments(are_over=True)
        was_changed = not level.stands
        if level.is_elsewhere:
            _check_that_nobody_writes(self)
            was_changed = not self.is_clean()
        elif not level.stands:
            _check_that_nobody_writes(self)
            self._bring_back(level)
        elif level.is_written or live.may_have_changed:
            left = live.leave(self.depth)
            was_changed = left.was_changed
            if left.marks:
                self._bring_back(level)
                live.tell_of(left.marks)
        self._stack.pop()
        self.generation += level.is_elsewhere or live.was_lost()
        try:
            self.check()
        except BaseException:
            self._stack.append(level)  # it is still there, to be left by force
            self.generation += level.is_elsewhere
            level.is_wrong = True
            raise
        self._tidy(level if level.is_elsewhere else None)
        return was_changed

    def _bring_back(self, level: _Level) -> None:
        """Put a copy in place that stands as a level did at its start: the top one, or one owed.

        Raises:
            RowsLost: what the levels below had written cannot be had. Nothing was done, but that
                what was owed is there without these rows.
        """
        top, live = self._stack[-1], level.live
        levels = self._stack if level is top else [*self._stack, level]
        number, archive = len(levels) - 1, live.archive(levels)
        if not isinstance(archive, RowsLost):
            level.archive = (
                archive  # should this be broken off: what is live may be gone by then
            )
        with self._alone():
            try:
                live.put(level.snapshot, level.base, number, archive)
                top.owed = None
            except RowsLost:
                if level is not top:
                    live.put(level.snapshot, level.base, number, [])
                    top.owed = None
                raise
            finally:
                self.generation += 1

    def leave_by_force(self) -> None:
        """Go back without asking who is inside a transaction: all connections are ended."""
        level, live = self._stack[-1], self.live
        if level.is_elsewhere:
            self.forget()
            return
        live.close_moments(are_over=True)
        with suppress(
            ControlFailure, ArenaError
        ):  # what is not ended goes with its database
            self._own.control.rows(sql.end_backends(live.name))
        self.generation += 1
        is_left = level.stands and live.leave_ended(self.depth)
        self._stack.pop()
        try:
            if not is_left:
                self._stack[-1].owed = level
                self._bring_back(level)
        finally:
            self._tidy()

    def forget(self, *, is_undone: bool = False) -> None:
        """Drop the top level, and keep what stands; sequences go back if all else was undone."""
        level, live = self._stack[-1], self.live
        if level.is_elsewhere:
            self._stack.pop()
            self.generation += 1
            live.give_up()
        else:
            live.close_moments(are_over=False)
            live.forget(self._stack, is_undone=is_undone and level.stands)
            self._stack.pop()
            live.base = min(live.base, self.depth)
        self._tidy()

    def replace(self, content: str | None) -> None:
        """Give the level that stands now another content: a template's, or none."""
        level, live = self._stack[-1], self.live
        live.close_moments(are_over=True)
        archive = live.archive(self._stack)
        key = live.isolation, content
        if key not in self._templates:
            self._templates[key] = Snapshot(
                self._own, live.template(self._given(content))
            )
        with self._alone():
            live.put(self._templates[key], self.depth, self.depth, [])
            self.generation += 1
        level.archive, level.start = archive, self._templates[key]
        level.is_written, level.told = False, []
        self._tidy()

    # A level of another isolation

    def _elsewhere(self, isolation: str) -> _Level:
        """Return a level that stands in a copy of what is live, prepared for another isolation.

        The copy is the one that was left last, if that still is one.
        """
        spare, self._spare = self._spare, None
        if spare is not None:
            level, uses = spare
            is_same = (
                level.live.isolation == isolation
                and uses == self._uses()
                and level.stands
            )
            is_as_below = False
            self._stack.append(level)  # whoever is broken off here leaves it by force
            with suppress(
                Held, ArenaError
            ):  # somebody goes on in it, to whom it may be left
                if is_same and level.live.leave(self.depth).marks:
                    self._bring_back(level)
                is_as_below = is_same
            self._stack.pop()
            if is_as_below:
                return ServerLevel(level.live, is_elsewhere=True)
            level.live.give_up()
        self.generation += (
            1  # whoever was connected is not any more, even if this fails
        )
        source = self.live.copied()
        live = KINDS[isolation](self._own, self._uses, self._tell)
        try:
            with self._own.saying(f"no copy for isolation={isolation!r}"):
                live.prepare(source)
            self._own.freeze(source)
            live.put(Snapshot(self._own, source, is_ours=True), len(self._stack))
        except BaseException:
            self._own.drop_later(source)
            raise
        self._snapshots.append(live.snapshot)
        return ServerLevel(live, is_elsewhere=True)

    def _tidy(self, spare: _Level | None = None) -> None:
        """Drop the spare level of before, and all snapshots that no level needs any more."""
        before, self._spare = self._spare, (spare, self._uses()) if spare else None
        if before is not None:
            before[0].live.give_up()
        levels = [*self._stack, *([spare] if spare else [])]
        levels += [level.owed for level in self._stack if level.owed]
        used = {
            one
            for level in levels
            for one in (level.snapshot, level.start, level.live.snapshot)
        }
        for snapshot in [one for one in self._snapshots if one not in used]:
            self._snapshots.remove(snapshot)
            snapshot.drop()

    # Kept, and closed

    def save(self, title: str) -> str:
        """Keep what stands for a look, without its journal. Returns the name of the database.

        It is a copy; or, where a session is inside a transaction, which making one would end, the
        live database itself, as it is when it is left.
        """
        live = self.live
        with self._own.saying("the database cannot be kept"):
            if live.kept_as is None and not live.clients_inside():
                with self._alone():
                    self.generation += 1
                    return live.keep(live.copied(), title)
        live.kept_as = live.kept_as or (new_name("kept"), title)
        return live.kept_as[0]

    def close(self) -> None:
        """Have everything dropped that was made here."""
        self._tidy()
        for live in dict.fromkeys(level.live for level in reversed(self._stack)):
            live.give_up()
        for snapshot in (*self._templates.values(), *self._snapshots):
            snapshot.drop()

    # Questions

    def is_free(self) -> bool:
        """Whether no client is inside a transaction, which has locks on whatever it has read."""
        try:
            return not self.live.clients_inside()
        except (ControlFailure, ArenaError):
            return True  # that is no lock, and leaving tells of it

    def is_untouched(self) -> bool:
        """Whether nothing was committed in the top level."""
        # Sequences move where a transaction is open, too, or was rolled back.
        return not self._look().has_rows

    def is_clean(self) -> bool:
        """Whether nothing was changed in the top level, nor is about to be."""
        look = self._look()
        return not (look.is_changed or look.writers or look.prepared or look.locks)

    def _look(self) -> Look:
        level, live = self._stack[-1], self.live
        if not level.stands or level.is_written:
            return _CHANGED
        if not live.may_have_changed:
            return _UNCHANGED
        seen = self._uses()
        try:
            look = live.look(self.depth)
        except ArenaError:
            return _CHANGED
        if not look.is_changed:
            live.seen = NEVER if look.writers or look.locks else seen
        return look

    def writers(self) -> set[int]:
        """Return the backends that are inside a transaction with changes, in the live database."""
        return set(self.live.look(self.depth).writers)

    def end(self, pid: int, *, cancel: bool = False) -> None:
        """End a connection to the live database, or only the statement that it is at."""
        how = "pg_cancel_backend" if cancel else "pg_terminate_backend"
        with self._own.saying("a connection cannot be ended"):
            self._own.control.rows(
                f"SELECT {how}(pid) FROM pg_stat_activity WHERE pid = {pid} "
                f"AND datname = {literal(self.live.name)} AND pid <> pg_backend_pid()"
            )

    def moment(self, *, exact: bool = False) -> object:
        """Return a point in time, for ``rows_changed``.

        By a copy there is none but an ``exact`` one: the rows of all tables, as they stand.
        """
        return self.live.moment(self._stack, exact=exact)

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
            return self.live.reader.call(content)


def _check_that_nobody_writes(isolation: ServerIsolation) -> None:
    if writers := isolation.writers():
        raise held_by(writers, isolation.live.name)

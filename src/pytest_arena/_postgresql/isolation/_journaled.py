"""The live database of tests that are undone in place, by the change journal in it."""

from __future__ import annotations

from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from pytest_arena import _process
from pytest_arena._postgresql import _clone_sql as sql
from pytest_arena._postgresql._control import ControlFailure, open_control
from pytest_arena._postgresql.isolation._live import NEVER, LiveDatabase, Uses
from pytest_arena._postgresql.isolation._server_levels import (
    Archive,
    Levels,
    RowsLost,
    ServerLevel,
    ServerMoment,
    Snapshot,
)
from pytest_arena._postgresql.journal._capture import install
from pytest_arena._postgresql.journal._journal_templates import check_fit, journaled
from pytest_arena._postgresql.journal._server import Look, Restoration, ServerJournal
from pytest_arena._product import Held, held_by
from pytest_arena.errors import ArenaError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pytest_arena._postgresql.registry import ServerRegistry
    from pytest_arena._values import TableRows

__all__ = ["JournaledDatabase"]

_LOCKED = "55P03"
# How long a backend that was told to end may take for it, before another database is taken.
_PATIENCE, _STEP = 1.0, 0.002
_ROWS_KEPT = 50  # of each table, of what is told of levels below a snapshot

_Answer = TypeVar("_Answer")


class JournaledDatabase(LiveDatabase):
    """``undo``: what a test has changed is read in a change journal, and taken back in place.

    Triggers write each row that comes or goes into a journal in the same database. Leaving a level
    takes its rows out and puts the others back, whatever order they were written in: the database
    stays, and with it all connections.

    What no journal can bring back, DDL above all, is noticed by it: then the level gets a copy of
    the snapshot that it stands on, with the changes of the levels between. A level in which a wider
    fixture has changed the schema becomes a snapshot of its own when another is entered above it.
    """

    isolation = "undo"

    def __init__(self, own: ServerRegistry, uses: Uses, tell: Callable[[str], None]) -> None:
        super().__init__(own, uses, tell)
        self._is_altered = False  # the journal was made anew, and there is no snapshot of it yet

    @property
    def may_have_changed(self) -> bool:
        """Whether somebody may have used it, or its journal has no snapshot yet."""
        return self._is_altered or super().may_have_changed

    def template(self, content: str | None) -> str:
        """Return the template with a journal in it."""
        return journaled(self.own, content)

    def prepare(self, name: str) -> None:
        """Install a journal in a copy of a database that has none."""
        check_fit(install(self.own.address_of(name)))

    # From one database to the next

    def begin(self, snapshot: Snapshot) -> None:
        """Go to a first copy of a snapshot."""
        name = snapshot.copy()
        self._go_to(name, snapshot, self._opened(name))

    def put(self, snapshot: Snapshot, number: int, archive: Archive) -> None:
        """Go to the next copy, as level ``number`` began with what was archived; drop this one.

        Raises:
            RowsLost: what was archived cannot be had, or does not fit; this one is live.
            ArenaError: no copy can be made; this one is live.
        """
        if isinstance(archive, RowsLost):
            raise archive
        seen, name = self.uses(), snapshot.take()
        journal = self._opened(name, number, archive)
        self.give_up()
        self._go_to(name, snapshot, journal)
        self.seen = seen

    def fork(self) -> None:
        """Make what stands a snapshot, and go on with a copy of it; all connections end."""
        seen = self.uses()
        with self.frozen(is_given_up=True) as frozen:
            name = self.own.create("live", template=frozen)
            journal = self._opened(name)
        self.kept_as = None  # what was to be kept goes on in the copy
        self._go_to(name, Snapshot(self.own, frozen, is_ours=True), journal)
        self.seen = seen

    def _opened(
        self, name: str, number: int = 0, rows: list[tuple[Any, ...]] | None = None
    ) -> ServerJournal:
        """Connect before anybody else: the journal remembers by that where sequences begin."""
        with ExitStack() as stack, self.own.saying("a copy cannot be connected to"):
            stack.callback(self.own.drop_later, name)
            journal = stack.enter_context(closing(ServerJournal(self.own.address_of(name))))
            if journal.look().marks:  # the server has crashed, and with it the snapshot's own
                journal.install()
            try:
                if rows:
                    journal.restore(rows, number)
            except ControlFailure as error:
                raise RowsLost(error) from error
            stack.pop_all()
        return journal

    def _go_to(self, name: str, snapshot: Snapshot, journal: ServerJournal) -> None:
        with self.turn:
            self.release()
            self.name, self.snapshot, self.journal = name, snapshot, journal
        self._is_altered = False

    def keep(self, name: str, title: str, *, called: str = "") -> str:
        """Keep a copy, or itself, without its journal. Returns its name."""
        self.own.control.rows(sql.end_backends(name))  # they have locks on what is to go
        with suppress(ControlFailure), closing(ServerJournal(self.own.address_of(name))) as journal:
            journal.uninstall()  # it is as good to look at where that cannot be
        return super().keep(name, title, called=called)

    # Asked

    def ask(self, question: Callable[[ServerJournal], _Answer]) -> _Answer:
        """Ask its journal, and once more where the connection was lost.

        Raises:
            Failed: the journal refused, or the server is gone.
        """
        with self.turn:
            try:
                return question(self._connected())
            except ControlFailure as error:
                if not error.is_lost:
                    raise
            self.release()
            self.is_lost = True
            self.clients_inside()  # a server that is started anew is waited for there
            return question(self._connected())

    def _connected(self) -> ServerJournal:
        self.leave_to_parent()
        if self.journal is None:
            self.journal = ServerJournal(self.address)
        return self.journal

    def asked(self, question: Callable[[ServerJournal], _Answer]) -> _Answer:
        """Ask its journal.

        Raises:
            ArenaError: it cannot be asked.
        """
        with self.own.saying("the change journal cannot be asked"):
            return self.ask(question)

    def look(self, number: int) -> Look:
        """Look at what stands, above the start of a level.

        Raises:
            ArenaError: the journal or the server is gone.
        """
        return self.asked(lambda journal: journal.look(number))

    # Levels

    def needs_snapshot(self, levels: Levels) -> bool:
        """Begin another level, unless the top one has done what has no entry in the journal.

        Then the schema is journaled as it is now: what was journaled by then goes with the levels.

        Raises:
            ArenaError: somebody holds a lock, or the server is gone or has no room: another
                database would be of no use; or the schema cannot be journaled.
        """
        seen = self.uses()
        if not self._is_altered and self._is_beyond_the_journal(levels[-1], len(levels) - 1):
            told = [level.told for level in levels]
            for number in [at for at, level in enumerate(levels) if level.live is self]:
                with suppress(ArenaError):  # a story has less to tell, and nothing is wrong
                    told[number] = self.rows_changed(levels, number, (None, None), _ROWS_KEPT)
            archive = self.archive(levels)
            check_fit(self.asked(ServerJournal.install))
            self._is_altered = True
            levels[-1].archive = archive
            for level, rows in zip(levels, told, strict=True):
                level.told = rows
        self.seen = seen
        return self._is_altered

    def _is_beyond_the_journal(self, level: ServerLevel[Any], number: int) -> bool:
        with self.own.saying("the change journal cannot go on"):
            try:
                has_marks = bool(self.ask(lambda journal: journal.enter(number + 1)))
            except ControlFailure as error:
                if error.sqlstate == _LOCKED or error.is_elsewhere:
                    raise
                has_marks = True
        if has_marks:
            level.is_written = True
            return True
        look = self.look(number)
        level.is_written |= look.is_changed
        return bool(look.marks)  # large objects: another copy would not have them

    def archive(self, levels: Levels) -> Archive:
        """Return what the levels below the top one had written that is not in its snapshot."""
        top, number = levels[-1], len(levels) - 1
        if top.archive is not None:
            return top.archive
        if not any(level.is_written for level in levels[top.base : number]):
            return []
        try:
            return self.ask(lambda journal: journal.archive(number))
        except (ControlFailure, ArenaError) as error:
            return RowsLost(error)

    def leave(self, number: int) -> Restoration:
        """Take back what the top level has written. Where there are marks, nothing was done.

        Raises:
            Held: somebody's transaction is in the way.
            ArenaError: the server is gone.
        """
        seen = self.uses()
        # Where somebody has a connection, the number moves by itself. What is at a statement now is
        # in nobody's way, and would be committed to the level below.
        if self.uses() != seen and (at_work := self.asked(ServerJournal.at_work)):
            raise held_by(at_work, self.name)
        left = self._left(number)
        if left is None and (ended := self._end_prepared(number)):
            # Whoever prepared them has forgotten them.
            names = ", ".join(ended)
            self.tell(f"undo: {{test}} has left prepared transactions, rolled back: {names}")
            left = self._left(number)
        if left is None:
            raise held_by(set(self.look(number).writers) or self.clients_inside(), self.name)
        self.seen = NEVER if left.marks else seen
        return left

    def _left(self, number: int) -> Restoration | None:
        """None where somebody is in the way; a mark for whatever else keeps the journal from it."""
        try:
            return self.ask(lambda journal: journal.leave(number))
        except ControlFailure as error:
            if error.sqlstate == _LOCKED:
                return None
            if error.is_lost:
                with self.own.saying("the live database cannot be reached"):
                    raise
            return Restoration(
                was_changed=True, marks=(f"the change journal cannot be read: {error}",)
            )

    def _end_prepared(self, number: int) -> tuple[str, ...]:
        """Roll back what was prepared there, if nobody else is in the way: no session holds it."""
        look = self.look(number)
        if look.writers:
            return ()
        saying = self.own.saying("prepared transactions cannot be ended")
        with saying, closing(open_control(self.address)) as control:
            for name in look.prepared:
                control.run(sql.rollback_prepared(name))
        return look.prepared

    def leave_ended(self, number: int) -> bool:
        """Leave a level whose connections were told to end; return whether that could be."""
        end = _process.seconds() + _PATIENCE
        while True:
            try:
                return not self.leave(number).marks
            except (Held, ArenaError) as error:
                if isinstance(error, ArenaError) or _process.seconds() > end:
                    return False
            _process.rest(_STEP)

    def forget(self, levels: Levels, *, is_undone: bool) -> None:
        """Let the level below have what was written in the top one; or set its sequences back."""
        below, top, number = levels[-2], levels[-1], len(levels) - 1
        if is_undone:
            self.asked(lambda journal: journal.rewind(number))
        if top.is_written or (self.may_have_changed and self.look(number).is_changed):
            self.asked(lambda journal: journal.forget(number))
            self.seen = NEVER
        below.archive = below.archive or top.archive
        below.told = _joined(below.told, top.told)

    # Moments and rows

    def now(self) -> str:
        """Return what the server calls this moment."""
        return self.asked(ServerJournal.moment)

    def moment(self, levels: Levels, *, exact: bool) -> ServerMoment:
        """Return a point in time.

        Only an ``exact`` one tells changes of the schema from before where there are no event
        triggers; all tell the rows.
        """
        if exact:
            self.asked(lambda journal: journal.note_schema(len(levels) - 1))
        top, uses = levels[-1], self.uses()
        is_start = uses == self.seen and not (top.is_written or top.told)
        return self.moments.now(uses, is_start=is_start)

    def rows_changed(
        self, levels: Levels, number: int, moments: tuple[object, object], limit: int | None
    ) -> list[TableRows]:
        """Return what the journal has of a level, and what was told of it before."""
        since, until = moments
        if isinstance(until, ServerMoment) and until.name == "":
            return []
        since, until = self.moments.name_of(since), self.moments.name_of(until)
        is_top = number == len(levels) - 1
        rows = self.asked(
            lambda journal: journal.rows_changed(
                level=number, since=since, until=until, is_top=is_top, limit=limit
            )
        )
        return rows if since else _joined(levels[number].told, rows)


def _joined(first: Iterable[TableRows], second: Iterable[TableRows]) -> list[TableRows]:
    """Return two lists of changes as one: what a row became in both is told twice."""
    found: dict[tuple[str, tuple[str, ...]], TableRows] = {}
    for rows in (*first, *second):
        gone, come, more = rows.gone, rows.come, rows.more
        if before := found.get((rows.table, rows.columns)):
            gone, come, more = before.gone + gone, before.come + come, before.more + more
        found[rows.table, rows.columns] = replace(rows, gone=gone, come=come, more=more)
    return list(found.values())

"""The database that tests work on now; and that of tests which are undone in place."""

from __future__ import annotations

from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeAlias, TypeVar

from pytest_arena import _process
from pytest_arena._postgresql import _clone_sql as sql
from pytest_arena._postgresql._control import ControlFailure, Reconnecting, open_control
from pytest_arena._postgresql.isolation._snapshots import Archive, RowsLost, Snapshot
from pytest_arena._postgresql.journal._capture import install, uninstall
from pytest_arena._postgresql.journal._journal_templates import check_fit, journaled
from pytest_arena._postgresql.journal._server import (
    Look,
    Restoration,
    ServerJournal,
    ServerMoment,
)
from pytest_arena._product import Held, held_by
from pytest_arena.errors import ArenaError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from pytest_arena._postgresql.registry import ServerRegistry
    from pytest_arena._values import Address, TableRows

    Levels: TypeAlias = "Sequence[ServerLevel[Any]]"
    # Returns a number that has moved since it was last asked for where the database was used: by a
    # connection that was opened, taken from a pool, or was out all the time. It may have a method
    # `before_next`, which has something called before the next use.
    Uses: TypeAlias = Callable[[], int]
    _Rows: TypeAlias = Sequence[tuple[Any, ...]]

_Answer = TypeVar("_Answer")
LiveT = TypeVar("LiveT", bound="LiveDatabase")
NEVER = -1  # no number of uses
_NOTHING: Archive = []
_SHOWN = 3  # of what could not be taken back
_LOCKED = "55P03"
_UNANSWERED = "the change journal cannot be asked"
# How long a backend that was told to end may take for it, before another database is taken.
_PATIENCE, _STEP = 1.0, 0.002
_ROWS_KEPT = 50  # of each table, of what is told of levels below a snapshot


class LiveDatabase:
    """The database that tests work on now: a copy of a snapshot, replaced by others. Any thread.

    How a level is left in it, its subclasses know. As it stands here, each is left by a copy of
    its snapshot, which has all that was written below it. A test may end all connections to it,
    ours too: they are made once more.
    """

    isolation: ClassVar[str]  # as the configuration and markers name it

    def __init__(
        self, own: ServerRegistry, uses: Uses, tell: Callable[[str], None]
    ) -> None:
        self.own, self.uses, self.tell = own, uses, tell
        self.name = ""
        self.snapshot = Snapshot(own, None)
        self.base = 0  # levels below this one are in the snapshot
        self.seen = (
            NEVER  # how many uses there were when nothing had changed in the top level
        )
        self.is_altered = (
            False  # the journal was made anew, and there is no snapshot of it yet
        )
        self.kept_as: tuple[str, str] | None = (
            None  # a name and a title, for when it is given up
        )
        self.is_lost = False
        self.is_spoiled = (
            False  # by us: whatever the level is asked, a copy takes its place
        )
        # To read all that is there: warm, it takes a third.
        self.reader = Reconnecting(lambda: open_control(self.address), self._lost)

    @property
    def address(self) -> Address:
        """How one logs in to it."""
        return self.own.address_of(self.name)

    @property
    def may_have_changed(self) -> bool:
        """Whether somebody may have used it, or there is no snapshot yet of how it is now."""
        return self.is_altered or self.uses() != self.seen

    def _lost(self) -> None:
        self.is_lost = True
        self.clients_inside()  # a server that is started anew is waited for there

    def was_lost(self) -> bool:
        """Whether our connection was lost since this was asked: so were the app's, most likely."""
        was_lost, self.is_lost = self.is_lost, False
        return was_lost

    def clients_inside(self) -> set[int]:
        """Return the backends of clients inside a transaction, whether or not they wrote."""
        return {
            int(pid) for (pid,) in self.own.control.rows(sql.clients_inside(self.name))
        }

    def policed(self, question: str, *, is_off: bool) -> tuple[str, ...]:
        """Return the tables that a question finds.

        With ``is_off`` their policies do not act until the top level is left.
        """
        with self.own.saying("the policies cannot be read, or switched off"):
            rows = self.reader.call(lambda control: control.rows(question))
            tables = tuple(name for (name,) in rows)
            if tables and is_off:
                self.is_spoiled = True  # first: nothing of it stays, whatever comes
                self.reader.call(
                    lambda control: control.run(sql.without_policies(tables))
                )
        return tables

    # From one database to the next

    def put(
        self,
        snapshot: Snapshot,
        base: int = 0,
        number: int = 0,
        archive: Archive = _NOTHING,
    ) -> None:
        """Go to the next copy, as level ``number`` began with what was archived; drop this one.

        The levels below ``base`` are in the snapshot.

        Raises:
            RowsLost: what was archived cannot be had, or does not fit; this one is live.
            ArenaError: no copy can be made; this one is live.
        """
        if isinstance(archive, RowsLost):
            raise archive
        is_first = not self.name
        known, name = self.known(), snapshot.copy() if is_first else snapshot.take()
        opened = self.opened(name, number, archive)
        if not is_first:
            self.give_up()
        self.go_to(name, snapshot, opened, known)
        self.base, self.is_spoiled = base, False

    def fork(self, base: int) -> None:
        """Make what stands a snapshot, and go on with a copy of it; all connections end."""
        known, frozen = self.known(), self.name
        self._freeze()
        try:
            name = self.own.create("live", template=frozen)
            opened = self.opened(name)
        except BaseException:
            self.own.thaw(frozen)
            raise
        self.kept_as = None  # what was to be kept goes on in the copy
        self.go_to(name, Snapshot(self.own, frozen, is_ours=True), opened, known)
        self.base = base

    def copied(self) -> str:
        """Return a copy of all that stands; all connections end."""
        self._freeze()
        try:
            return self.own.create("live", template=self.name)
        finally:
            self.own.thaw(self.name)

    def _freeze(self) -> None:
        self.release()
        self.own.freeze(self.name)

    def known(self) -> Any:
        """Return what is known of now: of the start of a copy that is made next."""
        return self.uses()

    def opened(self, name: str, number: int = 0, rows: _Rows = ()) -> Any:
        """Prepare a copy, before anybody else connects to it."""

    def go_to(self, name: str, snapshot: Snapshot, opened: Any, known: Any) -> None:
        """Have tests work on a copy that was prepared: each isolation has a way of its own."""
        raise NotImplementedError

    def give_up(self) -> None:
        """Have it dropped, or kept for a look."""
        self.release()
        kept, self.kept_as = self.kept_as, None
        if kept is None:
            self.own.drop_later(self.name)
            return
        try:
            self.keep(self.name, kept[1], called=kept[0])
        except (ControlFailure, ArenaError) as error:
            self.tell(f"{kept[1]}: not kept: {error}")
            self.own.drop_later(self.name)

    def keep(self, name: str, title: str, *, called: str = "") -> str:
        """Keep a copy, or itself. Returns its name."""
        return self.own.keep(name, title, called=called)

    def release(self) -> None:
        """Close our connections: somebody is about to copy it, or to drop it."""
        self.reader.close()

    # Levels

    def archive(self, levels: Levels) -> Archive:
        """Return what the levels below the top one had written that is not in its snapshot."""
        del levels
        return []

    def leave_ended(self, number: int) -> bool:
        """Leave a level whose connections were told to end; return whether that could be."""
        del number
        return False

    def forget(self, levels: Levels, *, is_undone: bool) -> None:
        """Let the level below have what was written in the top one; or set its sequences back."""

    def tell_of(self, marks: tuple[str, ...]) -> None:
        """Tell why it was replaced, where that is not what it is for."""

    def close_moments(self, *, are_over: bool) -> None:
        """The top level ends, and with it its moments; or what comes next is another level's."""


@dataclass(eq=False, slots=True)
class ServerLevel(Generic[LiveT]):
    """A level; the first one of all is what stands below the first that was entered.

    ``live`` says how it is left: its database takes the changes back in place, or gets another copy
    of the snapshot. Where one that takes back in place had to be replaced, the copy gets what the
    levels from ``base`` on had written as well.
    """

    live: LiveT
    is_elsewhere: bool = (
        False  # in a copy of what is live in the level below, of another kind
    )
    snapshot: Snapshot = field(init=False)
    base: int = field(init=False)
    start: Snapshot = field(
        init=False
    )  # another one where the level was given other content
    is_written: bool = (
        False  # its journal may have changes from before a level above it
    )
    is_wrong: bool = (
        False  # a check has failed: what was taken back is not what it should be
    )
    owed: ServerLevel[LiveT] | None = (
        None  # one that is left, to whose start it has to be brought yet
    )
    archive: Archive | None = (
        None  # the levels' below, where the live journal has it no more
    )
    told: list[TableRows] = field(default_factory=list)  # its changes, likewise

    def __post_init__(self) -> None:
        self.snapshot = self.start = self.live.snapshot
        self.base = self.live.base

    @property
    def stands(self) -> bool:
        """Whether the live database is the one that it was entered in, and can be left in place."""
        is_same = self.archive is None and self.snapshot is self.live.snapshot
        is_given_up = self.live.kept_as or self.live.is_spoiled
        return is_same and not (is_given_up or self.owed or self.is_wrong)


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

    def __init__(
        self, own: ServerRegistry, uses: Uses, tell: Callable[[str], None]
    ) -> None:
        super().__init__(own, uses, tell)
        self._line = Reconnecting(lambda: ServerJournal(self.address), self._lost)
        self._before_next = getattr(uses, "before_next", lambda _call: False)
        self._moment: tuple[int, ServerMoment] | None = (
            None  # the last one, and the uses by then
        )

    def template(self, content: str | None) -> str:
        """Return the template with a journal in it."""
        return journaled(self.own, content)

    def prepare(self, name: str) -> None:
        """Install a journal in a copy of a database that has none."""
        check_fit(install(self.own.address_of(name)))

    def opened(self, name: str, number: int = 0, rows: _Rows = ()) -> ServerJournal:
        """Connect before anybody else: the journal remembers by that where sequences begin."""
        with ExitStack() as stack, self.own.saying("a copy cannot be connected to"):
            stack.callback(self.own.drop_later, name)
            journal = stack.enter_context(
                closing(ServerJournal(self.own.address_of(name)))
            )
            if (
                journal.look().marks
            ):  # the server has crashed, and with it the snapshot's own
                journal.install()
            try:
                if rows:
                    journal.restore([*rows], number)
            except ControlFailure as error:
                raise RowsLost(error) from error
            stack.pop_all()
        return journal

    def go_to(
        self, name: str, snapshot: Snapshot, opened: ServerJournal, known: int
    ) -> None:
        """Use the journal that was opened there."""
        self.release()
        self.name, self.snapshot, self.seen = name, snapshot, known
        self._line.use(opened)
        self.is_altered = False

    def release(self) -> None:
        """Close the journal as well."""
        super().release()
        self._line.close()

    def keep(self, name: str, title: str, *, called: str = "") -> str:
        """Keep a copy, or itself, without its journal. Returns its name."""
        self.own.control.rows(
            sql.end_backends(name)
        )  # they have locks on what is to go
        with suppress(ControlFailure):  # it is as good to look at where that cannot be
            uninstall(self.own.address_of(name))
        return super().keep(name, title, called=called)

    def _asked(
        self, question: Callable[..., _Answer], *args: Any, **options: Any
    ) -> _Answer:
        with self.own.saying(_UNANSWERED):
            return self._line.call(question, *args, **options)

    def look(self, number: int) -> Look:
        """Look at what stands, above the start of a level.

        Raises:
            ArenaError: the journal or the server is gone.
        """
        return self._asked(ServerJournal.look, number)

    # Levels

    def needs_snapshot(self, levels: Levels) -> bool:
        """Begin another level, unless the top one has done what has no entry in the journal.

        Then the schema is journaled as it is now: what was journaled by then goes with the levels.

        Raises:
            ArenaError: somebody holds a lock, or the server is gone or has no room: another
                database would be of no use; or the schema cannot be journaled.
        """
        seen = self.uses()
        if not self.is_altered and self._is_beyond_the_journal(
            levels[-1], len(levels) - 1
        ):
            told = [level.told for level in levels]
            for number in [at for at, level in enumerate(levels) if level.live is self]:
                with suppress(
                    ArenaError
                ):  # a story has less to tell, and nothing is wrong
                    told[number] = self.rows_changed(
                        levels, number, (None, None), _ROWS_KEPT
                    )
            archive = self.archive(levels)
            check_fit(self._asked(ServerJournal.install))
            self.is_altered = True
            levels[-1].archive = archive
            for level, rows in zip(levels, told, strict=True):
                level.told = rows
        self.seen = seen
        return self.is_altered

    def _is_beyond_the_journal(self, level: ServerLevel[Any], number: int) -> bool:
        try:
            has_marks = bool(self._line.call(ServerJournal.enter, number + 1))
        except ControlFailure as error:
            if error.sqlstate == _LOCKED or error.is_elsewhere:
                raise self.own.failed(
                    "the change journal cannot go on", error
                ) from error
            has_marks = True
        if has_marks:
            level.is_written = True
            return True
        look = self.look(number)
        level.is_written |= look.is_changed
        return bool(look.marks)  # large objects: another copy would not have them

    def archive(self, levels: Levels) -> Archive:
        """Return what is in the journal alone."""
        top, number = levels[-1], len(levels) - 1
        if top.archive is not None:
            return top.archive
        if not any(level.is_written for level in levels[top.base : number]):
            return []
        try:
            return self._line.call(ServerJournal.archive, number)
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
        if self.uses() != seen and (at_work := self._asked(ServerJournal.at_work)):
            raise held_by(at_work, self.name)
        try:
            left = self._line.call(ServerJournal.leave, number)
        except ControlFailure as error:
            return self._left_after(error, number)
        self.seen = NEVER if left.marks else seen
        return left

    def _left_after(self, error: ControlFailure, number: int) -> Restoration:
        """Leave a level all the same; a mark for what keeps the journal from it, but for locks."""
        if error.is_lost:
            raise self.own.failed(
                "the live database cannot be reached", error
            ) from error
        if error.sqlstate != _LOCKED:
            self.seen = NEVER
            mark = f"the change journal cannot be read: {error}"
            return Restoration(was_changed=True, marks=(mark,))
        look = self.look(number)
        if look.writers or not look.prepared:
            raise held_by(look.writers or self.clients_inside(), self.name)
        # No session holds these, and whoever prepared them has forgotten them.
        saying = self.own.saying("prepared transactions cannot be ended")
        with saying, closing(open_control(self.address)) as control:
            for name in look.prepared:
                control.run(sql.rollback_prepared(name))
        names = ", ".join(look.prepared)
        self.tell(
            f"undo: {{test}} has left prepared transactions, rolled back: {names}"
        )
        return self.leave(number)

    def tell_of(self, marks: tuple[str, ...]) -> None:
        """A line for the summary: what no journal can take back. ``{test}`` is filled in."""
        more = len(marks) - _SHOWN
        # A table comes with its indexes and sequences: it is what somebody has written down.
        first = sorted(marks, key=lambda mark: " TABLE " not in mark)
        shown = ", ".join(first[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
        self.tell("undo: {test}: its database was replaced: " + shown)

    def leave_ended(self, number: int) -> bool:
        """They may take some time to end."""
        end = _process.seconds() + _PATIENCE
        with suppress(ArenaError):
            while _process.seconds() <= end:
                with suppress(Held):
                    return not self.leave(number).marks
                _process.rest(_STEP)
        return False

    def forget(self, levels: Levels, *, is_undone: bool) -> None:
        """In the journal."""
        below, top, number = levels[-2], levels[-1], len(levels) - 1
        if is_undone:
            self._asked(ServerJournal.rewind, number)
        if top.is_written or (self.may_have_changed and self.look(number).is_changed):
            self._asked(ServerJournal.forget, number)
            self.seen = NEVER
        below.archive = below.archive or top.archive
        below.told = _joined(below.told, top.told)

    # Moments and rows

    def moment(self, levels: Levels, *, exact: bool) -> ServerMoment:
        """Return a point in time.

        While no connection uses the database, this is the same moment. The server is asked for its
        name before the next connection uses the database, and never if none does.

        All moments tell the rows. Without event triggers, only an ``exact`` one tells earlier
        changes of the schema.

        Raises:
            ArenaError: the server is gone.
        """
        if exact:
            self._asked(ServerJournal.note_schema, len(levels) - 1)
        top, uses = levels[-1], self.uses()
        if self._moment is not None and self._moment[0] == uses:
            return self._moment[1]
        is_start = uses == self.seen and not (top.is_written or top.told)
        moment = ServerMoment(
            None if is_start else partial(self._asked, ServerJournal.moment)
        )
        if not self._before_next(moment.settle):
            moment.settle()
        if moment.failure is not None:
            raise moment.failure
        self._moment = uses, moment
        return moment

    def close_moments(self, *, are_over: bool) -> None:
        """Ask for the last one, if what follows is another level's."""
        last, self._moment = self._moment, None
        if last is not None:
            (last[1].end if are_over else last[1].settle)()

    def rows_changed(
        self,
        levels: Levels,
        number: int,
        moments: tuple[object, object],
        limit: int | None,
    ) -> list[TableRows]:
        """Return what the journal has of a level, and what was told of it before."""
        since, until = (
            one.name if isinstance(one, ServerMoment) else None for one in moments
        )
        if until == "":
            return []
        rows = self._asked(
            ServerJournal.rows_changed,
            level=number,
            since=since or "",
            until=until or "",
            is_top=number == len(levels) - 1,
            limit=limit,
        )
        return rows if since else _joined(levels[number].told, rows)


def _joined(first: Iterable[TableRows], second: Iterable[TableRows]) -> list[TableRows]:
    """Return two lists of changes as one: what a row became in both is told twice."""
    found: dict[tuple[str, tuple[str, ...]], TableRows] = {}
    for rows in (*first, *second):
        gone, come, more = rows.gone, rows.come, rows.more
        if before := found.get((rows.table, rows.columns)):
            gone, come, more = (
                before.gone + gone,
                before.come + come,
                before.more + more,
            )
        found[rows.table, rows.columns] = replace(rows, gone=gone, come=come, more=more)
    return list(found.values())

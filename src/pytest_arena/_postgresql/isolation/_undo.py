"""``undo``: what a test has changed is read in a change journal, and taken back in place."""

from __future__ import annotations

from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING

from pytest_arena import _clock
from pytest_arena._postgresql._control import Failed
from pytest_arena._postgresql.isolation import _undo_messages as messages
from pytest_arena._postgresql.isolation._late_moments import LateMoments, Moment
from pytest_arena._postgresql.isolation._live import LiveDatabase, joined
from pytest_arena._postgresql.isolation._pictures import Archive, Picture, Pictures
from pytest_arena._postgresql.journal._server import ServerJournal
from pytest_arena._postgresql.journal._templates import check_fit, remarks
from pytest_arena._postgresql.registry import new_name
from pytest_arena._product import Held, held_by, nothing, to_nobody
from pytest_arena.errors import ArenaError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_arena._postgresql.journal._server import Left, Look
    from pytest_arena._postgresql.registry import ServerRegistry
    from pytest_arena._values import Address, TableRows

__all__ = ["Undo"]

_NEVER = -1
# How long a backend that was told to end may take for it, before another database is taken.
_PATIENCE, _STEP = 1.0, 0.002
_ROWS_KEPT = 50  # of each table, of what is told of levels below a picture


@dataclass(eq=False, slots=True)
class _Level:
    """A level; the first one of all is what stands below the first that was entered.

    It is brought back in place by the journal, unless another database was put in its place:
    then by a copy of its picture, to which is added what the levels from ``base`` on had written.
    """

    picture: Picture
    base: int
    is_written: bool = False  # it may have changes of its own from before a level above it
    archive: Archive | None = None  # the levels' below, where the live journal has it no more
    told: list[TableRows] = field(default_factory=list)  # its changes, likewise


class Undo:
    """The isolation for databases on a server that takes changes back in place.

    Triggers write each row that comes or goes into a journal in the same database. Leaving a level
    takes its rows out and puts the others back, whatever order they were written in: the database
    stays, and with it all connections.

    What no journal can bring back, DDL above all, is noticed by it: then the level gets a copy of
    the picture that it stands on, with the changes of the levels between. A level in which a wider
    fixture has changed the schema becomes a picture of its own at the next ``enter``.

    ``uses`` returns a number that has moved since it was last asked for where anybody may have used
    the live database; where it has not, nothing is asked. ``is_journaled`` says that the template
    is a database with a journal already.

    Cost of enter + leave: two round trips, and the time that the changes take; nothing where nobody
    used the database.
    """

    name = "undo"

    def __init__(
        self,
        own: ServerRegistry,
        template: str | None,
        *,
        tell: Callable[[str], None] = to_nobody,
        uses: Callable[[], int] | None = None,
        is_journaled: bool = False,
    ) -> None:
        self._own, self._tell = own, tell
        self._uses = uses or count().__next__  # where nobody counts, it may have been used
        self._seen = _NEVER  # how many uses there were when the journal was empty
        self.generation = 0
        self._to_keep: tuple[str, str] | None = None  # name and title of what is live
        self._owed: tuple[_Level, int] | None = None  # what is live still has to become this level
        self._is_altered = False  # the journal was made anew, and there is no picture of it yet
        self._is_wrong = False  # a check has failed: what was taken back is not what it should be
        self.check: Callable[[], None] = nothing
        self._live, self._pictures = LiveDatabase(own), Pictures(own)
        self._moments = LateMoments(lambda: self._live.asked(ServerJournal.moment), self._uses)
        self._now = self._pictures.template(template, is_journaled=is_journaled)
        self._base, self._stack = 0, [_Level(self._now, 0)]
        # What a later run may take over, should this one be killed: copies of this one as they are.
        self._offered = None if is_journaled else self._now
        self._begin()
        for line in [] if is_journaled else remarks(own, template):
            tell(f"undo: {line}")

    def _begin(self) -> None:
        with self._own.saying("no database for the first test"):
            left = self._pictures.taken_over(self._now) if self._offered else None
            self._go_to(*(left or self._pictures.first_copy(self._now.name)))

    @property
    def address(self) -> Address:
        """How one logs in to the live database now."""
        return self._live.address

    @property
    def depth(self) -> int:
        """How many levels are open."""
        return len(self._stack) - 1

    @property
    def _top(self) -> tuple[_Level, int]:
        return self._stack[-1], len(self._stack) - 1

    # Levels

    def enter(self) -> None:
        """Open a level above the state that stands now.

        A picture is taken where the schema was changed: all connections end then.
        """
        self._moments.begin()
        if self._owed is not None:
            self._pay()
        if self._is_altered or self._may_have_changed():
            self._enter_used()
            self.generation += self._live.was_lost()
        self._stack.append(_Level(self._now, self._base))

    def _enter_used(self) -> None:
        (below, number), seen = self._top, self._uses()
        if not self._is_altered and self._is_beyond_the_journal(below, number):
            self._journal_anew(below, number)
        if self._is_altered:
            self._take_picture(below, number)
        self._seen = seen

    def _is_beyond_the_journal(self, below: _Level, number: int) -> bool:
        """Enter the next level, and return whether the one below has done what has no entry."""
        if self._live.is_altered_at(number + 1):
            below.is_written = True
            return True
        look = self._live.look(number)
        below.is_written |= look.is_changed
        return bool(look.marks)  # large objects: another copy would not have them

    def _journal_anew(self, top: _Level, number: int) -> None:
        """Journal the schema as it is now; what was journaled by then is carried from here on."""
        told = [self._told_of(level, at) for at, level in enumerate(self._stack)]
        archive = self._archive_below(top, number)
        if self._offered:
            self._own.withdraw(self._live.name)
        check_fit(self._live.asked(ServerJournal.install))
        self._is_altered = True
        top.archive = archive
        for level, rows in zip(self._stack, told, strict=True):
            level.told = rows

    def _told_of(self, level: _Level, number: int) -> list[TableRows]:
        is_top = number == len(self._stack) - 1
        try:
            rows = self._live.rows_changed(number, is_top=is_top, limit=_ROWS_KEPT)
        except ArenaError:  # a story has less to tell, and the database is right all the same
            rows = []
        return joined(level.told, rows)

    def _take_picture(self, top: _Level, number: int) -> None:
        """Freeze what is live, and go on with a copy of it."""
        with self._frozen(is_given_up=True) as name:
            copy, journal = self._pictures.first_copy(name)
        self._to_keep = None  # what was to be kept goes on in the copy
        self._is_altered, top.is_written = False, False
        self._now, self._base = self._pictures.frozen(name), number
        self._go_to(copy, journal)

    @contextmanager
    def _frozen(self, *, is_given_up: bool = False) -> Iterator[str]:
        """Keep everybody out of what is live, for good where that succeeds and it is given up."""
        self._live.release()
        self.generation += 1  # whoever was connected is not any more, even if this fails
        name, is_done = self._live.name, False
        self._own.freeze(name)
        try:
            yield name
            is_done = True
        finally:
            if not (is_given_up and is_done):
                self._own.thaw(name)

    def leave(self) -> bool:
        """Go back to the state at the matching ``enter``."""
        top, number = self._top
        self._moments.end()
        was_changed = self._is_taken_back(top, number)
        self._is_wrong = True
        self.check()
        self._is_wrong = False
        self._stack.pop()
        self._owed = None
        self._drop_unused()
        self.generation += self._live.was_lost()
        return was_changed

    def _is_taken_back(self, top: _Level, number: int) -> bool:
        """Take a level back, and return whether there was something to do."""
        marks: tuple[str, ...] = ()
        if self._stands(top):
            if not top.is_written and not self._may_have_changed():
                return False
            left = self._left_by_journal(number)
            if not left.marks:
                return left.was_changed
            marks = left.marks
        elif writers := self.writers():
            raise held_by(writers, self._live.name)
        self._bring_back(top, number)
        if marks:
            self._tell(messages.replaced(marks))
        return True

    def _stands(self, level: _Level) -> bool:
        """Whether the journal can take a level back."""
        return level.archive is None and self._to_keep is None and self._owed is None

    def _left_by_journal(self, number: int) -> Left:
        seen = self._uses()
        # Where somebody has a connection, the number moves by itself. What is at a statement now is
        # in nobody's way, and would be committed to the level below.
        if self._uses() != seen and (at_work := self._live.asked(ServerJournal.at_work)):
            raise held_by(at_work, self._live.name)
        left = self._live.left(number)
        if left is None and (ended := self._live.end_prepared(number)):
            self._tell(messages.rolled_back(ended))
            left = self._live.left(number)
        if left is None:
            raise held_by(self._live.in_the_way(number), self._live.name)
        self._seen = seen
        return left

    def leave_by_force(self) -> None:
        """Go back without asking who is inside a transaction: all connections are ended."""
        top, number = self._top
        self._moments.end()
        with suppress(Failed, ArenaError):  # what is not ended goes with its database
            self._live.end_all()
        self.generation += 1
        may_be_left, self._is_wrong = self._stands(top) and not self._is_wrong, False
        is_left = may_be_left and self._is_left_after_all(number)
        self._stack.pop()
        if not is_left:
            self._owed = top, number
            self._pay()
        self._drop_unused()

    def _is_left_after_all(self, number: int) -> bool:
        end = _clock.seconds() + _PATIENCE
        while True:
            try:
                return not self._left_by_journal(number).marks
            except (Held, ArenaError) as error:
                if isinstance(error, ArenaError) or _clock.seconds() > end:
                    return False
            _clock.rest(_STEP)

    def _pay(self) -> None:
        if self._owed is None:
            return
        top, number = self._owed
        try:
            self._bring_back(top, number)
        except messages.RowsLost:
            self._put(top.picture, number, Archive())
            self._base, self._owed = top.base, None
            raise
        self._owed = None

    def forget(self, *, is_undone: bool = False) -> None:
        """Drop the top level, and keep what stands; sequences go back if all else was undone."""
        top, number = self._top
        self._moments.begin()
        if is_undone and self._stands(top):
            self._live.asked(lambda journal: journal.rewind(number))
        if self._is_written(top):
            self._live.asked(lambda journal: journal.forget(number))
            self._seen = _NEVER
        self._stack.pop()
        below = self._stack[-1]
        below.archive = below.archive or top.archive
        below.told = joined(below.told, top.told)
        self._base = min(self._base, number - 1)
        self._drop_unused()

    def _is_written(self, top: _Level) -> bool:
        if top.is_written or not self._may_have_changed():
            return top.is_written
        return self._live.look(len(self._stack) - 1).is_changed

    def replace(self, content: str | None) -> None:
        """Give the level that stands now another content: a template's, or none."""
        top, number = self._top
        self._moments.end()
        archive = self._archive_below(top, number)
        self._put(self._pictures.template(content), number, Archive())
        top.archive = archive
        top.is_written, top.told, self._base = False, [], number
        self._drop_unused()

    # Another database in place of the live one

    def _bring_back(self, top: _Level, number: int) -> None:
        """Put a copy in place that stands as a level did at its start.

        Raises:
            RowsLost: what the levels below had written cannot be had; nothing was done.
        """
        archive = self._archive_below(top, number)
        if archive.loss is None:
            top.archive = archive  # should this be broken off: what is live may be gone by then
        self._put(top.picture, number, archive)
        self._base = top.base

    def _archive_below(self, top: _Level, number: int) -> Archive:
        """Return what the levels below had written that is not in a level's picture."""
        if top.archive is not None:
            return top.archive
        if not any(level.is_written for level in self._stack[top.base : number]):
            return Archive()
        try:
            return Archive(self._live.ask(lambda journal: journal.archive(number)))
        except (Failed, ArenaError) as error:
            return Archive(loss=messages.RowsLost(error))

    def _put(self, picture: Picture, number: int, archive: Archive) -> None:
        """Go to the next copy of a picture, with what was archived."""
        if archive.loss is not None:
            raise archive.loss
        seen = self._uses()
        name, journal = self._pictures.copy(picture, number, archive.rows)
        self._live.release()
        self._give_up_live()
        self._now, self._is_altered = picture, False
        self._go_to(name, journal)
        self._seen = seen

    def _give_up_live(self) -> None:
        kept, self._to_keep = self._to_keep, None
        if kept is None:
            self._own.drop_later(self._live.name)
            return
        try:
            self._live.end_all()  # who is inside a transaction has locks on what is to go
            self._keep(self._live.name, kept[1], called=kept[0])
        except (Failed, ArenaError) as error:
            self._tell(f"{kept[1]}: not kept: {error}")
            self._own.drop_later(self._live.name)

    def _go_to(self, name: str, journal: ServerJournal) -> None:
        self._live.go_to(name, journal)
        self.generation += 1
        if self._offered is self._now:
            self._own.offer(name, self._now.name)

    def _drop_unused(self) -> None:
        owed = [self._owed[0]] if self._owed else []
        self._pictures.drop_unused({self._now, *(level.picture for level in self._stack + owed)})

    # Kept, and closed

    def save(self, title: str) -> str:
        """Keep what stands for a look, without its journal. Returns the name of the database.

        It is a copy; or, where a session is inside a transaction, which making one would end, the
        live database itself, as it is when it is left.
        """
        with self._own.saying("the database cannot be kept"):
            if self._to_keep is None and not self._live.clients_inside():
                with self._frozen() as name:
                    copy = self._own.create("live", template=name)
                return self._keep(copy, title)
        if self._to_keep is None:
            self._to_keep = new_name("kept"), title
        return self._to_keep[0]

    def _keep(self, name: str, title: str, *, called: str = "") -> str:
        with suppress(Failed), closing(ServerJournal(self._own.address_of(name))) as journal:
            journal.uninstall()  # it is as good to look at where that cannot be
        return self._own.keep(name, title, called=called)

    def close(self) -> None:
        """Have everything dropped that was made here."""
        self._live.release()
        self._give_up_live()
        self._pictures.close()

    # Questions

    def _may_have_changed(self) -> bool:
        return self._uses() != self._seen

    def is_free(self) -> bool:
        """Whether no client is inside a transaction, which has locks on whatever it has read."""
        try:
            return not self._live.clients_inside()
        except (Failed, ArenaError):
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
        top, number = self._top
        if not self._stands(top) or top.is_written:
            return False
        if not self._may_have_changed():
            return True
        seen = self._uses()
        try:
            look = self._live.look(number)
        except ArenaError:
            return False
        if not look.is_changed:
            self._seen = seen if not look.writers else _NEVER
        return is_so(look)

    def writers(self) -> set[int]:
        """Return the backends that are inside a transaction with changes, in the live database."""
        return set(self._live.look(len(self._stack) - 1).writers)

    def end(self, pid: int, *, cancel: bool = False) -> None:
        """End a connection to the live database, or only the statement that it is at."""
        with self._own.saying("a connection cannot be ended"):
            self._live.end(pid, cancel=cancel)

    def moment(self, *, exact: bool = False) -> Moment:
        """Return a point in time, for ``rows_changed``.

        Only an ``exact`` one tells changes of the schema from before where there are no event
        triggers; all tell the rows.
        """
        if exact:
            self._live.asked(lambda journal: journal.note_schema(len(self._stack) - 1))
        top, uses = self._stack[-1], self._uses()
        is_start = uses == self._seen and not (top.is_written or top.told)
        return self._moments.now(uses, is_start=is_start)

    def rows_changed(
        self,
        since: object = None,
        until: object = None,
        *,
        depth: int = 0,
        limit: int | None = None,
    ) -> list[TableRows]:
        """Return the rows that were committed in a level, net."""
        number = len(self._stack) - 1 - depth
        if number < 0 or (isinstance(until, Moment) and until.is_start and not depth):
            return []
        if depth:
            return joined(self._stack[number].told, self._live.rows_changed(number, limit=limit))
        moments = self._moments.name_of(since), self._moments.name_of(until)
        rows = self._live.rows_changed(number, *moments, is_top=True, limit=limit)
        return rows if moments[0] else joined(self._stack[number].told, rows)

    def content(self) -> dict[str, str]:
        """Return digests of all that stands in the live database now."""
        with self._own.saying("the live database cannot be read"):
            return self._live.content()

"""``clone``: a database on a server that is thrown away, and a copy takes its place."""

from __future__ import annotations

from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, TypeVar

from pytest_arena import _clock
from pytest_arena._postgresql import _clone_sql as sql
from pytest_arena._postgresql._content import content
from pytest_arena._postgresql._control import Control, Failed, open_control
from pytest_arena._postgresql._rows import Rows, compared, read_digests, read_rows
from pytest_arena._postgresql.isolation._stock import Stock
from pytest_arena._postgresql.registry import new_name
from pytest_arena._product import held_by, nothing, to_nobody
from pytest_arena.errors import ArenaError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_arena._postgresql.registry import ServerRegistry
    from pytest_arena._values import Address, TableRows

    _Reader = Callable[[Callable[[Control], Any]], Any]

__all__ = ["Clone"]

_Read = TypeVar("_Read")
_XIDS = 2**32
# As many statements of arena's own may have ended that are not known to.
_AT_ONCE = 2
# A copy is made, or a database dropped, in the background: to wait for that costs less than to take
# a level for changed that is not.
_PATIENCE, _STEP, _LONGEST_STEP = 0.03, 0.0003, 0.002


class _Picture:
    """A database that nobody connects to any more, and what is made of it ahead."""

    def __init__(self, own: ServerRegistry, name: str | None, *, is_ours: bool) -> None:
        self.name, self.is_ours = name, is_ours
        self.stock = Stock(own, name)
        # Where a copy's sequences begin: "" where there are none, None where that is hidden.
        self.sequences: str | None = None
        self.knows_sequences = False


@dataclass(frozen=True, slots=True)
class _Facts:
    """What the server says of a database at one time, and what was written by then."""

    horizon: int  # the transaction id below which all have ended that are not open
    open: frozenset[str] = frozenset()  # pid:xid, of the sessions in this database
    held: frozenset[str] = frozenset()  # advisory locks, prepared transactions, slots
    own: int = 0  # how many ids arena itself has used since the mark
    writes: int = 0
    times: int = 0

    def pids(self) -> set[int]:
        """Return the sessions that are inside a transaction with changes."""
        return {int(one.partition(":")[0]) for one in self.open}

    def xids(self) -> set[int]:
        """Return the ids of their transactions, savepoints included."""
        return {int(one.partition(":")[2]) for one in self.open}


class Clone:
    """The isolation for databases on a server: a test that wrote gets another database.

    A level remembers a picture: the template, or a database frozen as it stood. Where nothing was
    written since the last picture, the level shares it. Else leaving it takes the next copy of
    its picture, made ahead in the background, and the old one is dropped there.

    Whether anything was written is asked by transaction ids, which are the whole server's: those
    that arena itself has used are taken off, and whatever is left counts as a change. So nothing
    that was written is missed, and on a server with other writers most levels count as changed.
    Sequences move without an id; a second question, in the database itself, compares them.

    ``uses`` returns a number that has moved since it was last asked for where anybody may have used
    the live database: by a connection that was opened, taken from a pool, or was out all the time.
    Where it has not moved, nothing is asked.

    Cost of enter + leave: one round trip, two with sequences, where nothing was written; else
    three, and new connections.
    """

    name = "clone"

    def __init__(
        self,
        own: ServerRegistry,
        template: str | None,
        *,
        tell: Callable[[str], None] = to_nobody,
        uses: Callable[[], int] | None = None,
    ) -> None:
        self._own, self._tell = own, tell
        self._uses = uses or count().__next__  # where nobody counts, it may have been used
        self._seen = self._asked_at = -1  # how many uses the mark knows of, and the last question
        self.generation = 0
        self.check: Callable[[], None] = nothing
        self._pictures: list[_Picture] = []  # frozen by us, to be dropped by us
        self._templates: dict[str | None, _Picture] = {}
        self._levels: list[_Picture] = []
        self._owed: _Picture | None = None  # what is live still has to become a copy of this
        self._to_keep: tuple[str, str] | None = None  # name and title of what is live
        self._look: Control | None = None
        self._live = ""
        self._mark = _Facts(0)
        self._is_suspect = False
        first = self._template(template)
        self._starts = [first]  # what each level began with, that of no level first
        with own.saying("no database for the first test"):
            # The first copy brings no others: maybe no test writes.
            self._go_to(own.create("live", template=template), first, self._facts())

    @property
    def address(self) -> Address:
        """How one logs in to the live database now."""
        return self._own.address_of(self._live)

    @property
    def depth(self) -> int:
        """How many levels are open."""
        return len(self._levels)

    def _template(self, name: str | None) -> _Picture:
        if name not in self._templates:
            self._templates[name] = _Picture(self._own, name, is_ours=False)
        return self._templates[name]

    # Levels

    def enter(self) -> None:
        """Open a level above the state that stands now.

        A picture is taken where something was written: all connections end then.
        """
        if self._owed is not None:
            self._take_next(self._owed, self._asked())
            self._owed = None
        if self._may_have_changed():
            self._enter_changed(self._asked())
        self._levels.append(self._now)
        self._starts.append(self._now)

    def _enter_changed(self, facts: _Facts) -> None:
        if self._is_as_marked(facts):
            self._mark_at(facts)
        elif facts.open:
            raise held_by(facts.pids(), self._live)
        else:
            self._freeze(facts)

    def _freeze(self, facts: _Facts) -> None:
        """Make a picture of what is live, and go on with a copy of it."""
        picture = _Picture(self._own, self._live, is_ours=True)
        self._close_look()
        # Whoever was connected is not any more, even if this fails.
        self.generation += 1
        self._own.freeze(self._live)
        try:
            name = self._own.create("live", template=self._live)
        except BaseException:
            self._own.thaw(self._live)
            raise
        self._pictures.append(picture)
        self._to_keep = None  # what was to be kept goes on in the copy
        self._go_to(name, picture, facts)

    def leave(self) -> bool:
        """Go back to the state at the matching ``enter``."""
        top = self._levels[-1]
        stands = self._now is top and self._to_keep is None and self._owed is None
        if stands and not self._may_have_changed():
            self.check()
            self._left()
            return False
        facts = self._asked()
        if facts.open:
            raise held_by(facts.pids(), self._live)
        is_clean = stands and facts.held == self._mark.held and self._is_as_marked(facts)
        if is_clean:
            self._mark_at(facts)
        else:
            self._take_next(top, facts)
        self.check()
        self._left()
        return not is_clean

    def leave_by_force(self) -> None:
        """Go back without asking who is inside a transaction: their connections are ended."""
        self._owed = self._pop()
        self._take_next(self._owed, self._asked())
        self._owed = None
        self._remove_unused()

    def _pop(self) -> _Picture:
        self._starts.pop()
        return self._levels.pop()

    def _left(self) -> None:
        self._pop()
        self._owed = None
        self._remove_unused()

    def forget(self, *, is_undone: bool = False) -> None:  # noqa: ARG002 - nothing can be set back
        """Drop the top level, and keep what stands."""
        self._pop()
        self._remove_unused()

    def replace(self, content: str | None) -> None:
        """Give the level that stands now another content: a template's, or none."""
        self._take_next(self._template(content), self._asked())
        self._starts[-1] = self._now  # nobody in this level has written that
        self._remove_unused()

    def save(self, title: str) -> str:
        """Keep what stands for a look. Returns the name of the database that stays.

        It is a copy; or, where a session is inside a transaction, which making one would end, the
        live database itself, as it is when it is left.
        """
        with self._own.saying("the database cannot be kept"):
            if self._to_keep is None and not self._is_in_use():
                return self._own.keep(self._copied(), title)
        if self._to_keep is None:
            self._to_keep = new_name("kept"), title
        return self._to_keep[0]

    def _copied(self) -> str:
        self._close_look()
        self.generation += 1
        self._own.freeze(self._live)
        try:
            return self._own.create("live", template=self._live)
        finally:
            self._own.thaw(self._live)

    def close(self) -> None:
        """Have everything dropped that was made here."""
        self._close_look()
        self._give_up_live()
        for picture in [*self._templates.values(), *self._pictures]:
            picture.stock.discard()
            if picture.is_ours and picture.name:
                self._own.drop_later(picture.name)

    # Questions

    def is_free(self) -> bool:
        """Whether no client is inside a transaction, which has locks on whatever it has read."""
        try:
            return not self._is_in_use()
        except (Failed, ArenaError):
            return True  # that is no lock, and leaving tells of it

    def _is_in_use(self) -> bool:
        return bool(self._own.control.rows(sql.waits_or_works(self._live)))

    def is_untouched(self) -> bool:
        """Whether nothing was committed in the top level."""
        if not self._stands_at_top():
            return False
        if not self._may_have_changed():
            return True
        try:
            return self._is_as_marked(self._facts())
        except (Failed, ArenaError):
            return False

    def is_clean(self) -> bool:
        """Whether nothing was changed in the top level, nor is about to be."""
        if not self._stands_at_top():
            return False
        if not self._may_have_changed():
            return True
        try:
            facts = self._facts()
            quiet = not facts.open and facts.held == self._mark.held
            return quiet and self._is_as_marked(facts)
        except (Failed, ArenaError):
            return False

    def _stands_at_top(self) -> bool:
        is_settled = self._owed is None and self._to_keep is None
        return self._now is self._levels[-1] and is_settled

    def writers(self) -> set[int]:
        """Return the backends that are inside a transaction with changes, in the live database."""
        with self._own.saying("the open transactions cannot be listed"):
            return self._facts().pids()

    def end(self, pid: int, *, cancel: bool = False) -> None:
        """End a connection to the live database, or only the statement that it is at."""
        with self._own.saying("a connection cannot be ended"):
            self._own.control.rows(sql.end_backend(self._live, pid, cancel=cancel))

    def content(self) -> dict[str, str]:
        """Return digests of all that stands in the live database now."""
        return self._read(content)

    def moment(self, *, exact: bool = False) -> Rows | None:
        """Return None: a database has no history. ``exact`` reads its rows instead, all of them.

        Raises:
            IsolationError: somebody holds a lock on a table, or the server is gone.
        """
        return self._read(read_rows) if exact else None

    def rows_changed(
        self,
        since: object = None,
        until: object = None,
        *,
        depth: int = 0,
        limit: int | None = None,
    ) -> list[TableRows]:
        """Return the rows that were committed, net, table by table; ``limit`` rows of each.

        Compares what stands with a copy of what the level began with, or with a moment. The server
        reads all rows, to tell which tables have changed; of those they are read.

        Raises:
            IsolationError: no copy can be made, or somebody holds a lock on a table.
        """
        with ExitStack() as stack:
            before = self._reader(since, self._starts[-1 - depth], stack)
            after = self._reader(until, self._levels[-depth] if depth else None, stack)
            digests = before(read_digests)
            new = after(partial(read_rows, unlike=digests))
            old = before(partial(read_rows, unlike=new))
            return compared(old, new, limit=limit)

    def _reader(self, moment: object, picture: _Picture | None, stack: ExitStack) -> _Reader:
        """What reads a moment, which was read already, a copy of a picture, or what is live."""
        if isinstance(moment, Rows):
            return lambda _: moment
        if picture is None:
            return self._read
        name = picture.stock.take()
        stack.callback(self._own.drop_later, name)
        with self._own.saying("a copy cannot be read"):
            control = stack.enter_context(closing(open_control(self._own.address_of(name))))

        def read(ask: Callable[[Control], Any]) -> Any:
            with self._own.saying("a copy cannot be read"):
                return ask(control)

        return read

    def _read(self, ask: Callable[[Control], _Read]) -> _Read:
        with self._own.saying("the live database cannot be read"):
            if self._look is not None:
                with suppress(Failed):  # a test may have ended it
                    return ask(self._look)
                self._close_look()
            self._look = open_control(self.address)
            return ask(self._look)

    # Was anything written?

    def _may_have_changed(self) -> bool:
        return self._is_suspect or self._uses() != self._seen

    def _asked(self) -> _Facts:
        with self._own.saying("the live database cannot be looked at"):
            return self._facts()

    def _facts(self) -> _Facts:
        """Ask, and once more where it may be arena's own work that cannot be told yet."""
        self._asked_at = self._uses()
        end, step = _clock.seconds() + _PATIENCE, _STEP
        while True:
            is_busy = self._own.writes.is_under_way()
            facts = self._read_facts()
            is_busy |= self._own.writes.is_under_way()
            is_told = not is_busy or not 0 < self._unexplained(facts) <= _AT_ONCE
            if is_told or _clock.seconds() > end:
                return facts
            _clock.rest(step)
            step = min(step * 2, _LONGEST_STEP)

    def _unexplained(self, facts: _Facts) -> int:
        """How many transaction ids were used since the mark that are neither open nor arena's."""
        used = facts.horizon - self._mark.horizon
        still_open = sum((xid - self._mark.horizon) % _XIDS < used for xid in facts.xids())
        return used - still_open - facts.own

    def _read_facts(self) -> _Facts:
        writes = self._own.writes
        # What of arena's has ended by now has an id below the horizon, what it begins afterwards
        # has none below. What is under way is counted neither here nor from here.
        own = writes.since(self._mark.writes)
        [(open_, held, horizon)] = self._own.control.rows(sql.facts(self._live))
        return _Facts(
            int(horizon),
            frozenset(open_),
            frozenset(held),
            own=own,
            writes=writes.mark(),
            times=self._own.times,
        )

    def _is_as_marked(self, facts: _Facts) -> bool:
        """Whether nothing was committed since the mark.

        What was open at the mark has an id below it: once it has ended, it may have committed.
        """
        mark = self._mark
        if facts.times != mark.times or not mark.open <= facts.open:
            return False
        return self._unexplained(facts) == 0 and not self._has_moved_sequences()

    def _has_moved_sequences(self) -> bool:
        if self._now.sequences == "":
            return False
        return self._now.sequences is None or self._read_sequences() != self._now.sequences

    def _read_sequences(self) -> str | None:
        try:
            if self._look is None:
                self._look = open_control(self.address)
            [(found,)] = self._look.rows(sql.sequences())
        except Failed:
            self._close_look()
            return None
        return None if found is None else str(found)

    def _close_look(self) -> None:
        look, self._look = self._look, None
        if look is not None:
            with suppress(Exception):  # it may have been ended by a test
                look.close()

    # From one database to the next

    def _mark_at(self, facts: _Facts) -> None:
        self._mark, self._seen = facts, self._asked_at
        # A transaction that is open may be committed without anybody taking a connection.
        self._is_suspect = bool(facts.open)

    def _take_next(self, picture: _Picture, facts: _Facts) -> None:
        """Go to the next copy of a picture, and give up what was live."""
        name = picture.stock.take()
        self._close_look()
        self._give_up_live()
        self._go_to(name, picture, facts)

    def _give_up_live(self) -> None:
        kept, self._to_keep = self._to_keep, None
        if kept is not None:
            try:
                self._own.keep(self._live, kept[1], called=kept[0])
            except ArenaError as error:
                self._tell(f"{kept[1]}: not kept: {error.what}")
            else:
                return
        self._own.drop_later(self._live)

    def _go_to(self, name: str, picture: _Picture, facts: _Facts) -> None:
        # Nobody could write to it before now, and the ids were read before: they are its mark.
        self._live, self._now = name, picture
        self._mark_at(_Facts(facts.horizon, writes=facts.writes, times=facts.times))
        if not picture.knows_sequences:
            picture.sequences, picture.knows_sequences = self._read_sequences(), True
        self.generation += 1

    def _remove_unused(self) -> None:
        used = {self._now, self._owed, *self._levels}
        for picture in [picture for picture in self._pictures if picture not in used]:
            self._pictures.remove(picture)
            picture.stock.discard()
            if picture.name:
                self._own.drop_later(picture.name)

"""The database that tests work on now; and that of tests which are isolated by a copy."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from pytest_arena import _process
from pytest_arena._postgresql import _clone_sql as sql
from pytest_arena._postgresql._content import content
from pytest_arena._postgresql._control import Control, ControlFailure, open_control
from pytest_arena._postgresql._rows import Rows, compared, read_digests, read_rows
from pytest_arena._postgresql.isolation._server_levels import Archive, LateMoments, Levels, Snapshot
from pytest_arena._postgresql.journal._server import Look, Restoration, ServerJournal
from pytest_arena._product import held_by
from pytest_arena.errors import ArenaError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_arena._postgresql.registry import ServerRegistry
    from pytest_arena._values import Address, TableRows

    _Reader = Callable[[Callable[[Control], Any]], Any]

__all__ = ["NEVER", "LiveDatabase", "PlainDatabase", "Uses"]

_Answer = TypeVar("_Answer")
NEVER = -1  # no number of uses
_XIDS = 2**32
# As many statements of arena's own may have ended that are not known to.
_AT_ONCE = 2
# A copy is made, or a database dropped, in the background: to wait for that costs less than to take
# a level for changed that is not.
_PATIENCE, _STEP, _LONGEST_STEP = 0.03, 0.0003, 0.002


# Returns a number that has moved since it was last asked for where the database was used: by a
# connection that was opened, taken from a pool, or was out all the time. It may have a method
# `before_next`, which has something called before the next use.
Uses = Callable[[], int]


class LiveDatabase:
    """The database that tests work on now: a copy of a snapshot, replaced by others. Any thread.

    How a level is left in it is what its subclasses know. A test may end all connections to it,
    ours too: they are made once more. A forked child has its own.
    """

    isolation: ClassVar[str]  # as the configuration and markers name it

    def __init__(self, own: ServerRegistry, uses: Uses, tell: Callable[[str], None]) -> None:
        self.own, self.uses, self.tell = own, uses, tell
        self.name = ""
        self.snapshot = Snapshot(own, None)
        self.base = 0  # levels below this one are in the snapshot
        self.seen = NEVER  # how many uses there were when nothing had changed in the top level
        self.kept_as: tuple[str, str] | None = None  # a name and a title, for when it is given up
        self.turn = threading.RLock()
        self.is_lost = False
        self.journal: ServerJournal | None = None  # of a database that has one
        self.moments = LateMoments(self.now, uses)
        self._reader: Control | None = None  # to read all that is there: warm, it takes a third
        self._abandoned: list[object] = []  # those of a parent
        self._process = os.getpid()

    @property
    def address(self) -> Address:
        """How one logs in to it."""
        return self.own.address_of(self.name)

    @property
    def may_have_changed(self) -> bool:
        """Whether somebody may have used it since nothing had changed."""
        return self.uses() != self.seen

    def was_lost(self) -> bool:
        """Whether our connection was lost since this was asked: so were the app's, most likely."""
        was_lost, self.is_lost = self.is_lost, False
        return was_lost

    def now(self) -> str:
        """Return what the server calls this moment: "" where it has no history."""
        return ""

    # From one database to the next

    @contextmanager
    def frozen(self, *, is_given_up: bool = False) -> Iterator[str]:
        """Keep everybody out, for good where it is given up and that succeeds."""
        self.release()
        name, is_done = self.name, False
        self.own.freeze(name)
        try:
            yield name
            is_done = True
        finally:
            if not (is_given_up and is_done):
                self.own.thaw(name)

    def copied(self) -> str:
        """Return a copy of all that stands; all connections end."""
        with self.frozen() as name:
            return self.own.create("live", template=name)

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
        with self.turn:
            self.leave_to_parent()
            for connection in (self.journal, self._reader):
                if connection is not None:
                    connection.close()
            self.journal = self._reader = None

    def leave_to_parent(self) -> None:
        """Use no connection that a parent process has opened: closing it would end its session."""
        if self._process != os.getpid():
            self._abandoned += [self.journal, self._reader]
            self.journal, self._reader, self._process = None, None, os.getpid()

    # Its connections

    def clients_inside(self) -> set[int]:
        """Return the backends of clients inside a transaction, whether or not they wrote."""
        return {int(pid) for (pid,) in self.own.control.rows(sql.waits_or_works(self.name))}

    def end(self, pid: int, *, cancel: bool) -> None:
        """End a connection to it, or only the statement that it is at."""
        self.own.control.rows(sql.end_backend(self.name, pid, cancel=cancel))

    def end_all(self) -> None:
        """End all connections to it."""
        self.own.control.rows(sql.end_backends(self.name))

    # What stands

    def content(self) -> dict[str, str]:
        """Return digests of all that stands in it.

        Raises:
            Failed: somebody holds a lock, or the server is gone.
        """
        return self.read(content)

    def read(self, question: Callable[[Control], _Answer]) -> _Answer:
        """Ask over a connection that is kept, and once more where that was lost."""
        with self.turn:
            self.leave_to_parent()
            kept, self._reader = self._reader, self._reader or open_control(self.address)
            try:
                return question(self._reader)
            except ControlFailure as error:
                if kept is None or not error.is_lost:
                    raise
            self._reader.close()
            self._reader = open_control(self.address)
            return question(self._reader)


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


class PlainDatabase(LiveDatabase):
    """``clone``: a level in which something was written is left by a copy of its snapshot.

    Whether anything was written is asked by transaction ids, which are the whole server's: those
    that arena itself has used are taken off, and whatever is left counts as a change. So nothing
    that was written is missed, and on a server with other writers most levels count as changed.
    Sequences move without an id; a second question, in the database itself, compares them.
    """

    isolation = "clone"

    def __init__(self, own: ServerRegistry, uses: Uses, tell: Callable[[str], None]) -> None:
        super().__init__(own, uses, tell)
        self._mark = _Facts(0)
        self._latest: _Facts | None = None  # by which a change was found

    def template(self, content: str | None) -> str | None:
        """Return the template itself."""
        return content

    def prepare(self, name: str) -> None:
        """Take the journal out of a copy of a database that has one."""
        with closing(ServerJournal(self.own.address_of(name))) as journal:
            journal.uninstall()

    def begin(self, snapshot: Snapshot) -> None:
        """Go to a first copy of a snapshot."""
        name = snapshot.copy()
        self._go_to(name, snapshot, self._read_facts())

    def put(self, snapshot: Snapshot, number: int, archive: Archive) -> None:
        """Go to the next copy; a snapshot has all that the levels below had written."""
        del number, archive
        mark = self._next_mark()
        name = snapshot.take()
        self.give_up()
        self._go_to(name, snapshot, mark)

    def fork(self) -> None:
        """Become a snapshot, and go on with a copy."""
        mark = self._next_mark()
        with self.frozen(is_given_up=True) as frozen:
            name = self.own.create("live", template=frozen)
        self.kept_as = None  # what was to be kept goes on in the copy
        self._go_to(name, Snapshot(self.own, frozen, is_ours=True), mark)

    def _next_mark(self) -> _Facts:
        """Read ids before the copy: while others are made ahead, nobody knows whose they are."""
        mark, self._latest = self._latest, None
        return mark or self._asked_facts(self._read_facts)

    def _go_to(self, name: str, snapshot: Snapshot, mark: _Facts) -> None:
        # Nobody could write to it before now, and the ids were read before: they are its mark.
        self.name, self.snapshot = name, snapshot
        self._mark_at(_Facts(mark.horizon, writes=mark.writes, times=mark.times), self.uses())
        if not snapshot.knows_sequences:
            snapshot.sequences, snapshot.knows_sequences = self._read_sequences(), True

    # Levels

    def needs_snapshot(self, levels: Levels) -> bool:
        """Wherever something was written."""
        del levels
        seen, facts = self.uses(), self._facts()
        if self._is_as_marked(facts):
            self._mark_at(facts, seen)
            return False
        if facts.open:
            raise held_by(facts.pids(), self.name)
        self._latest = facts
        return True

    def leave(self, number: int) -> Restoration:
        """Nothing is taken back: there is nothing to do, or a copy takes its place."""
        del number
        seen, facts = self.uses(), self._facts()
        if facts.open:
            raise held_by(facts.pids(), self.name)
        if facts.held != self._mark.held or not self._is_as_marked(facts):
            self._latest = facts
            return Restoration(was_changed=True, marks=("rows",))
        self._mark_at(facts, seen)
        return Restoration(was_changed=False)

    def leave_ended(self, number: int) -> bool:
        """Return that a copy is needed, whoever has ended."""
        del number
        return False

    def forget(self, levels: Levels, *, is_undone: bool) -> None:
        """Have the level below brought back by its own snapshot; sequences cannot be set back."""

    def archive(self, levels: Levels) -> Archive:
        """Return nothing: each level's snapshot has all that was written below it."""
        del levels
        return []

    def look(self, number: int) -> Look:
        """Ask for the transaction ids, and for who is inside a transaction."""
        del number
        facts = self._facts()
        is_changed = not self._is_as_marked(facts)
        held = facts.held != self._mark.held
        return Look(is_changed, is_changed, (), frozenset(facts.pids()), (), locks=held)

    def _mark_at(self, facts: _Facts, seen: int) -> None:
        # A transaction that is open may be committed without anybody taking a connection.
        self._mark, self.seen = facts, NEVER if facts.open else seen

    def _facts(self) -> _Facts:
        return self._asked_facts(self._settled_facts)

    def _asked_facts(self, read: Callable[[], _Facts]) -> _Facts:
        with self.own.saying("the live database cannot be looked at"):
            return read()

    def _settled_facts(self) -> _Facts:
        """Ask, and once more where it may be arena's own work that cannot be told yet."""
        end, step = _process.seconds() + _PATIENCE, _STEP
        while True:
            is_busy = self.own.writes.is_under_way()
            facts = self._read_facts()
            is_busy |= self.own.writes.is_under_way()
            is_told = not is_busy or not 0 < self._unexplained(facts) <= _AT_ONCE
            if is_told or _process.seconds() > end:
                return facts
            _process.rest(step)
            step = min(step * 2, _LONGEST_STEP)

    def _unexplained(self, facts: _Facts) -> int:
        """How many transaction ids were used since the mark that are neither open nor arena's."""
        used = facts.horizon - self._mark.horizon
        still_open = sum((xid - self._mark.horizon) % _XIDS < used for xid in facts.xids())
        return used - still_open - facts.own

    def _read_facts(self) -> _Facts:
        writes = self.own.writes
        # What of arena's has ended by now has an id below the horizon, what it begins afterwards
        # has none below. What is under way is counted neither here nor from here.
        own = writes.since(self._mark.writes)
        [(open_, held, horizon)] = self.own.control.rows(sql.facts(self.name))
        who, times = (frozenset(open_), frozenset(held)), self.own.times
        return _Facts(int(horizon), *who, own=own, writes=writes.mark(), times=times)

    def _is_as_marked(self, facts: _Facts) -> bool:
        """Whether nothing was committed since the mark.

        What was open at the mark has an id below it: once it has ended, it may have committed.
        """
        mark, sequences = self._mark, self.snapshot.sequences
        if facts.times != mark.times or not mark.open <= facts.open or self._unexplained(facts):
            return False
        return sequences == "" or (sequences is not None and self._read_sequences() == sequences)

    def _read_sequences(self) -> str | None:
        try:
            [(found,)] = self.read(lambda control: control.rows(sql.sequences()))
        except ControlFailure:
            return None
        return None if found is None else str(found)

    # Rows, for which there is no journal

    def moment(self, levels: Levels, *, exact: bool) -> Rows | None:
        """Return None: a database has no history. ``exact`` reads its rows instead, all of them."""
        del levels
        with self.own.saying("the live database cannot be read"):
            return self.read(read_rows) if exact else None

    def rows_changed(
        self, levels: Levels, number: int, moments: tuple[object, object], limit: int | None
    ) -> list[TableRows]:
        """Compare what stands with a copy of what the level began with, or with a moment.

        The server reads all rows, to tell which tables have changed; of those they are read.
        """
        end = None if number == len(levels) - 1 else levels[number + 1].snapshot
        with ExitStack() as stack, self.own.saying("the databases cannot be compared"):
            before = self._reader_of(moments[0], levels[number].start, stack)
            after = self._reader_of(moments[1], end, stack)
            digests = before(read_digests)
            new = after(partial(read_rows, unlike=digests))
            old = before(partial(read_rows, unlike=new))
            return compared(old, new, limit=limit)

    def _reader_of(self, moment: object, snapshot: Snapshot | None, stack: ExitStack) -> _Reader:
        """What reads a moment, which was read already, a copy of a snapshot, or what is live."""
        if isinstance(moment, Rows):
            return lambda _: moment
        if snapshot is None:
            return self.read
        name = snapshot.take()
        stack.callback(self.own.drop_later, name)
        control = stack.enter_context(closing(open_control(self.own.address_of(name))))
        return lambda question: question(control)

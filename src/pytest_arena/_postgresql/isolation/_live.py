"""The live database, which tests use, and its subclass for ``undo``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeAlias, TypeVar

from pytest_arena._postgresql import _clone_sql as sql
from pytest_arena._postgresql._control import ControlFailure, open_control
from pytest_arena._postgresql.isolation._snapshots import Archive, RowsLost, Snapshot
from pytest_arena._product._control_lines import Reconnecting
from pytest_arena.errors import ArenaError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from pytest_arena._postgresql.registry import ServerRegistry
    from pytest_arena._product import Usage
    from pytest_arena._values import Address, TableRows

    Levels: TypeAlias = "Sequence[ServerLevel[Any]]"
    _Rows: TypeAlias = Sequence[tuple[object, ...]]

LiveT = TypeVar("LiveT", bound="LiveDatabase")
NEVER = -1  # no number of uses
READ_SETTINGS = {"lock_timeout": "500ms"}  # a test may hold locks on whole tables
_NOTHING: Archive = []
_MOST_MARKS_SHOWN = 3  # the most marks that a line of the summary names
_LOCK_NOT_AVAILABLE = "55P03"
_JOURNAL_UNREACHABLE = "the change journal cannot be asked"
# The seconds to wait for terminated backends. After that a copy replaces the database.
_PATIENCE = 1.0
_STEP = 0.002
_ROWS_KEPT = 50  # the most rows of a table that a report has of levels below a snapshot


@dataclass(frozen=True, slots=True)
class Restoration:
    """The result of leaving a level. If it has marks, nothing was undone."""

    was_changed: bool
    marks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Look:
    """The changes of a level, and the transactions that may change more."""

    is_changed: bool = False
    # Whether rows were committed, or marks exist. If not, a change is only of a sequence.
    has_rows: bool = False
    marks: tuple[str, ...] = ()
    # The pids of sessions inside a transaction that has written or is writing.
    writers: frozenset[int] = frozenset()
    prepared: tuple[str, ...] = ()  # transactions prepared for a second phase
    # Only with `clone`: a session has taken an advisory lock, which ends with the database. With
    # `undo` the gate closes such a connection.
    locks: bool = False


class LiveDatabase(ABC):
    """The database that tests use: a copy of a snapshot. Any thread may use this object.

    When a level is left, this class replaces the database by a new copy of the level's snapshot.
    The snapshot has all rows of the levels below. Subclasses restore the database in other ways.
    If a test ends pytest-arena's connections, pytest-arena opens them again.
    """

    isolation: ClassVar[str]  # as the configuration and markers name it

    def __init__(
        self, registry: ServerRegistry, uses: Usage, note: Callable[[str], None]
    ) -> None:
        self.registry = registry
        self.uses = uses
        self.note = note
        self.name = ""
        self.snapshot = Snapshot(registry, None)
        self.base = 0  # levels below this one are in the snapshot
        # The number of uses at which the top level had no changes.
        self.uses_when_clean = NEVER
        self.has_new_journal = False  # no snapshot has the journal yet
        self.kept_as: tuple[str, str] | None = None  # the name and title for `discard`
        self.is_lost = False
        # Kept open to read content: a new connection takes three times as long.
        self.reader = Reconnecting(
            lambda: open_control(self.address, READ_SETTINGS),
            self._note_lost_connection,
        )

    @property
    def address(self) -> Address:
        """The address of the database, with pytest-arena's login."""
        return self.registry.address_of(self.name)

    @property
    def may_have_changed(self) -> bool:
        """Whether a connection may have changed it, or no snapshot has its journal."""
        return self.has_new_journal or self.uses() != self.uses_when_clean

    def _note_lost_connection(self) -> None:
        self.is_lost = True
        self.clients_inside()  # this query waits until a restarted server answers

    def was_lost(self) -> bool:
        """Whether pytest-arena's connection was lost since the last call.

        Then the app has probably lost its connections, too.
        """
        was_lost = self.is_lost
        self.is_lost = False
        return was_lost

    def keep_later(self, name: str, title: str) -> str:
        """Keep the database for inspection when it is replaced. Return its later name."""
        if self.kept_as is None:
            self.kept_as = (name, title)
        return self.kept_as[0]

    def note_clean(self, uses: int) -> None:
        """Note the number of uses at which the top level had no changes, or `NEVER`."""
        self.uses_when_clean = uses

    def limit_base(self, depth: int) -> None:
        """Note that the levels above this depth have ended."""
        self.base = min(self.base, depth)

    def clients_inside(self) -> set[int]:
        """Return the pids of backends inside a transaction, which may have changed nothing."""
        rows = self.registry.control.rows(sql.clients_inside(self.name))
        return {int(pid) for (pid,) in rows}

    def end_clients(self) -> None:
        """End all connections to the database.

        Raises:
            ControlFailure: the server does not answer.
        """
        self.registry.control.rows(sql.end_backends(self.name))

    def end_client(self, pid: int, *, cancel: bool) -> bool:
        """Return False: only the server can end the client."""
        del pid, cancel
        return False

    def tables_with_policies(self, question: str) -> tuple[str, ...]:
        """Return the tables with policies, by a query that selects them."""
        with self.registry.reporting("the policies cannot be read"):
            rows = self.reader.call(lambda control: control.rows(question))
            return tuple(name for (name,) in rows)

    # Replace the database

    def replace_by_copy(
        self,
        snapshot: Snapshot,
        base: int = 0,
        number: int = 0,
        archive: Archive = _NOTHING,
    ) -> None:
        """Replace the database by a copy of a snapshot, and add the archived rows to the copy.

        The copy has the state of level ``number``. The snapshot has the levels below ``base``.

        Raises:
            RowsLost: the archived rows cannot be read, or do not fit. The database is not replaced.
            ArenaError: no copy can be made. The database is not replaced.
        """
        if isinstance(archive, RowsLost):
            raise archive
        is_first = not self.name
        before = self.state_before_copy()
        name = snapshot.copy() if is_first else snapshot.take()
        handle = self.open_copy(name, number, archive)
        if not is_first:
            self.discard()
        self.switch_to(name, snapshot, handle, before)
        self.base = base

    def take_snapshot(self, base: int) -> None:
        """Freeze the database as a snapshot, and give tests a copy. All connections end."""
        before = self.state_before_copy()
        frozen = self.name
        self._freeze()
        try:
            name = self.registry.create("live", template=frozen)
            handle = self.open_copy(name)
        except BaseException:
            self.registry.thaw(frozen)
            raise
        self.kept_as = None  # the test continues in the copy
        self.switch_to(
            name, Snapshot(self.registry, frozen, is_ours=True), handle, before
        )
        self.base = base

    def make_copy(self) -> str:
        """Copy the database. Return the name of the copy. All connections end."""
        self._freeze()
        try:
            return self.registry.create("live", template=self.name)
        finally:
            self.registry.thaw(self.name)

    def _freeze(self) -> None:
        self.release()
        self.registry.freeze(self.name)

    def state_before_copy(self) -> object:
        """Return the number of uses before the next copy. Every later use increases it."""
        return self.uses()

    @abstractmethod
    def open_copy(self, name: str, number: int = 0, rows: _Rows = ()) -> object:
        """Open a new copy, to which no other connection is open. Return what `switch_to` needs."""

    @abstractmethod
    def switch_to(
        self, name: str, snapshot: Snapshot, handle: Any, before: Any
    ) -> None:
        """Make an opened copy the live database."""

    def discard(self) -> None:
        """Drop the database, or keep it for inspection."""
        self.release()
        kept = self.kept_as
        self.kept_as = None
        if kept is None:
            self.registry.drop_later(self.name)
            return
        try:
            self.keep(self.name, kept[1], called=kept[0])
        except (ControlFailure, ArenaError) as error:
            self.note(f"{kept[1]}: not kept: {error}")
            self.registry.drop_later(self.name)

    def keep(self, name: str, title: str, *, called: str = "") -> str:
        """Keep a database for inspection. Return its name."""
        return self.registry.keep(name, title, called=called)

    def release(self) -> None:
        """Close pytest-arena's connections before the database is copied or dropped."""
        self.reader.close()

    # Levels

    def begin_level(self, number: int) -> None:
        """Begin a level on this database."""
        del number

    @property
    def is_copyable(self) -> bool:
        """Whether a copy has everything that was committed."""
        return True

    def check_replaceable(self, levels: Levels) -> None:
        """Check that a copy may replace the database when the top level ends.

        Raises:
            RowsLost: the copy would not have all rows of the levels below.
        """
        del levels

    def archive(self, levels: Levels) -> Archive:
        """Return the rows of the lower levels that the top level's snapshot does not have."""
        del levels
        return []

    def leave_after_clients_ended(self, number: int) -> bool:
        """Leave a level while its connections end. Return whether the level was restored."""
        del number
        return False

    def forget(self, levels: Levels, *, is_undone: bool) -> None:
        """Add the top level's changes to the level below. ``is_undone`` restores sequences."""
        del levels, is_undone

    def end_prepared(self, names: Sequence[str]) -> None:
        """Roll back prepared transactions, and report them in a line of the summary.

        A prepared transaction has no session. Its name is unique on the server.
        """
        reporting = self.registry.reporting("prepared transactions cannot be ended")
        with reporting, closing(open_control(self.address)) as control:
            for name in names:
                control.run(sql.rollback_prepared(name))
        shown = ", ".join(names)
        self.note(
            f"{self.isolation}: {{test}} has left prepared transactions, rolled back: {shown}"
        )

    def report_marks(self, marks: tuple[str, ...]) -> None:
        """Report why ``undo`` had to replace the database."""
        del marks

    def close_moments(self, *, are_over: bool) -> None:
        """Read the name of the last moment. With ``are_over``, drop the moment: its level ends."""
        del are_over


@dataclass(eq=False, slots=True)
class ServerLevel(Generic[LiveT]):
    """A level. The first level is the state before any level is entered.

    ``live`` restores the level's start in place, or by a copy of ``snapshot``. With ``undo``, the
    copy also gets the rows that lower levels from ``base`` on have written.
    """

    live: LiveT
    is_in_other_database: bool = False  # the level below has another database
    snapshot: Snapshot = field(init=False)
    base: int = field(init=False)
    start: Snapshot = field(init=False)  # not `snapshot` after `begin_with`
    is_written: bool = False  # the journal may have changes of this level
    needs_copy: bool = False  # it cannot be restored in place
    # The level above was left, but its start is not restored yet.
    unrestored: ServerLevel[LiveT] | None = None
    # Rows of the levels below that the live journal has lost.
    archive: Archive | None = None
    # Changes of this level that the live journal has lost.
    reported: list[TableRows] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.snapshot = self.start = self.live.snapshot
        self.base = self.live.base

    def begin_with(self, start: Snapshot, archive: Archive) -> None:
        """Begin with other content. ``archive`` has the rows of the levels below."""
        self.start = start
        self.archive = archive
        self.is_written = False
        self.reported = []

    def begin_in_snapshot(self) -> None:
        """Note that a new snapshot has the level's changes, so the journal of its copy is empty."""
        self.is_written = False

    def note_writes(self) -> None:
        """Note that the journal may have changes of the level."""
        self.is_written = True

    def keep_archive(self, archive: Archive) -> None:
        """Keep the rows of the levels below, which the live journal may lose."""
        self.archive = archive

    def keep_report(self, rows: list[TableRows]) -> None:
        """Keep the level's changes, which the live journal loses."""
        self.reported = rows

    def add(self, upper: ServerLevel[Any]) -> None:
        """Add the archive and the report of the level above, which becomes part of this level."""
        self.archive = self.archive or upper.archive
        self.reported = _joined(self.reported, upper.reported)

    def note_unrestored(self, level: ServerLevel[LiveT] | None) -> None:
        """Note a level that was left, but not restored yet. None: it is restored."""
        self.unrestored = level

    def require_copy(self) -> None:
        """Note that the level cannot be restored in place, for example because a check failed."""
        self.needs_copy = True

    @property
    def is_restorable_in_place(self) -> bool:
        """Whether the live database can be restored in place to the level's start."""
        is_same = self.archive is None and self.snapshot is self.live.snapshot
        is_given_up = self.live.kept_as or self.unrestored or self.needs_copy
        return is_same and not is_given_up


def _joined(first: Iterable[TableRows], second: Iterable[TableRows]) -> list[TableRows]:
    """Merge two lists of changes by table. A row of both lists is in the result twice."""
    joined: dict[tuple[str, tuple[str, ...]], TableRows] = {}
    for rows in (*first, *second):
        key = rows.table, rows.columns
        earlier = joined.get(key)
        if earlier is None:
            joined[key] = rows
            continue
        joined[key] = replace(
            rows,
            removed=earlier.removed + rows.removed,
            added=earlier.added + rows.added,
            more=earlier.more + rows.more,
        )
    return list(joined.values())

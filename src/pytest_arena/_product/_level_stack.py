"""The levels of a database: each is restored in place, or by a copy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pytest_arena._changes import Row, limited, net
from pytest_arena._product import Held, nothing
from pytest_arena._values import TableRows
from pytest_arena.errors import ArenaError, IsolationError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Future

    from pytest_arena._product._database_registry import DatabaseRegistry

_NEVER = -1  # no number of uses


@dataclass(frozen=True, slots=True, eq=False)
class Start:
    """The content at one time: a copy of ``base``, and what has changed since then.

    ``base`` is a frozen database, or the content of a file. ``state`` is what an ``Undo`` knows
    about the later changes.
    """

    base: Any
    state: Any = None


@dataclass(frozen=True, slots=True)
class NeedsCopy:
    """The answer of an ``Undo`` that cannot do it in place, after what ``reason`` names."""

    reason: str = ""


@dataclass(frozen=True, slots=True)
class Look:
    """The changes since a start, and the transactions that may change more."""

    is_changed: bool = False  # rows were committed, or a sequence has another value
    # Sessions inside a transaction that has written.
    writers: frozenset[int] = frozenset()

    @property
    def is_clean(self) -> bool:
        """Whether there is no change, and no transaction with changes."""
        return not (self.is_changed or self.writers)


class Undo(ABC):
    """A live database, and how its changes are undone.

    Each method may raise an ``ArenaError``: the server does not answer, or the file is lost.
    """

    @abstractmethod
    def begin_copy(self, base: Any) -> Start:
        """Return the start of this new copy of a base."""

    @abstractmethod
    def begin(self, now: Start) -> Start | NeedsCopy:
        """Return the present content as a start. ``now`` is the last known start.

        Raises:
            Held: another session holds a lock.
        """

    def restore(self, start: Start, *, is_in_use: bool) -> bool | NeedsCopy:
        """Undo what was committed since a start. Return whether there was a change.

        No level of the isolation ``clone`` needs it.

        Raises:
            Held: an open transaction has written. The database is unchanged.
        """
        raise NotImplementedError

    def carried(self, start: Start) -> object:
        """Return what a copy of a start's base needs, to have the content of the start."""
        del start
        return None

    def carry(self, start: Start, carried: Any) -> None:  # noqa: B027 - a default
        """Give a new copy of a start's base the content of the start."""

    @abstractmethod
    def look(self, start: Start) -> Look:
        """Return what has changed since a start."""

    @abstractmethod
    def moment(self, first: Start, *, exact: bool) -> object:
        """Return the present time for ``rows_changed``, None if that costs too much."""

    @abstractmethod
    def rows_changed(self, first: Any, last: Any, limit: int | None) -> list[TableRows]:
        """Return the committed changes between two starts or moments. None: until now."""


UndoT = TypeVar("UndoT", bound=Undo)


@dataclass(slots=True, eq=False)
class DatabaseLevel:
    """A level. It is restored by a copy if ``needs_copy``, or if it cannot be restored in place."""

    start: Start
    isolation: str
    first: Start  # the content with which the changes of the level are compared
    # Once known: what a copy of the base needs. The live database may lose it.
    carried: list[object] = field(default_factory=list)
    needs_copy: bool = False


class LevelStack(ABC, Generic[UndoT]):
    """The isolation of a database.

    A level is restored in place by the ``Undo`` of the live database. If that is impossible, a copy
    of the level's base replaces the database, with the changes that lower levels have made since
    the base. A level of isolation ``clone`` is always replaced if it has changed.

    If the changes of the level below cannot be carried into a copy, ``enter`` freezes a copy of the
    live database as a new base.

    If no connection has used the database since the last level, pytest-arena does not ask the
    server (``count_uses``).
    """

    live: UndoT

    def __init__(
        self,
        base: Any,
        isolation: str,
        *,
        uses: Callable[[], int],
        note: Callable[[str], None],
    ) -> None:
        self._count_uses = uses
        self._note = note
        self.check: Callable[[], object] = nothing
        self._frozen: set[Any] = set()  # this isolation drops them
        self.generation = 1
        # The level that was left last, if its start is not restored.
        self._unrestored: DatabaseLevel | None = None
        self.live = self._open(base)
        # The content at this number of uses.
        self._now = self.live.begin_copy(base)
        self._count_now = uses()
        self._last_moment: tuple[int, object] = (_NEVER, None)
        self._stack = [DatabaseLevel(self._now, isolation, self._now)]

    @abstractmethod
    def _open(self, base: Any) -> UndoT:
        """Open a new copy of a base, to which no other connection is open."""

    @abstractmethod
    def _template(self, content: Any) -> Any:
        """Return the base with a template's content, or an empty one."""

    def _freeze(self) -> Any:
        """Freeze the live database, or a copy of it, as a new base, if a start needs one."""
        raise NotImplementedError

    @abstractmethod
    def _discard(self, live: UndoT) -> None:
        """Drop a live database, or keep it for inspection."""

    @property
    def name(self) -> str:
        """The name of the isolation in use."""
        return self._stack[-1].isolation

    @property
    def depth(self) -> int:
        """The number of open levels."""
        return len(self._stack) - 1

    def note_lost_connection(self) -> None:
        """Note that the server has ended a connection. It has probably ended the app's, too."""
        self.generation += 1

    # Levels

    def enter(self, isolation: str = "") -> str:
        """Open a level above the current state. Return "": it has the isolation."""
        if self._unrestored is not None:
            self._finish(self._unrestored)
        count = self._count_uses()
        if count != self._count_now:
            start = self.live.begin(self._now)
            if isinstance(start, NeedsCopy):
                if self.writers():
                    raise Held
                count = self._count_uses()
                base = self._freeze()
                self._frozen.add(base)
                start = self.live.begin_copy(base)
            self._now = start
            self._count_now = count
        self._stack.append(DatabaseLevel(self._now, isolation or self.name, self._now))
        self._tidy()
        return ""

    def leave(self) -> bool:
        """Restore the state of the matching ``enter``. Return whether it had changed."""
        count = self._count_uses()
        was_changed = not self._is_unused(count) and self._restore(count)
        self.check()
        self._stack.pop()
        self._tidy()
        return was_changed

    def _is_unused(self, count: int) -> bool:
        """Whether no connection has used the database since the start of the top level."""
        level = self._stack[-1]
        return self._now is level.start and not level.needs_copy and count == self._count_now

    def _restore(self, count: int) -> bool:
        """Restore the start of the top level. Return whether there was a change."""
        level = self._stack[-1]
        is_in_use = self._count_uses() != count
        if level.needs_copy or level.isolation == "clone":
            look = self.live.look(level.first)
            if look.writers:
                raise Held
            if look.is_clean and not (level.needs_copy or is_in_use):
                return False
        else:
            answer = self.live.restore(level.start, is_in_use=is_in_use)
            if not isinstance(answer, NeedsCopy):
                self._now = level.start
                self._count_now = count
                return answer
            if answer.reason:
                self._note(
                    f"{{test}}: undo cannot restore a database after {answer.reason}. "
                    "A fresh copy replaced it, which takes longer"
                )
        self._move_to(level.start.base, level)
        return True

    def _keep_carried(self, level: DatabaseLevel) -> None:
        """Read what a copy with the start of a level needs, before the live database is dropped."""
        if level.carried:
            return
        try:
            level.carried.append(self.live.carried(level.start))
        except ArenaError as error:
            raise IsolationError(
                "rows that wide fixtures wrote are lost: the change journal cannot be read",
                why="the test's database had to be replaced, and only its journal had these rows",
                cause=f"{str(error).partition(chr(10))[0]}\n(for example, a test dropped its "
                "database)",
                fix='@pytest.mark.arena(isolation="clone")   # for a test that drops schemas',
            ) from error

    def _move_to(self, base: Any, level: DatabaseLevel | None = None) -> None:
        """Replace the live database by a copy of a base, with the start of a level in it."""
        if level is not None:
            self._keep_carried(level)
        self.generation += 1  # connections end, also if this fails
        count = self._count_uses()
        live = self._open(base)
        now = live.begin_copy(base)
        if level is not None:
            live.carry(level.start, level.carried[0])
            now = level.start
        old = self.live
        self.live = live
        self._now = now
        self._count_now = count
        self.generation += 1
        self._discard(old)

    def leave_by_force(self) -> None:
        """Restore the top level's start by a copy. The drop of the old one ends all connections."""
        level = self._stack.pop()
        # Ctrl-C may interrupt the restore. The next `enter` then restores the level.
        self._unrestored = level
        self._finish(level)

    def _finish(self, level: DatabaseLevel) -> None:
        """Restore the start of a level that was left by force."""
        try:
            self._move_to(level.start.base, level)
        except ArenaError:
            # The live database is lost. Later tests begin at least with the base.
            self._move_to(level.start.base)
            self._unrestored = None
            raise
        self._unrestored = None
        self._tidy()

    def forget(self) -> None:
        """Close the top level and keep its changes, but no other content."""
        if self._stack[-1].needs_copy:
            self.leave_by_force()
            return
        self._stack.pop()
        self._tidy()

    def replace(self, content: Any) -> None:
        """Replace the current state by a template's content, or by an empty database."""
        level = self._stack[-1]
        self._keep_carried(level)
        level.needs_copy = True
        self._move_to(self._template(content))
        level.first = self._now
        self._tidy()

    def _tidy(self) -> None:
        """Drop the frozen databases that no level needs."""
        self._last_moment = (_NEVER, None)
        used = {self._now.base}
        for level in self._stack:
            used |= {level.start.base, level.first.base}
        for base in self._frozen - used:
            base.drop()
        self._frozen &= used

    def close(self) -> None:
        """Drop the databases of this isolation, in the background."""
        self._discard(self.live)
        for base in self._frozen:
            base.drop()

    # Questions

    def is_clean(self) -> bool:
        """Whether nothing was changed in the top level, and no open transaction changes it."""
        if self._is_unused(self._count_uses()):
            return True
        return self.live.look(self._stack[-1].start).is_clean

    def writers(self) -> set[int]:
        """Return the live database's sessions inside a transaction with changes."""
        return set(self.live.look(self._stack[-1].first).writers)

    def moment(self, *, exact: bool = False) -> object:
        """Return a point in time for ``rows_changed``."""
        count = self._count_uses()
        if count == self._count_now:
            return self._now
        last_count, last = self._last_moment
        if last_count == count and (last is not None or not exact):
            return last
        moment = self.live.moment(self._stack[-1].first, exact=exact)
        self._last_moment = (count, moment)
        return moment

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
        if depth:
            since = None
            until = self._stack[number + 1].start
        if since is None:
            since = self._stack[number].first
        return self.live.rows_changed(since, until, limit)


# Frozen databases on a server, and the comparison of contents


@dataclass(frozen=True, slots=True)
class ReadTable:
    """The rows of a table."""

    columns: tuple[str, ...] = ()
    key: tuple[str, ...] = ()
    rows: Sequence[tuple[str, Row]] = ()  # each row after its text, which is compared


ReadContent = dict[str, ReadTable]


def compared(before: ReadContent, after: ReadContent, limit: int | None) -> list[TableRows]:
    """Return the net difference of two contents, by table.

    All rows of a created table count as added, all rows of a dropped table as removed. A row has
    None for a column that it lacks.
    """
    missing = ReadTable()
    changes = []
    for name in sorted({*before, *after}):
        rows = _changed_rows(name, before.get(name, missing), after.get(name, missing))
        if rows.removed or rows.added:
            changes.append(limited(rows, limit))
    return changes


def _changed_rows(name: str, before: ReadTable, after: ReadTable) -> TableRows:
    """Return the net difference of a table's rows. They may have other columns afterwards."""
    newest = after if after.columns else before
    dropped = [column for column in before.columns if column not in newest.columns]
    columns = (*newest.columns, *dropped)
    if before.columns == after.columns:
        removed, added = net(before.rows, after.rows)
    else:
        removed, added = net(_as(columns, before), _as(columns, after))
    return TableRows(name, columns, newest.key, removed=tuple(removed), added=tuple(added))


def _as(columns: tuple[str, ...], table: ReadTable) -> list[tuple[str, Row]]:
    """Return the rows with other columns, and with their ``repr`` as the compared text."""
    rows = []
    for _, values in table.rows:
        by_name = dict(zip(table.columns, values, strict=True))
        row = tuple(by_name.get(name) for name in columns)
        rows.append((repr(row), row))
    return rows


@dataclass(slots=True, eq=False)
class FrozenDatabase:
    """A frozen database, and a copy of it that is made ahead in the background.

    The second ``take`` starts the first copy ahead.
    """

    databases: DatabaseRegistry
    name: str | None
    is_ours: bool = False  # the isolation has frozen the database, and drops it
    # The state of the database, by which its copies are compared with later states.
    description: Any = None
    ahead: Future[str] | None = None
    is_taken: bool = False

    def take(self) -> str:
        """Return the name of a copy that was made ahead, or of a new copy."""
        name = ""
        if self.ahead is not None and not self.ahead.cancel():
            # If the copy ahead failed, the new copy raises the reason.
            with suppress(ArenaError):
                name = self.ahead.result()
        name = name or self.databases.create("live", template=self.name)
        if self.is_taken:
            self.ahead = self.databases.create_later(template=self.name)
        self.is_taken = True
        return name

    def drop(self) -> None:
        """Drop the database if ``is_ours``. A copy ahead ends with the run."""
        if self.ahead is not None:
            self.ahead.cancel()
        if self.is_ours and self.name:
            self.databases.drop_later(self.name)

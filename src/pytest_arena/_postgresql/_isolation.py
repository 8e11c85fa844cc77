"""The isolation of a database on PostgreSQL: its live database, and its levels."""

# ruff: noqa: S608 - texts are written by literal() alone

from __future__ import annotations

from collections import Counter
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_arena._postgresql._control import (
    WRITERS,
    ControlFailure,
    literal,
    open_control,
)
from pytest_arena._postgresql._journal import (
    INSTALLATION,
    ServerClock,
    State,
    ask_journal,
    entries_between,
    journal_control,
    rows_changed,
    why_no_undo,
)
from pytest_arena._postgresql._rollback import ALL_OR_NONE
from pytest_arena._postgresql._rows import read, read_content, read_rows
from pytest_arena._process import seconds
from pytest_arena._product import Held
from pytest_arena._product._level_stack import (
    FrozenDatabase,
    LevelStack,
    Look,
    NeedsCopy,
    Start,
    Undo,
    compared,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_arena._postgresql._server_registry import ServerRegistry
    from pytest_arena._product import Usage
    from pytest_arena._product._level_stack import ReadContent
    from pytest_arena._values import Address, TableRows


_MOST_MARKS_SHOWN = 3  # the most marks that a line of the summary names
_UNREADABLE = "the live database cannot be read"
_JOURNAL_UNREACHABLE = "the change journal cannot be asked"
_LOCKED = {"55P03", "40P01"}  # lock_not_available, deadlock_detected
# Half a page. Rows of several connections are read in the order of their inserts, as in a new
# database, only while these connections write into one page.
_MOST_BYTES = 4096
_AT_WORK = """
SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND state = 'active'
AND backend_type = 'client backend' AND pid <> pg_backend_pid()
"""
# Each transaction has a virtual id, also without a write.
_INSIDE = """
SELECT DISTINCT pid FROM pg_stat_activity JOIN pg_locks USING (pid) WHERE datname = {0}
AND backend_type = 'client backend' AND locktype = 'virtualxid' AND mode = 'ExclusiveLock'
AND pid <> pg_backend_pid()
"""


class ClockTime(NamedTuple):
    """A time of this process, after the start of a level."""

    first: Start
    seconds: float


class PostgreSQLDatabase(Undo):
    """A database that tests use. Any thread may use this object."""

    def __init__(self, registry: ServerRegistry, name: str) -> None:
        self.registry = registry
        self.name = name

    @property
    def address(self) -> Address:
        """The address of the database, with pytest-arena's login."""
        return self.registry.address_of(self.name)

    def prepare_to_freeze(self) -> None:
        """Prepare the database for a copy of it as a new base."""

    def release(self) -> None:
        """Close pytest-arena's connections before the database is copied or dropped."""


class JournaledDatabase(PostgreSQLDatabase):
    """A database in which triggers write each inserted and deleted row into a journal.

    An entry belongs to a level if the snapshot of the level's start does not show its transaction.
    A mark is an entry that names a change that only a copy undoes, for example of the schema. The
    journal finds open transactions that have written by their locks on it.

    If a test ends pytest-arena's connection, pytest-arena opens it again.
    """

    def __init__(self, registry: ServerRegistry, name: str, on_lost: Callable[[], None]) -> None:
        super().__init__(registry, name)
        self._journal = journal_control(self.address, on_lost)
        self._clock = ServerClock()
        self._written: Counter[str] = Counter()  # bytes since the last vacuum, by table
        with registry.reporting("a copy cannot be connected to"):
            self._journal.open()  # before the app can use all connections of the server
            self._clock.measure(self._journal, questions=5)

    def _rows(self, sql: str) -> list[tuple[Any, ...]]:
        with self.registry.reporting(_JOURNAL_UNREACHABLE):
            return self._journal.rows(sql)

    def begin_copy(self, base: FrozenDatabase) -> Start:
        """Return the start of a new copy, the same for each copy of a base."""
        if base.description is None:
            [state] = self._rows(
                "SELECT pg_current_snapshot()::text, pg_arena.taken()::text, "
                "pg_arena.numbers()::text, pg_arena.catalog()"
            )
            base.description = State(*state)
        return Start(base, base.description)

    def begin(self, now: Start) -> Start | NeedsCopy:
        """Return the present content as a start, unless there is a mark since the base.

        If nothing has changed since the base, its state is the start's. Cost: one round trip.
        """
        state: State = now.base.description
        answer = ask_journal(self._rows, "enter", state.snapshot, state.taken)
        if answer["marks"]:
            return NeedsCopy()
        if answer["taken"] is not None:
            state = State(answer["since"], answer["taken"], answer["numbers"], state.catalog)
        elif answer["has_rows"]:
            state = state._replace(snapshot=answer["since"])
        return Start(now.base, state)

    def restore(self, start: Start, *, is_in_use: bool) -> bool | NeedsCopy:
        """Undo what was committed since a start, in one transaction and one round trip.

        Rows and sequences are restored exactly. Without ORDER BY, a row that was changed or
        removed comes last.

        Raises:
            Held: an open transaction prevents it.
            ArenaError: the server does not answer.
        """
        # A running statement may have no lock yet, and would commit into the level below.
        if is_in_use and self._rows(_AT_WORK):
            raise Held(self.name)
        try:
            answer = ask_journal(self._journal.rows, "leave", *start.state)
        except ControlFailure as error:
            if error.code in _LOCKED:
                raise Held(self.name) from error
            return NeedsCopy(f"an error: {error.first_line}")
        if answer["marks"]:
            return NeedsCopy(", ".join(answer["marks"].split(", ")[:_MOST_MARKS_SHOWN]))
        self._written.update(answer["written"] or {})
        if max(self._written.values(), default=0) > _MOST_BYTES:
            names = ", ".join(["pg_arena.j", *self._written])
            self._written.clear()
            with suppress(ControlFailure):  # the level was left
                # A truncation waits five seconds for a transaction that has read the table.
                inside = self._journal.rows(_INSIDE.format("current_database()"))
                self._journal.run(f"VACUUM (TRUNCATE {not inside}) {names}")
        return bool(answer["was_changed"])

    def prepare_to_freeze(self) -> None:
        """Journal the tables of the changed schema, in the frozen database and its copies."""
        self._rows("SELECT pg_arena.watch_all()")

    def carried(self, start: Start) -> str | None:
        """Return the journal's entries between a base and a start, as JSON.

        Cost: the entries are in memory.
        """
        base: State = start.base.description
        if start.state is base:
            return None
        [(entries,)] = self._rows(
            "SELECT coalesce(json_agg(m), '[]')::text "
            f"FROM {entries_between(base.snapshot, start.state.snapshot)}"
        )
        return str(entries)

    def carry(self, start: Start, carried: str | None) -> None:
        """Redo the changes of the journal's entries."""
        if carried is None:
            return
        self._rows(
            "INSERT INTO pg_arena.j SELECT e.* "
            f"FROM json_populate_recordset(NULL::pg_arena.j, {literal(carried)}) e RETURNING 1"
        )
        base: State = start.base.description
        state: State = start.state
        values = map(literal, (base.snapshot, state.snapshot, state.taken, state.numbers))
        self._rows(f"SELECT pg_arena.redo({', '.join(values)})")

    def look(self, start: Start) -> Look:
        """Return what has changed since a start. Wait for no lock."""
        answer = ask_journal(self._rows, "look", start.state.snapshot, start.state.taken)
        return Look(answer["is_changed"], frozenset(answer["writers"]))

    def moment(self, first: Start, *, exact: bool) -> Start | ClockTime:
        """Return the present time, or with ``exact`` the present snapshot.

        A row belongs to the time at which it was written, or to the snapshot that shows its commit.
        Cost: a snapshot costs one round trip.
        """
        if not exact:
            return ClockTime(first, seconds())
        [(snapshot,)] = self._rows("SELECT pg_current_snapshot()::text")
        return Start(first.base, State(snapshot))

    def rows_changed(
        self, first: Start | ClockTime, last: Start | ClockTime | None, limit: int | None
    ) -> list[TableRows]:
        """Return the committed changes, from the journal.

        Raises:
            IsolationError: the server's clock has jumped since a moment.
        """
        with self.registry.reporting(_JOURNAL_UNREACHABLE):
            return self._journal.call(rows_changed, self._entries(first, last), limit)

    def _entries(self, first: Start | ClockTime, last: Start | ClockTime | None) -> str:
        """Return SQL for the entries of the journal between two times."""
        start = first.first if isinstance(first, ClockTime) else first
        end = last.state.snapshot if isinstance(last, Start) else ""
        entries = entries_between(start.state.snapshot, end)
        self._clock.measure(self._journal)  # it finds a jump
        for time, comparison in ((first, ">="), (last, "<")):
            if isinstance(time, ClockTime):
                entries += f" AND m.t {comparison} {self._clock.sql(time.seconds)}"
        return entries

    def release(self) -> None:
        """Close the journal's connection."""
        self._journal.close()


class ClonedDatabase(PostgreSQLDatabase):
    """A database without a journal: a copy replaces it after each level that has used it."""

    def begin_copy(self, base: FrozenDatabase) -> Start:
        """Return the start of a new copy."""
        return Start(base)

    def begin(self, now: Start) -> NeedsCopy:
        """Return that a database that was used has to be frozen."""
        del now
        return NeedsCopy()

    def look(self, start: Start) -> Look:
        """Return the open transactions. The database may have changed, as it was used."""
        del start
        question = WRITERS.format(literal(self.name))
        with self.registry.reporting(_UNREADABLE):
            writers = {pid for (pid,) in self.registry.control.rows(question)}
        return Look(is_changed=True, writers=frozenset(writers))

    def moment(self, first: Start, *, exact: bool) -> ReadContent | None:
        """Return None, or all rows with ``exact``. A database without a journal has no history."""
        del first
        if not exact:
            return None
        with self.registry.reporting(_UNREADABLE):
            return self._read(None)

    def rows_changed(self, first: Any, last: Any, limit: int | None) -> list[TableRows]:
        """Compare two contents. For a start, the content is a copy of its base."""
        with self.registry.reporting("the databases cannot be compared"):
            return compared(self._read(first), self._read(last), limit)

    def _read(self, time: ReadContent | Start | None) -> ReadContent:
        """Read a copy of a start's base, or the live database. A moment was read before."""
        if time is None:
            return read(self.address, read_rows)
        if not isinstance(time, Start):
            return time
        name = time.base.take()
        try:
            return read(self.registry.address_of(name), read_rows)
        finally:
            self.registry.drop_later(name)


_REMOVE_JOURNAL = "SET arena.undo = 1; DROP SCHEMA IF EXISTS pg_arena CASCADE"


class ServerIsolation(LevelStack[PostgreSQLDatabase]):
    """The isolation for databases on PostgreSQL: ``undo`` or ``clone``.

    ``undo`` has a change journal in each database. ``clone`` replaces each used database by a copy.

    Cost of enter and leave: nothing if no connection used the database.

    - ``undo``: two round trips and the time of the changes.
    - ``clone``: some round trips and new connections.
    """

    def __init__(
        self,
        registry: ServerRegistry,
        template: str | None,
        isolation: str,
        *,
        owner_script: Callable[[str | None], str],
        uses: Usage,
        note: Callable[[str], None],
    ) -> None:
        self._registry = registry
        self.has_journal = isolation == "undo"
        self._owner_script = owner_script
        self._templates: dict[str | None, FrozenDatabase] = {}
        # The name and the title of the live database, if it is kept for inspection.
        self._kept: tuple[str, str] | None = None
        super().__init__(self._template(template), isolation, uses=uses, note=note)

    def enter(self, isolation: str = "") -> str:
        """Open a level. Return why it cannot have an isolation, or ""."""
        reason = ""
        if isolation == "rollback":
            reason = ALL_OR_NONE
        elif isolation == "undo" and not self.has_journal:
            reason = why_no_undo(self._registry) or "arena_isolation = clone"
        return super().enter("" if reason else isolation) or reason

    def _template(self, content: str | None) -> FrozenDatabase:
        if content not in self._templates:
            scripts = [self._owner_script(content)]
            if self.has_journal:
                scripts.append(INSTALLATION)
            name = self._registry.derived(content, *scripts)
            self._templates[content] = FrozenDatabase(self._registry, name)
        return self._templates[content]

    @property
    def address(self) -> Address:
        """The address of the live database."""
        return self.live.address

    def _open(self, base: FrozenDatabase) -> PostgreSQLDatabase:
        name = base.take()
        if self.has_journal:
            return JournaledDatabase(self._registry, name, self.note_lost_connection)
        return ClonedDatabase(self._registry, name)

    def _freeze(self) -> FrozenDatabase:
        frozen = self.live.name
        self.generation += 1  # connections end, also if this fails
        self.live.prepare_to_freeze()
        self.live.release()
        self._registry.freeze(frozen)
        base = FrozenDatabase(self._registry, frozen, is_ours=True)
        self.live = self._open(base)
        self.generation += 1
        return base

    def _discard(self, live: PostgreSQLDatabase) -> None:
        live.release()
        kept = self._kept
        self._kept = None
        if kept is None:
            self._registry.drop_later(live.name)
        else:
            self._keep(live.name, *kept)

    # Keep

    def save(self, title: str) -> str:
        """Keep the current state for inspection, without its journal. Return the database's name.

        This keeps a copy. A copy would end the transaction of a session. If a transaction is open,
        the live database itself is kept when another database replaces it.
        """
        question = _INSIDE.format(literal(self.live.name))
        with self._registry.reporting("the database cannot be kept"):
            if self._kept is None and not self._registry.control.rows(question):
                self.generation += 1
                return self._keep(self._copy(), "", title)
        if self._kept is None:
            self._kept = (self._registry.names.new("kept"), title)
            self._stack[-1].needs_copy = True
        return self._kept[0]

    def _copy(self) -> str:
        self.live.release()
        self._registry.freeze(self.live.name)
        try:
            return self._registry.create("live", template=self.live.name)
        finally:
            self._registry.thaw(self.live.name)

    def _keep(self, database: str, name: str, title: str) -> str:
        address = self._registry.address_of(database)
        # A database with a journal can be inspected, too.
        with suppress(ControlFailure), closing(open_control(address)) as control:
            control.run(_REMOVE_JOURNAL)
        return self._registry.keep(database, title, called=name)

    def close(self) -> None:
        """Drop all databases and snapshots of this isolation, in the background."""
        super().close()
        for snapshot in self._templates.values():
            snapshot.drop()

    # Questions

    def end(self, pid: int, database: str, *, cancel: bool = False) -> None:
        """End a connection to a live or replaced database, or cancel only its statement."""
        session = f"pid = {pid} AND datname = {literal(database)}"
        with self._registry.reporting("a connection cannot be ended"):
            if cancel:
                question = f"SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE {session}"
                self._registry.control.rows(question)
            else:
                self._registry.end_sessions(session)

    def is_waiting(self, pid: int) -> bool:
        """Return whether a session waits for a lock."""
        question = f"SELECT 1 FROM pg_locks WHERE pid = {pid} AND NOT granted"
        with self._registry.reporting("a session cannot be looked at"):
            return bool(self._registry.control.rows(question))

    def content(self) -> dict[str, str]:
        """Return digests of the live database's current content."""
        with self._registry.reporting(_UNREADABLE):
            return read(self.address, read_content)

"""The live database, which tests use: with a change journal, or without one."""

# ruff: noqa: S608 - texts are written by literal() alone

from __future__ import annotations

from contextlib import ExitStack, closing, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from pytest_arena._postgresql import _clone_sql as sql
from pytest_arena._postgresql._control import (
    Control,
    ControlFailure,
    literal,
    open_control,
)
from pytest_arena._postgresql._journal import (
    State,
    ask_journal,
    open_journal,
    rows_changed,
)
from pytest_arena._postgresql._rows import read_digests, read_rows
from pytest_arena._product import held_by
from pytest_arena._product._control_lines import Reconnecting
from pytest_arena._product._levels import Look, NeedsCopy, Start, Undo
from pytest_arena._product._snapshots import ReadContent, compared

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_arena._postgresql._server_registry import ServerRegistry
    from pytest_arena._product._snapshots import FrozenDatabase
    from pytest_arena._values import Address, TableRows


_READ_SETTINGS = {"lock_timeout": "500ms"}  # a test may hold locks on whole tables
_MOST_MARKS_SHOWN = 3  # the most marks that a line of the summary names
_UNREADABLE = "the live database cannot be read"
_JOURNAL_UNREACHABLE = "the change journal cannot be asked"
_LOCKED = {"55P03", "40P01"}  # lock_not_available, deadlock_detected
# PostgreSQL scans so many bytes of dead entries fast. pytest-arena vacuums only a larger journal,
# because after a vacuum every session plans the statements of its triggers again.
_BYTES = 48 * 8192
_AT_WORK = """
SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND state = 'active'
AND backend_type = 'client backend' AND pid <> pg_backend_pid()
"""
_WRITERS = """
SELECT pid FROM pg_stat_activity WHERE datname = {0} AND backend_xid IS NOT NULL
AND backend_type = 'client backend' AND pid <> pg_backend_pid()
"""


class LiveDatabase(Undo):
    """A database that tests use. Any thread may use this object.

    If a test ends pytest-arena's connections, pytest-arena opens them again.
    """

    def __init__(
        self,
        registry: ServerRegistry,
        name: str,
        note: Callable[[str], None],
        on_lost: Callable[[], None],
    ) -> None:
        self.registry = registry
        self.name = name
        self.note = note
        self._on_lost = on_lost
        # Kept open to read content: a new connection takes three times as long.
        self.reader = Reconnecting(
            lambda: open_control(self.address, _READ_SETTINGS), self._note_lost
        )

    def _note_lost(self) -> None:
        self._on_lost()
        self.clients_inside()  # this query waits until a restarted server answers

    @property
    def address(self) -> Address:
        """The address of the database, with pytest-arena's login."""
        return self.registry.address_of(self.name)

    def prepare_to_freeze(self) -> None:
        """Prepare the database for a copy of it as a new base."""

    def clients_inside(self) -> set[int]:
        """Return the sessions inside a transaction, which may have changed nothing."""
        rows = self.registry.control.rows(sql.clients_inside(self.name))
        return {int(pid) for (pid,) in rows}

    def end_clients(self) -> None:
        """End all connections to the database."""
        self.registry.control.rows(sql.end_backends(self.name))

    def release(self) -> None:
        """Close pytest-arena's connections before the database is copied or dropped."""
        self.reader.close()


class JournaledDatabase(LiveDatabase):
    """A database in which triggers write each inserted and deleted row into a journal.

    An entry belongs to a level if the snapshot of the level's start does not show its transaction.
    A mark is an entry that names a change that only a copy undoes, for example of the schema. The
    journal finds open transactions that have written by their locks on it.
    """

    def __init__(
        self,
        registry: ServerRegistry,
        name: str,
        note: Callable[[str], None],
        on_lost: Callable[[], None],
    ) -> None:
        super().__init__(registry, name, note, on_lost)
        self._line = Reconnecting(lambda: open_journal(self.address), self._note_lost)
        with registry.reporting("a copy cannot be connected to"):
            self._line.opened()  # before the app can use all connections of the server

    def _ask(self, function: str, *arguments: str) -> dict[str, Any]:
        with self.registry.reporting(_JOURNAL_UNREACHABLE):
            return self._line.call(ask_journal, function, *arguments)

    def _rows(self, sql: str) -> list[tuple[Any, ...]]:
        with self.registry.reporting(_JOURNAL_UNREACHABLE):
            return self._line.call(Control.rows, sql)

    def begin_copy(self, base: FrozenDatabase) -> Start:
        """Return the start of a new copy, the same for each copy of a base."""
        if base.state is None:
            [state] = self._rows(
                "SELECT pg_current_snapshot()::text, pg_arena.taken()::text, "
                "pg_arena.numbers()::text"
            )
            base.state = State(*state)
        return Start(base, base.state)

    def begin(self, now: Start) -> Start | NeedsCopy:
        """Return the present content as a start, or the marks since the base.

        If nothing has changed since the base, its state is the start's. Cost: one round trip.
        """
        state: State = now.base.state
        answer = self._ask("enter", state.snapshot, state.taken)
        if answer["marks"]:
            return NeedsCopy(answer["marks"])
        if answer["taken"] is not None:
            state = State(answer["since"], answer["taken"], answer["numbers"])
        elif answer["has_rows"]:
            state = state._replace(snapshot=answer["since"])
        return Start(now.base, state)

    def restore(self, start: Start, *, is_in_use: bool) -> bool | NeedsCopy:
        """Undo what was committed since a start, in one transaction and one round trip.

        Rows and sequences are restored exactly. The physical order of rows may differ.

        Raises:
            Held: an open transaction prevents it.
            ArenaError: the server does not answer.
        """
        if is_in_use:
            # A running statement may have no lock yet, and would commit into the level below.
            at_work = {pid for (pid,) in self._rows(_AT_WORK)}
            if at_work:
                raise held_by(at_work, self.name)
        try:
            answer = self._line.call(ask_journal, "leave", *start.state)
        except ControlFailure as error:
            if error.sqlstate in _LOCKED:
                writers = self.look(start).writers or self.clients_inside()
                raise held_by(writers, self.name) from error
            if error.is_of_server:
                raise self.registry.failed(_JOURNAL_UNREACHABLE, error) from error
            return NeedsCopy(error.first_line)
        if answer["marks"]:
            return NeedsCopy(", ".join(answer["marks"].split(", ")[:_MOST_MARKS_SHOWN]))
        if answer["size"] > _BYTES:
            with suppress(ControlFailure):  # the level was left
                self._line.call(Control.run, "VACUUM pg_arena.j")
        return bool(answer["was_changed"])

    def prepare_to_freeze(self) -> None:
        """Journal the tables of the changed schema, in the frozen database and its copies."""
        self._rows("SELECT pg_arena.watch_all()")

    def carried(self, start: Start) -> str | None:
        """Return the journal's entries between a base and a start, as JSON.

        Cost: the entries are in memory.
        """
        base: State = start.base.state
        if start.state is base:
            return None
        [(entries,)] = self._rows(
            "SELECT coalesce(json_agg(s), '[]')::text "
            f"FROM pg_arena.since({literal(base.snapshot)}) s "
            f"WHERE pg_visible_in_snapshot(s.x, {literal(start.state.snapshot)})"
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
        values = ", ".join(map(literal, (start.base.state.snapshot, *start.state)))
        self._rows(f"SELECT pg_arena.redo({values})")

    def look(self, start: Start) -> Look:
        """Return what has changed since a start. Wait for no lock."""
        answer = self._ask("look", start.state.snapshot, start.state.taken)
        return Look(
            answer["has_rows"],
            has_moved=answer["has_moved"],
            writers=frozenset(answer["writers"]),
        )

    def moment(self, first: Start, *, exact: bool) -> Start:
        """Return the present time, without sequences. Cost: one round trip."""
        del exact
        with self.registry.reporting(_JOURNAL_UNREACHABLE):
            snapshot = self._line.call(
                Control.ask, "SELECT pg_current_snapshot()::text"
            )
        return Start(first.base, State(snapshot or ""))

    def rows_changed(
        self, first: Start, last: Start | None, limit: int | None
    ) -> list[TableRows]:
        """Return the committed changes, from the journal."""
        until = last.state.snapshot if last else ""
        with self.registry.reporting(_JOURNAL_UNREACHABLE):
            return self._line.call(rows_changed, first.state.snapshot, until, limit)

    def release(self) -> None:
        """Close the connections, including the journal's connection."""
        super().release()
        self._line.close()


class ClonedDatabase(LiveDatabase):
    """A database without a journal: a copy replaces it after each level that has used it."""

    def begin_copy(self, base: FrozenDatabase) -> Start:
        """Return the start of a new copy."""
        return Start(base)

    def begin(self, now: Start) -> NeedsCopy:
        """Return that a database that was used has to be frozen."""
        del now
        return NeedsCopy()

    def restore(self, start: Start, *, is_in_use: bool) -> NeedsCopy:
        """Return that only a copy restores the start."""
        del start, is_in_use
        return NeedsCopy()

    def look(self, start: Start) -> Look:
        """Return the open transactions. The database may have changed, as it was used."""
        del start
        question = _WRITERS.format(literal(self.name))
        with self.registry.reporting(_UNREADABLE):
            writers = {pid for (pid,) in self.registry.control.rows(question)}
        return Look(has_rows=True, writers=frozenset(writers))

    def moment(self, first: Start, *, exact: bool) -> ReadContent | None:
        """Return None, or all rows with ``exact``. A database without a journal has no history."""
        del first
        if not exact:
            return None
        with self.registry.reporting(_UNREADABLE):
            return self.reader.call(read_rows)

    def rows_changed(self, first: Any, last: Any, limit: int | None) -> list[TableRows]:
        """Compare two contents. For a start, the content is a copy of its base.

        The server computes a digest of each table. pytest-arena reads the rows of tables whose
        digests differ.
        """
        with (
            ExitStack() as stack,
            self.registry.reporting("the databases cannot be compared"),
        ):
            before = self._reader_of(first, stack)
            after = self._reader_of(last, stack)
            digests = before(read_digests)
            new = after(partial(read_rows, unlike=digests))
            old = before(partial(read_rows, unlike=new))
            return compared(old, new, limit=limit)

    def _reader_of(
        self, time: ReadContent | Start | None, stack: ExitStack
    ) -> Callable[[Callable[..., ReadContent]], ReadContent]:
        """Return a function that reads a moment, a copy of a start, or the live database."""
        if time is None:
            return self.reader.call
        if isinstance(time, ReadContent):
            return lambda _: time
        name = time.base.take()
        stack.callback(self.registry.drop_later, name)
        control = stack.enter_context(
            closing(open_control(self.registry.address_of(name)))
        )
        return lambda question: question(control)

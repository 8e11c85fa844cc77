"""Reads and undoes the change journal of one database, over a separate connection."""

# ruff: noqa: S608 - texts are written by literal() alone

from __future__ import annotations

from contextlib import suppress
from json import loads
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_arena._postgresql._control import ControlFailure, literal, open_control
from pytest_arena._postgresql.journal._row_changes import rows_changed

if TYPE_CHECKING:
    from pytest_arena._values import Address, TableRows

_LOCKED = {"55P03", "40P01"}  # lock_not_available, deadlock_detected
# PostgreSQL scans so many bytes of dead entries fast. pytest-arena vacuums only a larger journal,
# because after a vacuum every session plans the statements of its triggers again.
_BYTES = 48 * 8192
_SETTINGS = {
    "arena.undo": "1",
    # Foreign keys and the app's triggers have no effect while rows are restored.
    "session_replication_role": "replica",
    "row_security": "off",
    # The settings of images.
    "datestyle": "ISO,YMD",
    "intervalstyle": "postgres",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "timezone": "UTC",
    "lc_monetary": "C",
    # PostgreSQL plans each statement once, for few rows, so that it reads no whole table.
    "plan_cache_mode": "force_generic_plan",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_seqscan": "off",
    "jit": "off",
    "max_parallel_workers_per_gather": "0",
    # Shorter than deadlock_timeout, so that pytest-arena fails and not the app.
    "lock_timeout": "500ms",
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
    "synchronous_commit": "off",
}
_ANSWER = "AS SELECT row_to_json(a)::text FROM"
_PREPARED = (
    f"PREPARE enter(pg_snapshot, int8[]) {_ANSWER} pg_arena.enter($1, $2) a",
    f"PREPARE leave(pg_snapshot, int8[], int8[]) {_ANSWER} pg_arena.leave($1, $2, $3) a",
    f"PREPARE look(pg_snapshot, int8[]) {_ANSWER} pg_arena.look($1, $2) a",
)
_AT_WORK = """
SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND state = 'active'
AND backend_type = 'client backend' AND pid <> pg_backend_pid()
"""


class State(NamedTuple):
    """The content at one time: a snapshot of transactions, and the state of all sequences.

    ``taken`` has the last number that was taken of each sequence. ``numbers`` has all values, also
    of sequences of which no number was taken.
    """

    snapshot: str
    taken: str = "{}"
    numbers: str = "{}"


class JournalHeld(Exception):
    """An open transaction has written, or holds locks on rows that must be restored."""


class Journal:
    """The change journal of one live database.

    Triggers write each inserted and deleted row into the journal. An entry belongs to a level if
    the snapshot of the level's start does not show its transaction.

    A mark is a line that names a change that only a copy undoes, for example of the schema.

    Raises:
        ControlFailure: the server does not answer, or refuses the login or its settings.
    """

    def __init__(self, address: Address) -> None:
        self._most_bytes = _BYTES
        self._control = open_control(address, _SETTINGS)
        try:
            self._control.run("; ".join(_PREPARED))
        except BaseException:
            self._control.close()
            raise

    def _ask(self, name: str, *arguments: str) -> dict[str, Any]:
        values = ", ".join(map(literal, arguments))
        answer: dict[str, Any] = loads(
            self._control.ask(f"EXECUTE {name}({values})") or "{}"
        )
        return answer

    def state(self, base: State) -> tuple[State, str]:
        """Return the present state, and the marks since an earlier state.

        If nothing has changed since then, return the earlier state.
        """
        answer = self._ask("enter", base.snapshot, base.taken)
        state = base
        if answer["taken"] is not None:
            state = State(answer["since"], answer["taken"], answer["numbers"])
        elif answer["has_rows"]:
            state = State(answer["since"], base.taken, base.numbers)
        return state, answer["marks"] or ""

    def first_state(self) -> State:
        """Return the present state of a database that no other connection uses."""
        [state] = self._control.rows(
            "SELECT pg_current_snapshot()::text, pg_arena.taken()::text, pg_arena.numbers()::text"
        )
        return State(*state)

    def moment(self) -> State:
        """Return the present state without its sequences."""
        return State(self._control.ask("SELECT pg_current_snapshot()::text") or "")

    def undo(self, start: State) -> tuple[bool, str]:
        """Undo all committed changes since a state. Return whether there were any, and the marks.

        If there are marks, the journal has undone nothing.

        Raises:
            JournalHeld: an open transaction has written, or holds locks.
            ControlFailure: the server does not answer, or the journal contradicts the rows.
        """
        try:
            answer = self._ask("leave", *start)
        except ControlFailure as error:
            if error.sqlstate in _LOCKED:
                raise JournalHeld(error.first_line) from error
            raise
        self._vacuum(answer["size"] or 0)
        return answer["was_changed"], answer["marks"] or ""

    def _vacuum(self, size: int) -> None:
        if size <= self._most_bytes:
            return
        with suppress(ControlFailure):  # the level was left
            self._control.run("VACUUM pg_arena.j")
            # An old snapshot of a session may keep dead entries. A higher limit prevents a vacuum
            # in each level.
            [(left,)] = self._control.rows("SELECT pg_relation_size('pg_arena.j')")
            self._most_bytes = max(_BYTES, 2 * left)

    def rewind(self, start: State) -> None:
        """Restore the sequences of a state, and nothing else."""
        self._control.rows(
            f"SELECT pg_arena.rewind({literal(start.taken)}, {literal(start.numbers)})"
        )

    def look(self, start: State) -> tuple[bool, bool, set[int]]:
        """Return whether rows were committed since a state, whether sequences moved, and writers.

        Writers are the sessions inside a transaction that has written. The query waits for no lock.
        """
        answer = self._ask("look", start.snapshot, start.taken)
        return answer["has_rows"], answer["has_moved"], set(answer["writers"])

    def at_work(self) -> set[int]:
        """Return the sessions that run a statement now. Its writes may not be journaled yet."""
        return {pid for (pid,) in self._control.rows(_AT_WORK)}

    def watch_again(self) -> None:
        """Journal the tables of a changed schema."""
        self._control.rows("SELECT pg_arena.watch_all()")

    def entries(self, base: State, until: State) -> str:
        """Return the entries between two states, as JSON."""
        [(entries,)] = self._control.rows(
            "SELECT coalesce(json_agg(s), '[]')::text "
            f"FROM pg_arena.since({literal(base.snapshot)}) s "
            f"WHERE pg_visible_in_snapshot(s.x, {literal(until.snapshot)})"
        )
        return str(entries)

    def redo(self, base: State, start: State, entries: str) -> None:
        """Bring a copy of ``base`` to a later state, by the entries between them."""
        self._control.run(
            "INSERT INTO pg_arena.j SELECT e.* "
            f"FROM json_populate_recordset(NULL::pg_arena.j, {literal(entries)}) e; "
            f"SELECT pg_arena.redo({literal(base.snapshot)}, {literal(start.snapshot)}, "
            f"{literal(start.taken)}, {literal(start.numbers)})"
        )

    def rows_changed(
        self, first: State, last: State | None, limit: int | None
    ) -> list[TableRows]:
        """Return the net changes between two states, by table."""
        return rows_changed(
            self._control, first.snapshot, last.snapshot if last else "", limit
        )

    def close(self) -> None:
        """Close the connection. Idempotent, and never raises."""
        self._control.close()

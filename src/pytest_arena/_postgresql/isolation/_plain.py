"""The live database under ``clone``."""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from pytest_arena._postgresql._control import ControlFailure, literal, open_control
from pytest_arena._postgresql._rows import read_digests, read_rows
from pytest_arena._postgresql.isolation._live import (
    NEVER,
    LiveDatabase,
    Look,
    Restoration,
)
from pytest_arena._process import until
from pytest_arena._product import held_by
from pytest_arena._product._read_rows import ReadContent, compared

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from pytest_arena._postgresql._control import Control
    from pytest_arena._postgresql.isolation._live import Levels
    from pytest_arena._postgresql.isolation._snapshots import Snapshot
    from pytest_arena._postgresql.registry import ServerRegistry
    from pytest_arena._product import Usage
    from pytest_arena._values import TableRows

    _Reader: TypeAlias = Callable[[Callable[[Control], object]], Any]

# The open transactions are read first, then the horizon, which each commit moves. In the other
# order, both would miss a commit in between. Any role may read locks, but not backend_xid.
_OPEN = """
SELECT l.pid, l.transactionid::text FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'transactionid' AND l.mode = 'ExclusiveLock' AND l.granted
AND a.datname = {} AND a.backend_type <> 'autovacuum worker' AND l.pid <> pg_backend_pid()
"""
_HELD = """
SELECT 'lock ' || concat_ws(' ', l.pid, l.classid, l.objid, l.objsubid, l.mode)
FROM pg_locks l JOIN pg_database d ON d.oid = l.database
WHERE l.locktype = 'advisory' AND d.datname = {0}
UNION ALL SELECT 'prepared ' || gid FROM pg_prepared_xacts WHERE database = {0}
UNION ALL SELECT 'slot ' || slot_name FROM pg_replication_slots WHERE database = {0}
"""
_HORIZON = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text"
_XIDS = 2**32
# The most statements of pytest-arena that may have ended and are not counted yet. They come from a
# caller, from copies that are made ahead, and from drops.
_AT_ONCE = 10
# A background thread may copy or drop a database. Waiting for it costs less than replacing a
# database that has not changed.
_PATIENCE = 0.03
_STEP = 0.0003
# A digest of the values of all sequences: "" without sequences, NULL if the role may not read them.
# ``nextval`` takes 31 of 32 values without a transaction id and without a record in the log.
_SEQUENCES = """
SELECT CASE WHEN bool_and(v.can_read) IS NOT FALSE THEN coalesce(md5(string_agg(
    c.oid || ':' || coalesce(v.number, ''), ',' ORDER BY c.oid)), '') END
FROM pg_catalog.pg_class c CROSS JOIN LATERAL (SELECT
    has_sequence_privilege(c.oid, 'USAGE, SELECT') AS can_read,
    CASE WHEN has_sequence_privilege(c.oid, 'USAGE, SELECT')
    THEN pg_catalog.pg_sequence_last_value(c.oid)::text END AS number) v
WHERE c.relkind = 'S' AND c.relpersistence <> 't'
"""


@dataclass(frozen=True, slots=True)
class _Facts:
    """The open transactions of a database, and pytest-arena's statements, at one time."""

    horizon: int  # all transactions with a smaller id have ended or are `open`
    # Sessions of this database, each with the id of its open transaction.
    open: frozenset[tuple[int, int]] = frozenset()
    held: frozenset[str] = frozenset()  # advisory locks, prepared transactions, slots
    arenas_ids: int = 0  # the number of ids that pytest-arena has used since the mark
    writes: int = 0
    connects: int = 0

    @property
    def pids(self) -> frozenset[int]:
        """The sessions that are inside a transaction with changes."""
        return frozenset(pid for pid, _ in self.open)


class PlainDatabase(LiveDatabase):
    """``clone``: a copy of the snapshot replaces the database if a level has written.

    pytest-arena notices writes by the server's transaction ids, and subtracts the ids that it has
    used itself. It misses no write. On a server with other writers most levels count as changed.
    Sequences move without an id, so a second query compares them.
    """

    isolation = "clone"

    def __init__(
        self, registry: ServerRegistry, uses: Usage, note: Callable[[str], None]
    ) -> None:
        super().__init__(registry, uses, note)
        self._mark = _Facts(0)
        self._latest: _Facts | None = None  # the facts that showed a change

    def template(self, content: str | None) -> str | None:
        """Return the template unchanged."""
        return content

    def state_before_copy(self) -> Any:
        """Return the transaction ids before the copy. A copy that is made ahead uses ids, too."""
        mark = self._latest
        self._latest = None
        return mark or self._read_facts()

    def open_copy(self, name: str, number: int = 0, rows: object = ()) -> Any:
        """Do nothing: a copy needs no preparation."""

    def switch_to(
        self, name: str, snapshot: Snapshot, handle: Any, before: Any
    ) -> None:
        """Make a copy the live database. The ids before the copy are its mark."""
        del handle
        self.release()
        self.name = name
        self.snapshot = snapshot
        self._mark_at(
            _Facts(before.horizon, writes=before.writes, connects=before.connects),
            self.uses(),
        )
        if not snapshot.knows_sequences:
            snapshot.note_sequences(self._read_sequences())

    # Levels

    def needs_snapshot(self, levels: Levels) -> bool:
        """Return whether a level above needs a snapshot, because a transaction has written."""
        del levels
        return self._has_changed(with_locks=False)

    def leave(self, number: int) -> Restoration:
        """Return a mark if the level has written. Then a copy replaces the database."""
        del number
        was_changed = self._has_changed(with_locks=True)
        if was_changed and self._latest is not None:
            self._end_prepared_since_mark(self._latest)
        changed: tuple[str, ...] = ()
        if was_changed:
            changed = ("rows",)
        return Restoration(was_changed, changed)

    def _end_prepared_since_mark(self, facts: _Facts) -> None:
        """Roll back prepared transactions, which would prevent the later drop of the database."""
        names = []
        for lock in sorted(facts.held - self._mark.held):
            kind, _, name = lock.partition(" ")
            if kind == "prepared":
                names.append(name)
        if names:
            self.end_prepared(names)

    def _has_changed(self, *, with_locks: bool) -> bool:
        uses = self.uses()
        facts = self._facts()
        has_changed = not self._is_as_marked(facts)
        if with_locks:
            has_changed |= facts.held != self._mark.held
        if facts.open and (has_changed or with_locks):
            raise held_by(facts.pids, self.name)
        if has_changed:
            self._latest = facts
        else:
            self._mark_at(facts, uses)
        return has_changed

    def look(self, number: int) -> Look:
        """Compare the transaction ids, and find the open transactions."""
        del number
        facts = self._facts()
        is_changed = not self._is_as_marked(facts)
        held = facts.held != self._mark.held
        return Look(is_changed, is_changed, writers=facts.pids, locks=held)

    def _mark_at(self, facts: _Facts, uses: int) -> None:
        self._mark = facts
        # An open transaction may commit without another checkout.
        self.uses_when_clean = uses
        if facts.open:
            self.uses_when_clean = NEVER

    def _facts(self) -> _Facts:
        """Read the ids. Read them again while a statement of pytest-arena may explain new ids."""
        facts = _Facts(0)

        def are_explained() -> bool:
            nonlocal facts
            is_busy = self.registry.writes.is_under_way()
            facts = self._read_facts()
            is_busy |= self.registry.writes.is_under_way()
            return not is_busy or not 0 < self._unexplained(facts) <= _AT_ONCE

        until(are_explained, within=_PATIENCE, step=_STEP)
        return facts

    def _unexplained(self, facts: _Facts) -> int:
        """Return how many ids since the mark are neither open nor pytest-arena's."""
        used = facts.horizon - self._mark.horizon
        still_open = sum(
            (xid - self._mark.horizon) % _XIDS < used for _, xid in facts.open
        )
        return used - still_open - facts.arenas_ids

    def _read_facts(self) -> _Facts:
        writes = self.registry.writes
        control = self.registry.control
        # If a statement of pytest-arena has ended, its id is below the horizon. A later statement
        # has a larger id. A running statement is not counted.
        arenas_ids = writes.since(self._mark.writes)
        with self.registry.reporting("the live database's transactions cannot be read"):
            inside = control.rows(_OPEN.format(literal(self.name)))
            held = control.rows(_HELD.format(literal(self.name)))
            [(horizon,)] = control.rows(_HORIZON)
        return _Facts(
            horizon=int(horizon),
            open=frozenset((pid, int(xid)) for pid, xid in inside),
            held=frozenset(text for (text,) in held),
            arenas_ids=arenas_ids,
            writes=writes.mark(),
            connects=control.connects,
        )

    def _is_as_marked(self, facts: _Facts) -> bool:
        """Return whether nothing was committed since the mark.

        A transaction that was open at the mark may have committed if it has ended.
        """
        mark = self._mark
        sequences = self.snapshot.sequences
        if facts.connects != mark.connects or not mark.open <= facts.open:
            return False
        if sequences is None or self._unexplained(facts):
            return False
        return sequences == "" or self._read_sequences() == sequences

    def _read_sequences(self) -> str | None:
        try:
            [(digest,)] = self.reader.call(lambda control: control.rows(_SEQUENCES))
        except ControlFailure:
            return None
        if digest is None:
            return None
        return str(digest)

    # Rows, without a journal

    def moment(self, levels: Levels, *, exact: bool) -> ReadContent | None:
        """Return None, or all rows with ``exact``. A database without a journal has no history."""
        del levels
        if not exact:
            return None
        with self.registry.reporting("the live database cannot be read"):
            return self.reader.call(read_rows)

    def rows_changed(
        self,
        levels: Levels,
        number: int,
        moments: tuple[object, object],
        limit: int | None,
    ) -> list[TableRows]:
        """Compare the current rows with a copy of the level's start, or with a moment.

        The server computes a digest of each table. pytest-arena reads the rows of tables whose
        digests differ.
        """
        end = None
        last = moments[1]
        if number < len(levels) - 1:
            end = levels[number + 1].snapshot
            last = self.start_of(levels, number + 1) or last
        first = moments[0] or self.start_of(levels, number)
        with (
            ExitStack() as stack,
            self.registry.reporting("the databases cannot be compared"),
        ):
            before = self._reader_of(first, levels[number].start, stack)
            after = self._reader_of(last, end, stack)
            digests = before(read_digests)
            new = after(partial(read_rows, unlike=digests))
            old = before(partial(read_rows, unlike=new))
            return compared(old, new, limit=limit)

    def start_of(self, levels: Levels, number: int) -> ReadContent | None:
        """Return None: a level's snapshot has its rows."""
        del levels, number
        return None

    def _reader_of(
        self, moment: object, snapshot: Snapshot | None, stack: ExitStack
    ) -> _Reader:
        """Return a function that reads a moment, a copy of a snapshot, or the live database."""
        if isinstance(moment, ReadContent):
            return lambda _: moment
        if snapshot is None:
            return self.reader.call
        name = snapshot.take()
        stack.callback(self.registry.drop_later, name)
        control = stack.enter_context(
            closing(open_control(self.registry.address_of(name)))
        )
        return lambda question: question(control)

"""The change journal of a database on a server, over a separate connection."""

# ruff: noqa: S608 - the schema is one of our own two, texts are written by literal()

from __future__ import annotations

import json
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_arena._postgresql._control import ControlFailure, literal, open_control
from pytest_arena._postgresql.journal._capture import capture_new, install
from pytest_arena._postgresql.journal._functions import ALTERED, CRASHED, DROPPED
from pytest_arena._postgresql.journal._row_changes import Entries, rows_changed
from pytest_arena._postgresql.journal._state import state_at_start
from pytest_arena._postgresql.journal._tables import (
    JournalGap,
    find_schema,
)
from pytest_arena.errors import ArenaError, impossible

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_arena._values import Address, TableRows


_BUSY = "55P03"
_DEADLOCK = "40P01"
_UNDEFINED_TABLE = "42P01"
# So many bytes of dead entries are looked through in no time; more are given back, seldom: that
# makes every session plan anew what its triggers do.
_BYTES = 48 * 8192
_ANY_LEVEL = 2**31 - 1
_CARRIED_BYTES = 1_000_000
# With this a connection restores rows, while neither foreign keys nor the app's triggers act. Said
# by a statement: hosters that let their roles do so refuse it among the options of a login.
BE_REPLICA = "SET session_replication_role = replica"
# Plans are made once and for few rows: nothing is read whole but what has to be. With these goes
# the role `replica`, for the connection's whole life: to switch it has all statements planned anew.
_SETTINGS = {
    "arena.undo": "1",
    "plan_cache_mode": "force_generic_plan",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_material": "off",
    "enable_seqscan": "off",
    "jit": "off",
    "max_parallel_workers_per_gather": "0",
    "row_security": "off",
    "xmloption": "content",
    "work_mem": "64MB",
    # Shorter than deadlock_timeout: if one has to give way, it is not the app.
    "lock_timeout": "500ms",
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
    "default_transaction_deferrable": "off",
    "synchronous_commit": "off",
}


@dataclass(frozen=True, slots=True)
class Restoration:
    """The result of leaving a level. If there are marks, nothing was taken back."""

    was_changed: bool
    marks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Look:
    """The changes of a level, and the transactions that may change more."""

    is_changed: bool = False
    has_rows: bool = (
        False  # committed, or marks; sequences move whatever a transaction becomes
    )
    marks: tuple[str, ...] = ()
    # Pids of sessions inside a transaction that has written, or is at it.
    writers: frozenset[int] = frozenset()
    prepared: tuple[str, ...] = ()  # transactions prepared for a second phase
    locks: bool = False  # somebody holds an advisory lock


class ServerMoment:
    """A point in time. The server is asked for its name by the first who needs it.

    The name of a level's start is "".
    """

    __hash__ = None  # type: ignore[assignment]  # the name is read later

    def __init__(self, ask: Callable[[], str] | None) -> None:
        self._ask = ask
        self._lock = threading.Lock()
        self._name = None if ask else ""
        self.failure: ArenaError | None = None

    def __eq__(self, other: object) -> bool:
        if self is other or not isinstance(other, ServerMoment):
            return self is other
        return self._name is not None and self._name == other._name

    def settle(self) -> None:
        """Ask the server for the name, at the first call. Never raises."""
        with self._lock:
            ask = self._ask
            self._ask = None
            if ask is None:
                return
            try:
                self._name = ask()
            except ArenaError as error:
                self.failure = error

    def end(self) -> None:
        """Never ask for the name, because its level is about to be left."""
        with self._lock:
            self._ask = None

    @property
    def name(self) -> str:
        """The server's name of it: a snapshot of transactions.

        Raises:
            ArenaError: the server could not be asked.
        """
        self.settle()
        if self.failure is not None:
            raise self.failure
        if self._name is None:
            raise impossible("a moment is wanted whose level is gone")
        return self._name


class ServerJournal:
    """The change journal of one live database, over a connection of its own.

    Levels are numbered from 0, the database as it was copied. It keeps no count of them: each
    method is told which level it is about, and levels in which nothing was written may be passed
    over. Every method but ``install``, ``archive``, ``restore`` and ``rows_changed`` is one round
    trip; each may be said again after a connection was lost in it.

    A mark is a line that names a change which the journal cannot take back: of the schema, of a
    large object, or a crash of the server.

    Example::

        journal = ServerJournal(address)
        journal.enter(1)
        ...  # an app writes and commits
        assert journal.leave(1) == Left(was_changed=True)

    In a database without a journal there is only ``install`` to be called.

    Raises:
        Failed: the server is gone, or refuses the login or what it needs to undo.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self._most_bytes = _BYTES
        self._alterations = 0  # of the schema, of which the journal's triggers know
        self._missed: list[str] = []  # tables that they could not be given
        self._shape: str | None = None  # of the schema, when it was looked at last
        self._control = open_control(address, _SETTINGS)
        try:
            self._begin()
        except BaseException:
            self._control.close()
            raise

    def _begin(self) -> None:
        # The path is no option of the login: what that had without it is asked for by DEFAULT.
        self._control.run(f"{BE_REPLICA}; SET search_path = ''")
        self._schema = find_schema(self._control)
        if self._schema:
            self._use()

    def _use(self) -> None:
        schema = self._schema
        # What is needed to read images as they were written: libpq lets variables of the shell
        # decide on some of it, whatever is asked for when it connects. And what a database may have
        # for all its sessions, in versions that know it.
        self._control.rows(
            f"SELECT pg_catalog.set_config(c.name, c.value, false) FROM {schema}.canon c "
            "UNION ALL SELECT pg_catalog.set_config(n, '0', false) "
            "FROM unnest(ARRAY['idle_session_timeout', 'transaction_timeout']) n "
            "WHERE pg_catalog.current_setting(n, true) IS NOT NULL "
            f"UNION ALL SELECT {schema}.settle()::pg_catalog.text"
        )
        self._control.run(
            "DEALLOCATE ALL; "
            f"PREPARE enter(int) AS SELECT {_as_text(f'{schema}.enter($1)')}; "
            f"PREPARE leave(int) AS SELECT {_as_text(f'{schema}.leave($1)')}; "
            f"PREPARE rewind(int) AS SELECT {schema}.rewind($1)::pg_catalog.text; "
            f"PREPARE forget(int) AS SELECT {schema}.forget($1)::pg_catalog.text; "
            "PREPARE moment AS SELECT pg_catalog.pg_current_snapshot()::pg_catalog.text || ' ' || "
            f"{schema}.alterations(); "
            f"PREPARE at_work AS SELECT {_as_text(f'{schema}.at_work()')}"
        )

    # Levels

    def enter(self, level: int) -> tuple[str, ...]:
        """Open a level. Rows that were written since the last one belong to the level below.

        An open transaction belongs to the level in which it commits.

        Returns:
            Marks. If there are any, nothing was done.

        Raises:
            Failed: the server is gone.
        """
        try:
            found = _read(self._control.ask(f"EXECUTE enter({level})"))
        except ControlFailure as error:
            return self._marks_of(error)
        return self._tidied(found)

    def leave(self, level: int) -> Restoration:
        """Take back all committed changes of the top level, in one transaction.

        Rows and sequences are restored exactly, the physical order of rows is not.

        Raises:
            Failed: somebody has written and not committed, or holds locks on rows that have to be
                changed (``55P03``; nobody is waited for but holders of row locks, half a second);
                or the server is gone.
        """
        try:
            found = _read(self._control.ask(f"EXECUTE leave({level})"))
        except ControlFailure as error:
            return Restoration(was_changed=True, marks=self._marks_of(error))
        return Restoration(was_changed=bool(found), marks=self._tidied(found))

    def _marks_of(self, error: ControlFailure) -> tuple[str, ...]:
        """Return marks for an error of the journal. Raise errors of locks and of the server."""
        if error.sqlstate in {_BUSY, _DEADLOCK}:
            raise ControlFailure(
                f"{error.first_line}: {self._whose()}", _BUSY
            ) from error
        if error.is_elsewhere:
            raise error
        with suppress(ControlFailure):
            if marks := self._control.rows(
                f"SELECT DISTINCT what FROM {self._schema}.ddl"
            ):
                return tuple(mark for (mark,) in marks)
        if error.sqlstate == _UNDEFINED_TABLE:
            return (f"{DROPPED} ({error.first_line})",)
        return (error.first_line,)

    def _whose(self) -> str:
        found = self._control.rows(_holders(self._schema))
        return (
            ", ".join(line for (line,) in found) or "somebody holds locks on its rows"
        )

    def _tidied(self, found: list[str]) -> tuple[str, ...]:
        """Return the marks of an answer. Vacuum a journal that has grown."""
        size, *marks = found or ("0",)
        if int(size) > self._most_bytes:
            with suppress(ControlFailure):  # what was asked for is done
                self._control.run(f"VACUUM {self._schema}.j, {self._schema}.jold")
                # Somebody's old snapshot may keep the dead entries: not to be tried each time then.
                [(left,)] = self._control.rows(f"SELECT {self._schema}.size()")
                self._most_bytes = max(_BYTES, 2 * left)
        return tuple(marks)

    def rewind(self, level: int) -> None:
        """Restore the sequences of the top level's start, and nothing else.

        This waits for no transaction's lock. A session that has cached numbers of a sequence
        continues with them.

        Raises:
            Failed: the server is gone.
        """
        self._control.ask(f"EXECUTE rewind({level})")

    def forget(self, level: int) -> None:
        """Close the top level. Its changes belong to the level below.

        Raises:
            Failed: the server is gone.
        """
        self._control.ask(f"EXECUTE forget({level})")

    # Questions

    def look(self, level: int | None = None) -> Look:
        """Tell whether anything was committed in the top level, and who is about to.

        Without its ``level``, that is since a level was last entered or left. No lock is taken, and
        nothing is waited for.

        Raises:
            Failed: the server is gone.
        """
        of = f"{_ANY_LEVEL}, NULL" if level is None else f"{level}, {level}"
        [(is_changed, has_rows, marks, writers, prepared, locks)] = self._control.rows(
            f"SELECT * FROM {self._schema}.look({of})"
        )
        return Look(
            is_changed,
            has_rows,
            tuple(marks),
            frozenset(writers),
            tuple(prepared),
            locks,
        )

    def at_work(self) -> frozenset[int]:
        """Return the sessions that run a statement now, whose writes are not journaled yet.

        Raises:
            Failed: the server is gone.
        """
        return frozenset(map(int, _read(self._control.ask("EXECUTE at_work"))))

    def moment(self) -> str:
        """Return a point in time for ``rows_changed``.

        If the schema was changed since the last moment, pytest-arena journals new tables from here
        on, and their rows as inserts. That costs some round trips, and 1 to 2 ms for each table. A
        table that a session writes to is tried again at the next moment, and gets a mark.

        Raises:
            Failed: the server is gone.
        """
        moment, _, alterations = str(self._control.ask("EXECUTE moment")).partition(" ")
        if int(alterations) != self._alterations:
            self._know_new_tables(int(alterations))
            moment = str(self._control.ask("EXECUTE moment")).partition(" ")[0]
        return moment

    def _know_new_tables(self, alterations: int) -> None:
        """Journal changes of the tables that were made in the level."""
        before = self._missed
        self._missed = capture_new(self._control, self._schema)
        # What comes late is told as if it had come now: in both moments there is a word of it.
        for table in {*before, *self._missed}:
            self._note(f"not all rows of {table} are told: it could not be locked")
        if not self._missed:
            self._alterations = alterations

    def note_schema(self, level: int) -> None:
        """Write a mark where the schema was changed, since this was asked for or the level's start.

        Where there are event triggers, these have done so. Cost: two round trips, and some ms
        without event triggers.

        Raises:
            Failed: the server is gone.
        """
        self.moment()  # has triggers made, which change it as well
        shapes = (
            f"SELECT {self._schema}.shape(), was.shape "
            f"FROM ({state_at_start(self._schema, str(level))}) was"
        )
        for now, at_start in self._control.rows(shapes):
            before = self._shape
            self._shape = now
            if now != (at_start if before is None else before):
                self._note(ALTERED)

    def _note(self, mark: str) -> None:
        self._control.run(f"INSERT INTO {self._schema}.ddl VALUES ({literal(mark)})")

    def rows_changed(
        self,
        *,
        level: int,
        since: str = "",
        until: str = "",
        limit: int | None = None,
        is_top: bool = False,
    ) -> list[TableRows]:
        """Return the rows that have gone and come, committed and net.

        Of the top level (``is_top``) between two moments, by default from its start to now; of one
        below, what was written in it itself before the next was entered. ``limit`` is how many rows
        of a table are given at most. Works where there are marks, too.

        Marks are told as rows of "the schema".

        Cost: four round trips, and another for each table that has changed.

        Raises:
            ControlFailure: the journal or the server is gone.
        """
        if is_top and not until:  # else a moment has done it
            self.note_schema(level)
        entries = Entries(self._schema, level, is_top, since, until)
        return rows_changed(self._control, entries, limit)

    # From one database to another

    def archive(self, below: int) -> list[tuple[Any, ...]]:
        """Return all that was written in the levels below one, to be carried into another database.

        Cost: what it returns stands in memory.

        Raises:
            Failed: the server has crashed and has emptied the journal; or a level below has made
                large objects, or changed the database's settings or schema (``0A000``), which
                cannot be carried.
        """
        states, kinds = self._control.rows(
            "SELECT count(*), count(DISTINCT (a.objects, a.settings, a.shape)) "
            f"FROM {self._schema}.state a WHERE a.level <= {below}"
        )[0]
        if not states:
            raise ControlFailure(CRASHED, "0A000")
        if kinds > 1:
            raise ControlFailure(
                "a wide level has made large objects, or changed settings or schema",
                "0A000",
            )
        archived = _ARCHIVED.format(s=self._schema, below=below, bytes=_CARRIED_BYTES)
        return self._control.rows(archived)

    def restore(self, archived: list[tuple[Any, ...]], level: int) -> None:
        """Bring a fresh copy of the template to where a level began.

        Raises:
            Failed: what was archived does not fit the copy, or the server is gone. The copy is not
                to be used then.
        """
        for table, rows in archived:
            insert = _RESTORED[table]
            text = insert.format(
                s=self._schema, table=table, rows=literal(rows), level=level
            )
            self._control.run(text)
        self._control.run(f"SELECT {self._schema}.redo({level})")

    # The journal itself

    def install(self) -> list[JournalGap]:
        """Install it, also after the schema was changed: what stands now is the start of level 0.

        Returns:
            What it cannot see or undo. Where one of them is fatal, nothing was done.

        Raises:
            Failed: somebody holds a table, or the server is gone.
        """
        found = install(self._address)
        if not any(one.is_fatal for one in found):
            self._schema = find_schema(self._control)
            self._missed = []
            self._alterations = 0
            self._shape = None
            self._use()
        return found

    def close(self) -> None:
        """Close the connection. Idempotent; never raises."""
        self._control.close()


def _as_text(answer: str) -> str:
    return f"pg_catalog.array_to_json({answer})::pg_catalog.text"


def _read(answer: str | None) -> list[str]:
    """Read what came of entering or leaving: nothing, or the journal's size and then marks."""
    found: list[str] = json.loads(answer) if answer is not None else []
    return found


def _holders(schema: str) -> str:
    """Ask who is in the way, in words: first who has written, then who may have locked rows."""
    here = "(SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())"
    return f"""
        SELECT 'inside a transaction with changes: backend ' || h.pid FROM (
            SELECT DISTINCT l.pid FROM pg_catalog.pg_locks l
            WHERE l.relation IN ('{schema}.j'::regclass, '{schema}.ddl'::regclass)
            AND l.database = {here} AND l.pid <> pg_catalog.pg_backend_pid() AND l.granted) h
        UNION ALL
        SELECT 'a prepared transaction: ' || p.gid FROM pg_catalog.pg_prepared_xacts p
        WHERE p.database = current_database()
        UNION ALL
        SELECT 'inside a transaction: backend ' || a.pid FROM pg_catalog.pg_stat_activity a
        WHERE a.datname = current_database() AND a.state ~ '^idle in transaction'
    """


# The large one comes in parts, which fit into memory here and there.
_ARCHIVED = """
SELECT 'state', json_agg(a)::text FROM {s}.state a WHERE a.level BETWEEN 1 AND {below}
HAVING count(*) > 0
UNION ALL
SELECT 'filled', json_agg(f)::text FROM {s}.filled f WHERE f.level < {below} HAVING count(*) > 0
UNION ALL
SELECT 'jold', json_agg(p.entry)::text FROM (
    SELECT o AS entry, sum(octet_length(o.r)) OVER (ROWS UNBOUNDED PRECEDING) / {bytes} AS part
    FROM {s}.jold o WHERE o.level < {below}) p
GROUP BY p.part
"""
# A level began with its state, and had no rows then. The copy has the other parts of a state
# already.
_RESTORED = {
    "state": """
INSERT INTO {s}.state
SELECT a.level, a.number, a.called, own.objects, own.settings, own.shape
FROM json_populate_recordset(NULL::{s}.state, {rows}) a, {s}.state own
WHERE own.level = 0 AND a.level <= {level}
ON CONFLICT (level) DO UPDATE SET number = excluded.number, called = excluded.called
""",
    **dict.fromkeys(
        ("filled", "jold"),
        "INSERT INTO {s}.{table} SELECT a.* "
        "FROM json_populate_recordset(NULL::{s}.{table}, {rows}) a WHERE a.level < {level}",
    ),
}

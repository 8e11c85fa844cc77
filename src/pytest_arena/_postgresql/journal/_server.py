"""Reads and undoes the journal over a separate connection."""

# ruff: noqa: S608 - the schema is one of the journal's two, texts are written by literal()

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import dataclass
from json import loads
from typing import TYPE_CHECKING, Any

from pytest_arena._postgresql._control import ControlFailure, literal, open_control
from pytest_arena._postgresql.journal._capture import capture_new, install
from pytest_arena._postgresql.journal._functions import ALTERED, CRASHED, DROPPED
from pytest_arena._postgresql.journal._row_changes import Entries, rows_changed
from pytest_arena._postgresql.journal._state import state_at_start
from pytest_arena._postgresql.journal._tables import (
    APPS_OWN,
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
# PostgreSQL scans so many bytes of dead entries fast. pytest-arena vacuums only a larger journal,
# because after a vacuum every session plans the statements of its triggers again.
_BYTES = 48 * 8192
_ANY_LEVEL = 2**31 - 1
_CARRIED_BYTES = 1_000_000
# With this setting foreign keys and the app's triggers have no effect while rows are restored. It
# is a statement, because some hosts refuse the setting as an option of a login.
BE_REPLICA = "SET session_replication_role = replica"
# PostgreSQL plans each statement once, for few rows, so that it reads no whole table without need.
# The connection keeps these settings, because a change of `replica` invalidates all plans.
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
    "array_nulls": "on",
    "work_mem": "64MB",
    # Shorter than deadlock_timeout, so that pytest-arena fails and not the app.
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


class ServerMoment:
    """A point in time. pytest-arena reads its name from the server at the first use.

    The name of a level's start is "".
    """

    __hash__ = None  # type: ignore[assignment]  # the name is read later

    def __init__(self, read_name: Callable[[], str] | None) -> None:
        self._read_name = read_name
        self._lock = threading.Lock()
        self._name = None if read_name else ""
        self.failure: ArenaError | None = None

    def __eq__(self, other: object) -> bool:
        if self is other or not isinstance(other, ServerMoment):
            return self is other
        return self._name is not None and self._name == other._name

    def settle(self) -> None:
        """Read the name from the server, at the first call. Never raises."""
        with self._lock:
            read_name = self._read_name
            self._read_name = None
            if read_name is None:
                return
            try:
                self._name = read_name()
            except ArenaError as error:
                self.failure = error

    def end(self) -> None:
        """Never read the name, because the level is about to be left."""
        with self._lock:
            self._read_name = None

    @property
    def name(self) -> str:
        """The server's name for the moment: a snapshot of transactions.

        Raises:
            ArenaError: the server did not answer.
        """
        self.settle()
        if self.failure is not None:
            raise self.failure
        if self._name is None:
            raise impossible("a moment is read after its level was left")
        return self._name


class ServerJournal:
    """The change journal of one live database, over a separate connection.

    Level 0 is the state of the copy before any change. The journal does not count levels. Each
    method gets the number of a level, and callers may skip levels without changes. Every method
    except ``install``, ``archive``, ``restore`` and ``rows_changed`` is one round trip. After a
    lost connection a caller may repeat each method.

    A mark is a line that names a change that the journal cannot undo: of the schema, of a large
    object, or a crash of the server.

    Example::

        journal = ServerJournal(address)
        journal.enter(1)
        ...  # an app writes and commits
        assert journal.leave(1) == Restoration(was_changed=True)

    In a database without a journal only ``install`` may be called.

    Raises:
        ControlFailure: the server does not answer, or refuses the login or its settings.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self._most_bytes = _BYTES
        self._alterations = 0  # at the last moment
        self._missed: list[str] = []  # tables that could not get triggers
        self._shape: str | None = None  # of the schema, at the last call of note_schema
        self._control = open_control(address, _SETTINGS)
        try:
            self._begin()
        except BaseException:
            self._control.close()
            raise

    def _begin(self) -> None:
        # Not an option of the login, because LIKE_THE_APP needs the login's DEFAULT.
        self._control.run(f"{BE_REPLICA}; SET search_path = ''")
        self._schema = find_schema(self._control)
        if self._schema:
            self._use()

    def _use(self) -> None:
        schema = self._schema
        # The query sets the settings of images again, because libpq takes some of them from the
        # environment. Then it switches off timeouts that the database may have for all sessions, if
        # this version of PostgreSQL has them.
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
        """Open a level. Earlier changes belong to the level below.

        An open transaction belongs to the level in which it commits.

        Returns:
            The marks. If the journal has marks, no level was opened.

        Raises:
            ControlFailure: the server does not answer.
        """
        try:
            answer = _parse(self._control.ask(f"EXECUTE enter({level})"))
        except ControlFailure as error:
            return self._marks_of(error)
        return self._vacuumed(answer)

    def leave(self, level: int) -> Restoration:
        """Undo all committed changes of the top level, in one transaction.

        Rows and sequences are restored exactly. The physical order of rows may differ.

        Raises:
            ControlFailure: an open transaction has written, or holds locks on rows that must be
                changed (``55P03``). The journal waits half a second for row locks, and does not
                wait for other locks. Or the server does not answer.
        """
        try:
            answer = _parse(self._control.ask(f"EXECUTE leave({level})"))
        except ControlFailure as error:
            return Restoration(was_changed=True, marks=self._marks_of(error))
        return Restoration(was_changed=bool(answer), marks=self._vacuumed(answer))

    def _marks_of(self, error: ControlFailure) -> tuple[str, ...]:
        """Return marks for an error of the journal. Raise errors of locks and of the server."""
        if error.sqlstate in {_BUSY, _DEADLOCK}:
            raise ControlFailure(
                f"{error.first_line}: {self._holders()}", _BUSY
            ) from error
        if error.is_of_server:
            raise error
        with suppress(ControlFailure):
            marks = self._control.rows(f"SELECT DISTINCT what FROM {self._schema}.ddl")
            if marks:
                return tuple(mark for (mark,) in marks)
        if error.sqlstate == _UNDEFINED_TABLE:
            return (f"{DROPPED} ({error.first_line})",)
        return (error.first_line,)

    def with_table_names(self, marks: tuple[str, ...]) -> tuple[str, ...]:
        """Return the marks with the names of changed tables that no event trigger has recorded.

        Raises:
            ControlFailure: the server does not answer.
        """
        if ALTERED not in marks:
            return marks
        changed = self._control.rows(_altered_tables(self._schema))
        if not changed:
            return marks
        (first,), *others = changed
        rest = tuple(mark for mark in marks if mark != ALTERED)
        return f"{ALTERED}: {first}", *(name for (name,) in others), *rest

    def _holders(self) -> str:
        rows = self._control.rows(_HOLDERS.format(schema=self._schema))
        if not rows:
            return "a session holds locks on its rows"
        return ", ".join(line for (line,) in rows)

    def _vacuumed(self, answer: list[str]) -> tuple[str, ...]:
        """Return the marks of an answer. Vacuum a journal that has grown."""
        size, *marks = answer or ("0",)
        if int(size) > self._most_bytes:
            with suppress(ControlFailure):  # the level was entered or left
                self._control.run(f"VACUUM {self._schema}.j, {self._schema}.jold")
                # An old snapshot of a session may keep dead entries. A higher limit prevents a
                # vacuum in each level.
                [(left,)] = self._control.rows(f"SELECT {self._schema}.size()")
                self._most_bytes = max(_BYTES, 2 * left)
        return tuple(marks)

    def rewind(self, level: int) -> None:
        """Restore the sequences of the top level's start, and nothing else.

        It does not wait for locks of transactions. If a session has cached values of a sequence, it
        continues with these values.

        Raises:
            ControlFailure: the server does not answer.
        """
        self._control.ask(f"EXECUTE rewind({level})")

    def forget(self, level: int) -> None:
        """Close the top level. Its changes belong to the level below.

        Raises:
            ControlFailure: the server does not answer.
        """
        self._control.ask(f"EXECUTE forget({level})")

    # Questions

    def look(self, level: int | None = None) -> Look:
        """Return the committed changes of the top level, and the open transactions.

        Without ``level``, return the changes since a level was last entered or left. The query
        takes no lock and waits for no lock.

        Raises:
            ControlFailure: the server does not answer.
        """
        arguments = f"{_ANY_LEVEL}, NULL"
        if level is not None:
            arguments = f"{level}, {level}"
        [(is_changed, has_rows, marks, writers, prepared)] = self._control.rows(
            f"SELECT * FROM {self._schema}.look({arguments})"
        )
        return Look(
            is_changed,
            has_rows,
            tuple(marks),
            frozenset(writers),
            tuple(prepared),
        )

    def at_work(self) -> frozenset[int]:
        """Return the sessions that run a statement now. Its writes may not be journaled yet.

        Raises:
            ControlFailure: the server does not answer.
        """
        return frozenset(map(int, _parse(self._control.ask("EXECUTE at_work"))))

    def moment(self) -> str:
        """Return a point in time for ``rows_changed``.

        If the schema was changed since the last moment, pytest-arena journals new tables from here
        on, and their rows as inserts. That costs some round trips, and 1 to 2 ms for each table. If
        a session is writing to a new table, the table gets a mark, and the next moment tries again.

        Raises:
            ControlFailure: the server does not answer.
        """
        moment, _, alterations = str(self._control.ask("EXECUTE moment")).partition(" ")
        if int(alterations) != self._alterations:
            self._journal_new_tables(int(alterations))
            moment = str(self._control.ask("EXECUTE moment")).partition(" ")[0]
        return moment

    def _journal_new_tables(self, alterations: int) -> None:
        """Journal changes of the tables that were created in the level."""
        before = self._missed
        self._missed = capture_new(self._control, self._schema)
        # Rows of a missed table are journaled at a later moment than they were written. Both
        # moments get a mark.
        for table in {*before, *self._missed}:
            self._note(
                f"some rows of {table} are not listed, because it could not be locked"
            )
        if not self._missed:
            self._alterations = alterations

    def note_schema(self, level: int) -> None:
        """Write a mark if the schema has changed since the last call or the level's start.

        Event triggers write such marks themselves. Cost: two round trips, and some ms if no event
        triggers are installed.

        Raises:
            ControlFailure: the server does not answer.
        """
        self.moment()  # this may create triggers, which change the schema
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
        """Return the net committed changes of a level.

        For the top level (``is_top``) these are the changes between two moments, by default from
        its start to now. For a level below, they are the changes before the next level was entered.
        ``limit`` is the greatest number of rows of a table. Marks are rows of "the schema".

        Cost: four round trips, and another for each changed table.

        Raises:
            ControlFailure: the journal was dropped, or the server does not answer.
        """
        if is_top and not until:  # the moment has noted changes of the schema
            self.note_schema(level)
        entries = Entries(self._schema, level, is_top, since, until)
        return rows_changed(self._control, entries, limit)

    # From one database to another

    def archive(self, below: int) -> list[tuple[object, ...]]:
        """Return the changes of the levels below ``below``, for another copy of the template.

        Cost: the changes are in memory.

        Raises:
            ControlFailure: the server has crashed and has lost the journal. Or a level below has
                changes that cannot be copied (``0A000``): large objects, or the database's settings
                or schema.
        """
        states, kinds = self._control.rows(
            "SELECT count(*), count(DISTINCT (a.objects, a.settings, a.shape)) "
            f"FROM {self._schema}.state a WHERE a.level <= {below}"
        )[0]
        if not states:
            raise ControlFailure(CRASHED, "0A000")
        if kinds > 1:
            raise ControlFailure(
                "a wide fixture has created large objects, or changed settings or the schema",
                "0A000",
            )
        archived = _ARCHIVED.format(s=self._schema, below=below, bytes=_CARRIED_BYTES)
        return self._control.rows(archived)

    def restore(self, archived: list[tuple[Any, ...]], level: int) -> None:
        """Restore the content at the start of a level in a fresh copy of the template.

        Raises:
            ControlFailure: the archived changes do not fit the copy, or the server does not answer.
                The copy must not be used then.
        """
        for table, rows in archived:
            insert = _RESTORED[table].format(
                s=self._schema, table=table, rows=literal(rows), level=level
            )
            self._control.run(insert)
        self._control.run(f"SELECT {self._schema}.redo({level})")

    # The journal itself

    def install(self) -> list[JournalGap]:
        """Install the journal, also after a change of the schema. The current content is level 0.

        Returns:
            The gaps: changes that the journal cannot see or undo. If a gap is fatal, no journal was
                installed.

        Raises:
            ControlFailure: another session locks a table, or the server does not answer.
        """
        gaps = install(self._address)
        if not any(gap.is_fatal for gap in gaps):
            self._schema = find_schema(self._control)
            self._missed = []
            self._alterations = 0
            self._shape = None
            self._use()
        return gaps

    def close(self) -> None:
        """Close the connection. Idempotent, and never raises."""
        self._control.close()


def _as_text(answer: str) -> str:
    return f"pg_catalog.array_to_json({answer})::pg_catalog.text"


def _parse(answer: str | None) -> list[str]:
    """Return the elements of an array. ``enter`` and ``leave`` return a size, then marks."""
    if answer is None:
        return []
    elements: list[str] = loads(answer)
    return elements


def _altered_tables(schema: str) -> str:
    """Write the query of tables with columns or indexes that are newer than the journal."""
    # A row of the catalog has the id of the transaction that wrote it.
    return f"""
SELECT n.nspname || '.' || c.relname FROM pg_catalog.pg_attribute a
LEFT JOIN pg_catalog.pg_index x ON x.indexrelid = a.attrelid
JOIN pg_catalog.pg_class c ON c.oid = coalesce(x.indrelid, a.attrelid)
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm') AND {APPS_OWN} AND age(a.xmin) < (
    SELECT age(p.xmin) FROM pg_catalog.pg_proc p
    WHERE p.pronamespace = '{schema}'::regnamespace AND p.proname = 'leave')
UNION SELECT t.name FROM {schema}.tables t
WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = t.oid)
ORDER BY 1
"""


# Descriptions of the sessions that may hold locks. Sessions that have written are first.
_HOLDERS = """
SELECT 'inside a transaction with changes: backend ' || h.pid FROM (
    SELECT DISTINCT l.pid FROM pg_catalog.pg_locks l
    WHERE l.relation IN ('{schema}.j'::regclass, '{schema}.ddl'::regclass)
    AND l.database = (
        SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
    AND l.pid <> pg_catalog.pg_backend_pid() AND l.granted) h
UNION ALL
SELECT 'a prepared transaction: ' || p.gid FROM pg_catalog.pg_prepared_xacts p
WHERE p.database = current_database()
UNION ALL
SELECT 'inside a transaction: backend ' || a.pid FROM pg_catalog.pg_stat_activity a
WHERE a.datname = current_database() AND a.state ~ '^idle in transaction'
"""
# The query returns the entries of `jold` in parts that fit into memory.
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
# A level begins with its state and without entries. The copy has the other parts of its state.
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

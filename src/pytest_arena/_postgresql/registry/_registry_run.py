"""A run's row in the registry, and the databases of the run."""

# ruff: noqa: S608 - names and texts are written by identifier() and literal() alone

from __future__ import annotations

import os
import platform
from contextlib import closing, suppress
from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

from pytest_arena._postgresql import _clone_sql as clone_sql
from pytest_arena._postgresql._control import (
    WAITED,
    ControlFailure,
    ControlLine,
    identifier,
    literal,
    open_control,
)
from pytest_arena._postgresql.registry import _registry_errors as messages
from pytest_arena._postgresql.registry._connection import Writes
from pytest_arena._process import rest, seconds, until
from pytest_arena.errors import ArenaError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_arena._postgresql._control import Control
    from pytest_arena._values import Address

# The first numbers of advisory locks in the registry.
RUNS = 7_264_001
TURNS = 7_264_002
# A run takes its lock before it writes its row. If a row has no lock, its run is dead.
LIVING = (
    "SELECT l.objid::bigint FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_database r "
    "ON r.oid = l.database WHERE r.datname = pg_catalog.current_database() "
    f"AND l.locktype = 'advisory' AND l.objsubid = 2 AND l.granted AND l.classid = {RUNS}"
)
_STEP = 0.1  # seconds
_ME = "me AS MATERIALIZED (SELECT nextval('arena.runs')::int AS id)"
# A process takes about six connections: three of pytest-arena, and a small pool. A run begins if
# the server has six connections for each living run and for this run, or if no other run lives.
_IN_TURN = f"""
WITH turn AS MATERIALIZED (SELECT pg_advisory_xact_lock({TURNS}, 1) IS NOT NULL AS taken),
living AS MATERIALIZED (SELECT (SELECT count(*) FROM ({LIVING}) AS one WHERE taken) FROM turn),
others AS MATERIALIZED (SELECT count(*) FROM pg_stat_activity
    WHERE datid IS NOT NULL AND NOT datname ^@ 'arena_'),
me AS MATERIALIZED (SELECT nextval('arena.runs')::int AS id FROM living, others
    WHERE living.count = 0 OR 6 * (living.count + 1) + others.count
        <= current_setting('max_connections')::int
            - current_setting('superuser_reserved_connections')::int)
"""
_WITH_STRATEGY = 150000  # server versions
_WITH_METHOD = 180000
# FILE_COPY is faster: 147 ms for 227 MB on tmpfs, and WAL_LOG takes 1,416 ms. But with fsync
# FILE_COPY costs a checkpoint, so WAL_LOG is faster for small databases.
_SMALL_BYTES = 16 * 1024 * 1024
_CREATION_SECONDS = 2.0
_MARK = "pytest-arena: which databases of this server are arena's own, and whose"

# With these settings no statement hangs, and the server detects a client that died silently. Rows
# need not be on disk at once, because CREATE DATABASE and DROP DATABASE flush earlier commits.
_SESSION = (
    "SET lock_timeout = '10s'; SET statement_timeout = '10min'; SET search_path = pg_catalog; "
    "SET idle_in_transaction_session_timeout = '1min'; SET synchronous_commit = off; "
    "SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10; "
    "SET tcp_keepalives_count = 3"
)
# "new" is an empty database of this role, which a run fills next. "" is an empty database that a
# run of another role has just created.
_STATE = f"""
SELECT CASE WHEN pg_catalog.shobj_description(d.oid, 'pg_database') = {literal(_MARK)} THEN 'made'
    WHEN EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n
        ON n.oid = c.relnamespace WHERE n.nspname <> 'information_schema'
        AND n.nspname !~ '^pg_') THEN 'foreign'
    WHEN pg_catalog.pg_has_role(d.datdba, 'MEMBER') THEN 'new' ELSE '' END
FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()
"""
# The function reads the open transactions first, then the horizon, which each commit moves. In the
# other order, both would miss a commit in between. Any role may read locks, but not backend_xid.
_FACTS = """
BEGIN
    open := ARRAY(
        SELECT l.pid || ':' || l.transactionid FROM pg_locks l
        JOIN pg_stat_get_activity(NULL) a ON a.pid = l.pid
        JOIN pg_database d ON d.oid = a.datid
        WHERE l.locktype = 'transactionid' AND l.mode = 'ExclusiveLock' AND l.granted
        AND d.datname = live AND a.backend_type <> 'autovacuum worker'
        AND l.pid <> pg_backend_pid());
    held := ARRAY(
        SELECT 'lock ' || concat_ws(' ', l.pid, l.classid, l.objid, l.objsubid, l.mode)
        FROM pg_locks l JOIN pg_database d ON d.oid = l.database
        WHERE l.locktype = 'advisory' AND d.datname = live
        UNION ALL SELECT 'prepared ' || gid FROM pg_prepared_xacts WHERE database = live
        UNION ALL SELECT 'slot ' || slot_name FROM pg_replication_slots WHERE database = live
        ORDER BY 1);
    horizon := pg_snapshot_xmax(pg_current_snapshot())::text;
END
"""
_OWN_ROWS = " ".join(
    f"ALTER TABLE arena.{table} ENABLE ROW LEVEL SECURITY; "
    f"CREATE POLICY seen ON arena.{table} FOR SELECT USING (true); "
    f"CREATE POLICY own ON arena.{table} USING (owner = current_user) "
    "WITH CHECK (owner = current_user);"
    for table in ("run", "database", "use")
)
# The first run creates the tables and the mark, in one transaction.
_MAKE = f"""DO $layout$ BEGIN
    PERFORM pg_catalog.pg_advisory_xact_lock({TURNS}, 0);
    IF pg_catalog.to_regnamespace('arena') IS NOT NULL THEN RETURN; END IF;
    CREATE SCHEMA arena;
    CREATE SEQUENCE arena.runs AS int CYCLE;
    CREATE TABLE arena.run (
        id int PRIMARY KEY, owner name NOT NULL DEFAULT current_user, project text NOT NULL,
        host text NOT NULL, pid int NOT NULL, started timestamptz NOT NULL DEFAULT now());
    CREATE TABLE arena.database (
        name name PRIMARY KEY, kind text NOT NULL, run int,
        owner name NOT NULL DEFAULT current_user, project text NOT NULL,
        shelf text, manifest text, title text,
        created timestamptz NOT NULL DEFAULT now(), used timestamptz NOT NULL DEFAULT now());
    CREATE TABLE arena.use (
        template name, run int, owner name NOT NULL DEFAULT current_user,
        PRIMARY KEY (template, run));
    GRANT USAGE ON SCHEMA arena TO PUBLIC;
    GRANT USAGE ON SEQUENCE arena.runs TO PUBLIC;
    GRANT SELECT ON ALL TABLES IN SCHEMA arena TO PUBLIC;
    GRANT INSERT, UPDATE, DELETE ON arena.run, arena.database, arena.use TO PUBLIC;
    {_OWN_ROWS}
    CREATE FUNCTION arena.facts(live name, OUT open text[], OUT held text[], OUT horizon text)
        LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog AS $f${_FACTS}$f$;
    EXECUTE format('COMMENT ON DATABASE %I IS %L', current_database(), {literal(_MARK)});
END $layout$
"""
# The database's name. Versions of pytest-arena with other tables use another database.
REGISTRY = f"arena_registry_{sha256(_MAKE.encode()).hexdigest()[:8]}"


class DroppedRow(NamedTuple):
    """A database to drop, by its row in the registry."""

    name: str
    kind: str
    exists: bool
    reason: str  # why it must not be dropped, "" if it may be dropped


class RegistryRun:
    """A run in the registry. Creates and drops the run's databases.

    The run lives as long as the session of ``control`` holds the run's advisory lock. The lock ends
    with the process. After a lost connection, another run may already have removed this run's rows.
    So this run acquires its lock and writes these rows again.
    """

    def __init__(
        self, address: Address, project: str, name: str, note: Callable[[str], None]
    ) -> None:
        self._address = address
        self._project = project
        self.name = name
        self._note = note
        self._server_version = 0  # until it is connected
        self.number = 0  # until it is connected
        self.databases: dict[str, str] = {}  # the kinds of the run's databases, by name
        self.writes = Writes()
        self._pid = os.getpid()
        self._clone_failed = False
        # For each source, the strategy of a copy, and the statement for the copy's settings.
        self._copy_plans: dict[str, tuple[str, str | None]] = {}
        self.control = ControlLine(self._connect_as_run, patience=address.patience)

    # Connect

    def connect(self, *, patience: float = 0.0) -> Control:
        """Connect to the registry. Create it if it does not exist.

        If the server has no free connection, wait for one for ``patience`` seconds.

        Raises:
            ControlFailure: no server answers, or it refuses.
            ServerError: the role may not create databases, or the server cannot be used.
        """
        inside = replace(self._address, database=self.name, patience=patience)
        try:
            control = open_control(inside)
        except ControlFailure as error:
            # libpq reports no SQLSTATE for a refused login.
            if "does not exist" not in str(error):
                raise
            self._create()
            control = open_control(inside)
        try:
            self._prepare(control)
        except BaseException:
            control.close()
            raise
        return control

    def _create(self) -> None:
        with closing(open_control(self._address)) as control:
            try:
                control.run(_SESSION)
                control.run(
                    f"CREATE DATABASE {identifier(self.name)} TEMPLATE template0"
                )
            except ControlFailure as error:
                # Another process has created it. At the same moment the SQLSTATE is 23505.
                if error.sqlstate not in ("42P04", "23505"):
                    raise

    def _prepare(self, control: Control) -> None:
        control.run(_SESSION)
        [(self._server_version,)] = control.rows(
            "SELECT current_setting('server_version_num')::int"
        )
        state = until(lambda: state_of_registry(control), within=_CREATION_SECONDS)
        if (
            state == "foreign"
        ):  # another process may have committed the tables during the query
            state = state_of_registry(control)
        if state == "new":
            control.run(_MAKE)
        elif state != "made":
            raise messages.foreign_registry(self._address, self.name)
        if self._may_copy_by_clone():
            control.run("SET file_copy_method = clone")

    def _connect_as_run(self) -> Control:
        control = self.connect(patience=self._address.patience)
        if self._pid != os.getpid():
            return control  # a forked child only reads
        try:
            if not self.number:
                self._begin(control)
                return control
            still_runs = control.rows(
                f"SELECT 1 FROM arena.run WHERE id = {self.number} "
                f"AND pg_try_advisory_lock({RUNS}, {self.number})"
            )
            if not still_runs:
                self._begin(control)
            # A server that crashed may have lost the last rows.
            for name, kind in list(self.databases.items()):
                control.run(self._insert_row(name, kind))
        except BaseException:
            control.close()
            raise
        return control

    def _begin(self, control: Control) -> None:
        """Take the lock of a new run, then insert its row."""
        values = f"{literal(self._project)}, {literal(platform.node())}, {os.getpid()}"
        begin = (
            "locked AS MATERIALIZED "
            f"(SELECT id, pg_try_advisory_lock({RUNS}, id) AS had FROM me) "
            "INSERT INTO arena.run (id, project, host, pid) "
            f"SELECT id, {values} FROM locked WHERE had RETURNING id"
        )
        end = seconds() + self._address.patience
        with self.writes.count():
            ids = control.rows(f"{_IN_TURN}, {begin}")
            while not ids and seconds() < end:
                self._note(WAITED)
                rest(_STEP)
                ids = control.rows(f"{_IN_TURN}, {begin}")
            if not ids:
                ids = control.rows(f"WITH {_ME}, {begin}")
            [(self.number,)] = ids

    def end(self) -> None:
        """Delete the run's row, unless a database is left. Then the next run cleans up."""
        self.control.run(
            f"DELETE FROM arena.use WHERE run = {self.number}; "
            f"DELETE FROM arena.run WHERE id = {self.number} "
            f"AND NOT EXISTS (SELECT FROM arena.database WHERE run = {self.number})"
        )

    def _insert_row(self, name: str, kind: str) -> str:
        return (
            "INSERT INTO arena.database (name, kind, run, project) VALUES ("
            f"{literal(name)}, {literal(kind)}, {self.number}, {literal(self._project)}) "
            f"ON CONFLICT (name) DO UPDATE SET run = {self.number}"
        )

    # Databases

    def make(
        self, name: str, kind: str, template: str | None, control: ControlLine
    ) -> None:
        """Commit a database's row, then create the database.

        Also apply the settings of the template that PostgreSQL does not copy.

        Raises:
            ControlFailure: the disk is full, or a client is connected to the template.
        """
        self.databases[name] = kind
        run = self.number
        with self.writes.count():
            control.run(self._insert_row(name, kind))
        if run != self.number:  # the connection was lost, and this run has a new number
            control.run(self._insert_row(name, kind))
        source = template or "template0"
        strategy, settings = self._source(source, control)
        statement = f"CREATE DATABASE {identifier(name)} TEMPLATE {identifier(source)} {strategy}"
        if template is None:
            self._create_empty(statement, control)
            return
        self._copy(statement, control)
        if settings:
            with self.writes.count():
                control.run(settings.replace(clone_sql.COPY, identifier(name)))

    def _create_empty(self, statement: str, control: ControlLine) -> None:
        try:
            self._copy(f"{statement} ENCODING 'UTF8'", control)
        except ControlFailure as error:
            if error.sqlstate != "22023":
                raise
            # The server's locale needs another encoding.
            self._copy(statement, control)

    def _copy(self, statement: str, control: ControlLine) -> None:
        try:
            self._write(statement, control, done="42P04")
        except ControlFailure as error:
            if not self._may_copy_by_clone() or error.sqlstate[:2] not in ("58", "0A"):
                raise
            # This file system cannot share blocks.
            self._clone_failed = True
            control.run("SET file_copy_method = copy")
            self._write(statement, control, done="42P04")

    def _write(self, statement: str, control: ControlLine, *, done: str) -> None:
        """Create or drop a database.

        ``done`` is the SQLSTATE if the statement has already taken effect. Names are unique, so
        this happens only if the connection was lost during the statement.
        """
        try:
            with self.writes.count():
                control.run(statement)
        except ControlFailure as error:
            if error.sqlstate != done:
                raise

    def _may_copy_by_clone(self) -> bool:
        return self._server_version >= _WITH_METHOD and not self._clone_failed

    def _source(self, name: str, control: ControlLine) -> tuple[str, str | None]:
        """Return the fastest strategy for a copy, and the statement for the copy's settings."""
        if name not in self._copy_plans:
            [(size, is_synced, settings)] = control.rows(clone_sql.source(name))
            strategy = ""
            if self._server_version >= _WITH_STRATEGY:
                by_log = is_synced and size < _SMALL_BYTES
                strategy = "STRATEGY WAL_LOG" if by_log else "STRATEGY FILE_COPY"
            self._copy_plans[name] = strategy, settings
        return self._copy_plans[name]

    def remove(self, row: DroppedRow, control: ControlLine) -> str:
        """Drop a database, end its connections, and delete its row. Return "", or why it failed."""
        if row.reason:
            return row.reason
        try:
            if row.exists:
                self._drop(row, control)
            self._delete_row(row.name, control)
        except (ControlFailure, ArenaError) as error:
            return str(error)
        return ""

    def _drop(self, row: DroppedRow, control: ControlLine) -> None:
        name = identifier(row.name)
        if row.kind == "condemned":
            control.run(f"ALTER DATABASE {name} WITH IS_TEMPLATE false")
        drop = f"DROP DATABASE {name} WITH (FORCE)"
        try:
            self._write(drop, control, done="3D000")
        except ControlFailure as error:
            if error.sqlstate != "55006":
                raise
            self._end_prepared(row.name, control)
            self._write(drop, control, done="3D000")

    def _delete_row(self, name: str, control: ControlLine) -> None:
        # ValueError: no row was deleted, so the block counts no write.
        with suppress(ValueError), self.writes.count():
            [_] = control.rows(
                f"DELETE FROM arena.database WHERE name = {literal(name)} AND NOT EXISTS "
                f"(SELECT FROM pg_database WHERE datname = {literal(name)}) RETURNING name"
            )
            self.databases.pop(name, None)

    def _end_prepared(self, name: str, control: ControlLine) -> None:
        """Roll back prepared transactions, which prevent a drop and have no session."""
        control.run(clone_sql.allow_connections(name, allowed=True))
        with closing(open_control(replace(self._address, database=name))) as inside:
            for (gid,) in inside.rows(
                "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()"
            ):
                with suppress(ControlFailure):
                    inside.run(clone_sql.rollback_prepared(gid))


def state_of_registry(control: Control) -> str:
    """Return the state of the connection's database: made, new, foreign, or "" if unknown."""
    [(state,)] = control.rows(_STATE)
    return str(state)

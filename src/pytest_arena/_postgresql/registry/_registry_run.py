"""A run in the registry of a server, and the databases that it makes there."""

# ruff: noqa: S608 - names and texts are written by identifier() and literal() alone

from __future__ import annotations

import os
import platform
from contextlib import closing, suppress
from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from pytest_arena._postgresql import _clone_sql as clone_sql
from pytest_arena._postgresql._control import (
    WAITED,
    ControlFailure,
    identifier,
    literal,
    open_control,
)
from pytest_arena._postgresql.registry import _registry_errors as messages
from pytest_arena._postgresql.registry._connection import ControlLine, Writes
from pytest_arena._process import rest, seconds, until
from pytest_arena.errors import ArenaError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_arena._postgresql._control import Control
    from pytest_arena._values import Address

# Advisory locks are known by two numbers, and belong to the database of the session that has them.
RUNS, TURNS = 7_264_001, 7_264_002
# The row of a run is there only after its lock is held: whoever sees one without is dead.
LIVING = (
    "SELECT l.objid::bigint FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_database r "
    "ON r.oid = l.database WHERE r.datname = pg_catalog.current_database() "
    f"AND l.locktype = 'advisory' AND l.objsubid = 2 AND l.granted AND l.classid = {RUNS}"
)
_STEP = 0.1  # seconds
_ME = "me AS MATERIALIZED (SELECT nextval('arena.runs')::int AS id)"
# A process takes some six connections: three of arena's, those of a small pool. One begins if there
# are as many for all that go on, or if it is alone. Who begins at the same moment waits for it.
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
_WITH_STRATEGY, _WITH_METHOD = 150000, 180000
# Where writes are synced, copying files costs a checkpoint, and copying pages their log.
_SMALL_BYTES = 16 * 1024 * 1024
_CREATION_SECONDS = 2.0
_MARK = "pytest-arena: which databases of this server are arena's own, and whose"

# Nothing hangs, and a client that died without a word is noticed. Rows need not be on disk at once:
# CREATE DATABASE and DROP DATABASE flush all that was committed before them.
_SESSION = (
    "SET lock_timeout = '10s'; SET statement_timeout = '10min'; SET search_path = pg_catalog; "
    "SET idle_in_transaction_session_timeout = '1min'; SET synchronous_commit = off; "
    "SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10; "
    "SET tcp_keepalives_count = 3"
)
# "new" is an empty one of our own, which is about to be made, by us or by another run; "" is an
# empty one that another role's run has just created.
_STATE = f"""
SELECT CASE WHEN pg_catalog.shobj_description(d.oid, 'pg_database') = {literal(_MARK)} THEN 'made'
    WHEN EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n
        ON n.oid = c.relnamespace WHERE n.nspname <> 'information_schema'
        AND n.nspname !~ '^pg_') THEN 'foreign'
    WHEN pg_catalog.pg_has_role(d.datdba, 'MEMBER') THEN 'new' ELSE '' END
FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()
"""
# Who has a transaction open is read before the horizon: what was committed in between has moved
# it. The other way round, it would be seen by neither. Locks are shown to every role, as
# backend_xid is not.
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
# The tables and the mark come in one transaction, by whoever comes first.
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
# The database's name. Versions of arena with other tables do not meet.
REGISTRY = f"arena_registry_{sha256(_MAKE.encode()).hexdigest()[:8]}"


class RegistryRun:
    """A run's place in the registry, and how it makes databases and removes them.

    The run lives as long as the session of ``line`` holds its advisory lock: it ends with the
    process, whatever kills it, and on every machine. A session that was lost is taken up again,
    and the rows of ``mine`` are written once more, should somebody have taken the run for dead.
    """

    def __init__(
        self, address: Address, project: str, name: str, tell: Callable[[str], None]
    ) -> None:
        self._address, self._project, self.name, self._tell = (
            address,
            project,
            name,
            tell,
        )
        self._version = self.number = 0
        self.mine: dict[
            str, str
        ] = {}  # kinds, by names, of what this run has made and not dropped
        self.writes = Writes()
        self._process = os.getpid()
        self._copies_by_clone = True
        self._sources: dict[str, tuple[str, str | None]] = {}
        self.line = ControlLine(self._connect_as_run, patience=address.patience)

    # The session

    def connect(self, *, patience: float = 0.0) -> Control:
        """Open a connection to the registry, which is made if there is none.

        Where the server has none free it waits so many seconds: nobody in the background does.

        Raises:
            Failed: there is no server, or it refuses.
            ServerError: the login may not create databases, or the server cannot be used.
        """
        inside = replace(self._address, database=self.name, patience=patience)
        try:
            control = open_control(inside)
        except ControlFailure as error:
            # asyncpg and libpq differ in whether a code comes with the refusal.
            if error.sqlstate != "3D000" and "does not exist" not in str(error):
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
                # Somebody else was first, maybe by a moment: then it is the index that refuses.
                if error.sqlstate not in ("42P04", "23505"):
                    raise

    def _prepare(self, control: Control) -> None:
        control.run(_SESSION)
        [(self._version,)] = control.rows(
            "SELECT current_setting('server_version_num')::int"
        )
        state = until(lambda: state_of_registry(control), within=_CREATION_SECONDS)
        if (
            state == "foreign"
        ):  # mark and tables come at once, and are looked at one by one
            state = state_of_registry(control)
        if state == "new":
            control.run(_MAKE)
        elif state != "made":
            raise messages.foreign_registry(self._address, self.name)
        if self._may_copy_by_clone():
            control.run("SET file_copy_method = clone")

    def _connect_as_run(self) -> Control:
        control = self.connect(patience=self._address.patience)
        if self._process != os.getpid():
            return control  # a forked child asks; the run is its parent's
        try:
            was_lost = bool(self.number)
            if not was_lost or not control.rows(
                f"SELECT 1 FROM arena.run WHERE id = {self.number} "
                f"AND pg_try_advisory_lock({RUNS}, {self.number})"
            ):
                self._begin(control)
            if was_lost:
                # Also where the run was held: a server that crashed has lost what came last.
                for name, kind in list(self.mine.items()):
                    control.run(self._row(name, kind))
        except BaseException:
            control.close()
            raise
        return control

    def _begin(self, control: Control) -> None:
        """Register a run, which lives as long as this session: first the lock, then the row."""
        # The kernel's name of the machine: what a test makes of time or sockets does not matter.
        values = f"{literal(self._project)}, {literal(platform.node())}, {os.getpid()}"
        with self.writes.one():
            begin = (
                "locked AS MATERIALIZED "
                f"(SELECT id, pg_try_advisory_lock({RUNS}, id) AS had FROM me) "
                "INSERT INTO arena.run (id, project, host, pid) "
                f"SELECT id, {values} FROM locked WHERE had RETURNING id"
            )
            end = seconds() + self._address.patience
            while (
                not (begun := control.rows(f"{_IN_TURN}, {begin}")) and seconds() < end
            ):
                self._tell(WAITED)
                rest(_STEP)
            [(self.number,)] = begun or control.rows(f"WITH {_ME}, {begin}")

    def end(self) -> None:
        """Strike the run, if it has left nothing; else the next run cleans up after it."""
        self.line.run(
            f"DELETE FROM arena.use WHERE run = {self.number}; "
            f"DELETE FROM arena.run WHERE id = {self.number} "
            f"AND NOT EXISTS (SELECT FROM arena.database WHERE run = {self.number})"
        )

    # Rows

    def _row(self, name: str, kind: str) -> str:
        return (
            "INSERT INTO arena.database (name, kind, run, project) VALUES ("
            f"{literal(name)}, {literal(kind)}, {self.number}, {literal(self._project)}) "
            f"ON CONFLICT (name) DO UPDATE SET run = {self.number}"
        )

    # Databases

    def make(
        self, name: str, kind: str, template: str | None, line: ControlLine
    ) -> None:
        """Commit a database's row, then make it, with all that the server does not copy.

        Raises:
            Failed: there is no room, or somebody is connected to the template.
        """
        self.mine[name] = kind
        run = self.number
        with self.writes.one():
            line.run(self._row(name, kind))
        if run != self.number:  # over which this run was taken for dead
            line.run(self._row(name, kind))
        source = template or "template0"
        strategy, settings = self._source(source, line)
        statement = f"CREATE DATABASE {identifier(name)} TEMPLATE {identifier(source)} {strategy}"
        try:
            # An empty one is UTF-8, whatever the server.
            self._copy(statement + ("" if template else " ENCODING 'UTF8'"), line)
        except ControlFailure as error:
            if template is not None or error.sqlstate != "22023":
                raise
            # The server's locale has another encoding: an empty database is as all others there.
            self._copy(statement, line)
        if template is not None and settings:
            with self.writes.one():
                line.run(settings.replace(clone_sql.COPY, identifier(name)))

    def _copy(self, statement: str, line: ControlLine) -> None:
        try:
            self._write(statement, line, done="42P04")
        except ControlFailure as error:
            if not self._may_copy_by_clone() or error.sqlstate[:2] not in ("58", "0A"):
                raise
            # This file system cannot share blocks after all.
            self._copies_by_clone = False
            line.run("SET file_copy_method = copy")
            self._write(statement, line, done="42P04")

    def _write(self, statement: str, line: ControlLine, *, done: str) -> None:
        """Make or drop a database. With the code ``done`` the server says that it was done already.

        No name is used twice: it was done when the connection was lost.
        """
        try:
            with self.writes.one():
                line.run(statement)
        except ControlFailure as error:
            if error.sqlstate != done:
                raise

    def _may_copy_by_clone(self) -> bool:
        return self._version >= _WITH_METHOD and self._copies_by_clone

    def _source(self, name: str, line: ControlLine) -> tuple[str, str | None]:
        """How a database is copied best, and the statements that give a copy its settings."""
        if name not in self._sources:
            [(size, is_synced, settings)] = line.rows(clone_sql.source(name))
            strategy = "WAL_LOG" if is_synced and size < _SMALL_BYTES else "FILE_COPY"
            has_strategies = self._version >= _WITH_STRATEGY
            self._sources[name] = (
                f"STRATEGY {strategy}" if has_strategies else "",
                settings,
            )
        return self._sources[name]

    def has_removed(
        self, row: tuple[Any, ...], line: ControlLine, left: list[str]
    ) -> bool:
        """Drop a database, whoever is connected, and delete its row. What is ``left`` says why.

        Of a row are known its name, its kind, whether there is a database, and why it is left, if
        it is.
        """
        name, kind, is_there, why = row
        try:
            if not why:
                self._remove(
                    name, line, is_there=is_there, is_condemned=kind == "condemned"
                )
        except (ControlFailure, ArenaError) as error:
            why = str(error)
        if why:
            left.append(f"{name}: {why}")
        return not why

    def _remove(
        self, name: str, line: ControlLine, *, is_there: bool, is_condemned: bool
    ) -> None:
        if is_there and is_condemned:
            line.run(f"ALTER DATABASE {identifier(name)} WITH IS_TEMPLATE false")
        if is_there:
            drop = f"DROP DATABASE {identifier(name)} WITH (FORCE)"
            try:
                self._write(drop, line, done="3D000")
            except ControlFailure as error:
                if error.sqlstate != "55006":
                    raise
                self._end_prepared(name, line)
                self._write(drop, line, done="3D000")
        try:
            with self.writes.one():
                [_] = line.rows(
                    f"DELETE FROM arena.database WHERE name = {literal(name)} AND NOT EXISTS "
                    f"(SELECT FROM pg_database WHERE datname = {literal(name)}) RETURNING name"
                )
        except (
            ValueError
        ):  # nothing was written: it is there again, or somebody else was first
            return
        self.mine.pop(name, None)

    def _end_prepared(self, name: str, line: ControlLine) -> None:
        """Prepared transactions have no session that could be ended, and keep the database."""
        line.run(clone_sql.allow_connections(name, allowed=True))
        with closing(open_control(replace(self._address, database=name))) as inside:
            for (gid,) in inside.rows(
                "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()"
            ):
                with suppress(ControlFailure):
                    inside.run(clone_sql.rollback_prepared(gid))


def state_of_registry(control: Control) -> str:
    """Return what the connection's database is: made, new, foreign, or "" for a while."""
    [(state,)] = control.rows(_STATE)
    return str(state)

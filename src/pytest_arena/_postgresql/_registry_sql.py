"""What a PostgreSQL server is told and asked about the databases that are arena's own.

The registry is a small database beside them. A row in it is committed before a database is
created, and deleted after it was dropped.
"""

# ruff: noqa: S608 - names and texts are written by identifier() and literal() alone

from __future__ import annotations

from pytest_arena._postgresql._control import identifier, literal
from pytest_arena._postgresql._taking_sql import take_over_function

__all__ = [
    "GIVE_CREATEDB",
    "LAYOUT",
    "MARK",
    "REGISTRY",
    "RENAME",
    "begin_run",
    "begin_use",
    "condemn",
    "condemned",
    "create_registry",
    "dead_ones",
    "drop_registry",
    "end_run",
    "finish",
    "free_run",
    "hold_run",
    "is_alone",
    "keep",
    "kept_too_many",
    "layout_found",
    "listed",
    "names_of",
    "note_database",
    "owned",
    "registry_layout",
    "registry_state",
    "renew_database",
    "server_state",
    "session_settings",
    "shelf_lock",
    "shelf_lock_patience",
    "strike_database",
    "strike_runs",
    "take_run",
    "templates",
]

REGISTRY = "arena_registry"
# What a message gives to paste.
GIVE_CREATEDB = 'ALTER ROLE "{role}" CREATEDB;   -- as a superuser'
RENAME = 'ALTER DATABASE "{name}" RENAME TO …;   -- if it may have another name'
MARK = "pytest-arena: which databases of this server are arena's own, and whose"
LAYOUT = 2

# Advisory locks are known by two numbers, and belong to the database of the session that has them.
_RUNS, _TURNS = 7_264_001, 7_264_002

# The row of a run is there only after its lock is held: whoever sees one without is dead.
_LIVING = (
    "SELECT l.objid::bigint FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_database r "
    "ON r.oid = l.database WHERE r.datname = pg_catalog.current_database() "
    f"AND l.locktype = 'advisory' AND l.objsubid = 2 AND l.granted AND l.classid = {_RUNS}"
)
_MY_TURN = f"SELECT pg_catalog.pg_advisory_xact_lock({_TURNS}, 0)"


def session_settings() -> str:
    """Nothing hangs, and a client that died without a word is noticed.

    Rows need not be on disk at once: ``CREATE DATABASE`` and ``DROP DATABASE`` flush all that was
    committed before them.
    """
    return (
        "SET lock_timeout = '10s'; SET statement_timeout = '10min'; SET search_path = pg_catalog; "
        "SET idle_in_transaction_session_timeout = '1min'; SET synchronous_commit = off; "
        "SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10; "
        "SET tcp_keepalives_count = 3"
    )


def server_state() -> str:
    """Ask for the version, and whether this login may create databases."""
    return (
        "SELECT pg_catalog.current_setting('server_version_num')::int, rolcreatedb OR rolsuper "
        "FROM pg_catalog.pg_roles WHERE rolname = current_user"
    )


def registry_state() -> str:
    """Ask, inside the registry: its comment, whether it is ours, and whether it is empty."""
    return (
        "SELECT coalesce(pg_catalog.shobj_description(d.oid, 'pg_database'), ''), "
        "pg_catalog.pg_has_role(d.datdba, 'MEMBER'), "
        "NOT EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n "
        "ON n.oid = c.relnamespace WHERE n.nspname <> 'information_schema' "
        "AND n.nspname !~ '^pg_') "
        "FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()"
    )


def layout_found() -> str:
    """Ask for the version of its tables."""
    return "SELECT version FROM arena.layout"


def create_registry(name: str) -> str:
    """Write the statement, which cannot run inside a transaction."""
    return f"CREATE DATABASE {identifier(name)} TEMPLATE template0"


def drop_registry(name: str) -> str:
    """Drop it, unless somebody is connected."""
    return f"DROP DATABASE {identifier(name)}"


def registry_layout() -> str:
    """Make the tables and the mark in one transaction, by whoever comes first."""
    body = f"""
        PERFORM pg_catalog.pg_advisory_xact_lock({_TURNS}, 0);
        IF pg_catalog.to_regnamespace('arena') IS NOT NULL THEN RETURN; END IF;
        CREATE SCHEMA arena;
        CREATE TABLE arena.layout (version int NOT NULL);
        INSERT INTO arena.layout VALUES ({LAYOUT});
        CREATE SEQUENCE arena.runs AS int CYCLE;
        CREATE TABLE arena.run (
            id int PRIMARY KEY, owner name NOT NULL DEFAULT current_user, project text NOT NULL,
            host text NOT NULL, pid int NOT NULL, started timestamptz NOT NULL DEFAULT now());
        CREATE TABLE arena.database (
            name name PRIMARY KEY, kind text NOT NULL, run int,
            owner name NOT NULL DEFAULT current_user, project text NOT NULL,
            shelf text, manifest text, title text, origin name,
            created timestamptz NOT NULL DEFAULT now(), used timestamptz NOT NULL DEFAULT now());
        CREATE TABLE arena.use (
            template name, run int, owner name NOT NULL DEFAULT current_user,
            PRIMARY KEY (template, run));
        GRANT USAGE ON SCHEMA arena TO PUBLIC;
        GRANT USAGE ON SEQUENCE arena.runs TO PUBLIC;
        GRANT SELECT ON ALL TABLES IN SCHEMA arena TO PUBLIC;
        GRANT INSERT, UPDATE, DELETE ON arena.run, arena.database, arena.use TO PUBLIC;
        {_rows_are_their_owners("run", "database", "use")}
        CREATE FUNCTION arena.facts(live name, OUT open text[], OUT held text[], OUT horizon text)
            LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog AS $f${_FACTS}$f$;
        {take_over_function(_RUNS, _TURNS)}
        EXECUTE format('COMMENT ON DATABASE %I IS %L', current_database(), {literal(MARK)});
    """
    return f"DO $layout$ BEGIN {body} END $layout$"


def _rows_are_their_owners(*tables: str) -> str:
    return " ".join(
        f"ALTER TABLE arena.{table} ENABLE ROW LEVEL SECURITY; "
        f"CREATE POLICY seen ON arena.{table} FOR SELECT USING (true); "
        f"CREATE POLICY own ON arena.{table} USING (owner = current_user) "
        "WITH CHECK (owner = current_user);"
        for table in tables
    )


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


def begin_run(project: str, host: str, pid: int) -> str:
    """Register a run, which lives as long as this session: first the lock, then the row."""
    return (
        "WITH me AS MATERIALIZED (SELECT nextval('arena.runs')::int AS id), "
        f"locked AS MATERIALIZED (SELECT id, pg_try_advisory_lock({_RUNS}, id) AS had FROM me) "
        "INSERT INTO arena.run (id, project, host, pid) "
        f"SELECT id, {literal(project)}, {literal(host)}, {pid} FROM locked WHERE had RETURNING id"
    )


def hold_run(run: int) -> str:
    """Go on with a run after its connection was lost: no row where that is too late."""
    return f"SELECT 1 FROM arena.run WHERE id = {run} AND pg_try_advisory_lock({_RUNS}, {run})"


def take_run(run: int) -> str:
    """Take a dead run's lock, so that one alone cleans up after it."""
    return f"SELECT pg_try_advisory_lock({_RUNS}, {run})"


def free_run(run: int) -> str:
    """Give it back."""
    return f"SELECT pg_advisory_unlock({_RUNS}, {run})"


def end_run(run: int) -> str:
    """Strike a run that left nothing; one that did is cleaned up after by the next."""
    return (
        f"DELETE FROM arena.use WHERE run = {run}; DELETE FROM arena.run WHERE id = {run} "
        f"AND NOT EXISTS (SELECT FROM arena.database WHERE run = {run})"
    )


def strike_runs() -> str:
    """Strike the runs that are dead and have nothing left."""
    return (
        f"WITH dead AS (DELETE FROM arena.run r WHERE owner = current_user "
        f"AND id NOT IN ({_LIVING}) "
        "AND NOT EXISTS (SELECT FROM arena.database d WHERE d.run = r.id) RETURNING id) "
        "DELETE FROM arena.use USING dead WHERE run = dead.id"
    )


def note_database(name: str, kind: str, run: int, project: str) -> str:
    """Write the row of a database that is to be created."""
    return (
        "INSERT INTO arena.database (name, kind, run, project) VALUES "
        f"({literal(name)}, {literal(kind)}, {run}, {literal(project)}) RETURNING name"
    )


def renew_database(name: str, kind: str, run: int, project: str) -> str:
    """Write the row of a database again, after the registry was lost or the run taken for dead."""
    return (
        "INSERT INTO arena.database (name, kind, run, project) VALUES "
        f"({literal(name)}, {literal(kind)}, {run}, {literal(project)}) "
        f"ON CONFLICT (name) DO UPDATE SET run = {run}"
    )


def strike_database(name: str) -> str:
    """Delete the row of a database that is dropped."""
    return (
        f"DELETE FROM arena.database WHERE name = {literal(name)} AND NOT EXISTS "
        f"(SELECT FROM pg_database WHERE datname = {literal(name)}) RETURNING name"
    )


def owned(names: list[str]) -> str:
    """Ask which have a row of ours: name, kind, whether they exist, and are ours by owner."""
    return (
        "SELECT d.name::text, d.kind, b.oid IS NOT NULL, "
        "pg_get_userbyid(b.datdba) IS NOT DISTINCT FROM current_user FROM arena.database d "
        "LEFT JOIN pg_database b ON b.datname = d.name WHERE d.owner = current_user "
        f"AND d.name IN ({', '.join(map(literal, names))})"
    )


def finish(name: str, final: str, shelf: str, manifest: str) -> str:
    """Make a frozen database a template: all of it or nothing."""
    return (
        f"ALTER DATABASE {identifier(name)} RENAME TO {identifier(final)}; "
        f"ALTER DATABASE {identifier(final)} WITH IS_TEMPLATE true; "
        f"UPDATE arena.database SET name = {literal(final)}, kind = 'template', run = NULL, "
        f"shelf = {literal(shelf)}, manifest = {literal(manifest)}, created = clock_timestamp(), "
        f"used = clock_timestamp() WHERE name = {literal(name)} AND owner = current_user"
    )


def keep(name: str, final: str, title: str) -> str:
    """Keep a database for a look under a name of its own: all of it or nothing."""
    return (
        f"ALTER DATABASE {identifier(name)} RENAME TO {identifier(final)}; "
        f"ALTER DATABASE {identifier(final)} WITH ALLOW_CONNECTIONS true; "
        f"UPDATE arena.database SET name = {literal(final)}, kind = 'kept', run = NULL, "
        f"title = {literal(title)}, created = clock_timestamp() "
        f"WHERE name = {literal(name)} AND owner = current_user"
    )


def kept_too_many(stay: int) -> str:
    """Ask which kept databases are older than those that stay."""
    return (
        "SELECT name::text FROM arena.database WHERE kind = 'kept' AND owner = current_user "
        f"ORDER BY created DESC, name OFFSET {stay}"
    )


def templates(shelf: str) -> str:
    """Ask for the finished templates of ours, the newest first."""
    return (
        "SELECT d.name::text, d.manifest FROM arena.database d "
        "JOIN pg_database b ON b.datname = d.name "
        "WHERE d.kind = 'template' AND d.owner = current_user "
        f"AND d.shelf = {literal(shelf)} AND b.datistemplate AND NOT b.datallowconn "
        "ORDER BY d.created DESC, d.name"
    )


def begin_use(name: str, run: int) -> str:
    """Say that a living run uses a template. In turns with ``condemn``, so that one sees the other.

    Nothing is written where it is condemned already.
    """
    return (
        f"{_MY_TURN}; UPDATE arena.database SET used = clock_timestamp() "
        f"WHERE name = {literal(name)} AND kind = 'template' AND owner = current_user; "
        f"INSERT INTO arena.use (template, run) SELECT name, {run} FROM arena.database "
        f"WHERE name = {literal(name)} AND kind = 'template' ON CONFLICT DO NOTHING"
    )


def condemn(days: int | None, run: int) -> str:
    """Hand templates that no living run uses to this run, to be dropped; None for any age."""
    is_old = "" if days is None else f"AND used < clock_timestamp() - interval '{days} days'"
    kinds = "('template')" if days is not None else "('template', 'kept')"
    return (
        f"{_MY_TURN}; UPDATE arena.database d SET kind = 'condemned', run = {run} "
        f"WHERE kind IN {kinds} AND owner = current_user {is_old} AND NOT EXISTS "
        f"(SELECT FROM arena.use u WHERE u.template = d.name AND u.run IN ({_LIVING}))"
    )


def names_of(run: int) -> str:
    """Ask which databases are still a run's."""
    return f"SELECT name::text FROM arena.database WHERE run = {run} AND owner = current_user"


def condemned(run: int) -> str:
    """Ask what this run has to drop."""
    return f"SELECT name::text FROM arena.database WHERE kind = 'condemned' AND run = {run}"


def dead_ones(days: int, run: int) -> str:
    """Ask what is to be swept: runs (None for old templates), names, owners, whether ours.

    What this run has condemned and could not drop is among it, and so are runs without databases.
    The last column is "wanted" for one that a living run may take over, "offered" where none has
    asked for its template yet, else "".
    """
    return (
        f"WITH living AS MATERIALIZED ({_LIVING}) "
        "SELECT d.run, d.name::text, d.owner::text, d.owner = current_user, "
        "CASE WHEN d.kind <> 'live' OR NOT EXISTS (SELECT FROM arena.database t "
        "WHERE t.name = d.origin AND t.kind = 'template') THEN '' "
        "WHEN EXISTS (SELECT FROM arena.use u WHERE u.template = d.origin "
        "AND u.run IN (SELECT * FROM living)) THEN 'wanted' ELSE 'offered' END "
        "FROM arena.database d "
        "WHERE (d.run IS NOT NULL AND d.run NOT IN (SELECT * FROM living)) "
        f"OR (d.kind = 'condemned' AND d.run = {run}) "
        f"OR (d.kind = 'template' AND d.used < clock_timestamp() - interval '{days} days' "
        "AND d.owner = current_user AND NOT EXISTS (SELECT FROM arena.use u "
        "WHERE u.template = d.name AND u.run IN (SELECT * FROM living))) "
        "UNION ALL SELECT r.id, '', r.owner::text, r.owner = current_user, '' FROM arena.run r "
        "WHERE r.id NOT IN (SELECT * FROM living) "
        "AND NOT EXISTS (SELECT FROM arena.database d WHERE d.run = r.id)"
    )


def is_alone(run: int) -> str:
    """Ask whether nothing is left in the registry but one run."""
    return (
        "SELECT NOT EXISTS (SELECT FROM arena.database) "
        f"AND NOT EXISTS (SELECT FROM arena.run WHERE id <> {run})"
    )


def listed() -> str:
    """Ask for all databases that have a row."""
    return (
        f"WITH living AS MATERIALIZED ({_LIVING}) "
        "SELECT d.name::text, d.kind, d.project, coalesce(r.host, ''), coalesce(r.pid, 0), "
        "coalesce(d.run IN (SELECT * FROM living), false), d.created, d.used, "
        "CASE WHEN has_database_privilege(b.oid, 'CONNECT') THEN pg_database_size(b.oid) END, "
        "d.owner::text, coalesce(d.title, '') "
        "FROM arena.database d LEFT JOIN arena.run r ON r.id = d.run "
        "LEFT JOIN pg_database b ON b.datname = d.name ORDER BY d.created, d.name"
    )


def shelf_lock_patience(seconds: float) -> str:
    """How long the next statement waits for a lock."""
    return f"SET lock_timeout = {max(1, round(seconds * 1000))}; SET statement_timeout = 0"


def shelf_lock(shelf: str) -> str:
    """Lock a shelf for this session, over processes and machines."""
    return f"SELECT pg_advisory_lock(hashtextextended({literal(shelf)}, {_TURNS}))"

"""pytest-arena's databases on a PostgreSQL server."""

# ruff: noqa: S608 - names and texts are written by identifier() and literal() alone

from __future__ import annotations

import re
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

from pytest_arena._facts import sqlstate
from pytest_arena._postgresql._control import (
    WRITERS,
    ControlFailure,
    PostgreSQLControl,
    connect,
    identifier,
    literal,
    open_control,
)
from pytest_arena._postgresql._driver_guard import WORDS
from pytest_arena._process import until
from pytest_arena._product import Manifest, ScriptError, Template, nothing, read_manifest
from pytest_arena._product._database_registry import DatabaseRegistry, ServerBuild
from pytest_arena._product._own_databases import OwnDatabase, now
from pytest_arena._product._statements import classify
from pytest_arena._values import digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sqlalchemy.engine import Dialect

    from pytest_arena._product._server_control import Control
    from pytest_arena._values import Address


# The first numbers of advisory locks. A process holds (session, process).
_USES = 7_264_001  # templates, shared by the processes that copy them
TURNS = 7_264_002  # builds, and the creation of roles
_HOME = "postgres"  # the database in which all processes take their locks
_LEAVE_SECONDS = 5.0
_OF_PROCESS = re.compile(r"([0-9a-f]{8})(?:_([0-9a-f]{8}))?")
# With these settings no statement hangs, and the server detects a client that died silently.
_SESSION = (
    "SET lock_timeout = '10s'; SET statement_timeout = '10min'; SET search_path = pg_catalog; "
    "SET idle_in_transaction_session_timeout = '1min'; SET synchronous_commit = off; "
    "SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10; "
    "SET tcp_keepalives_count = 3"
)
_LISTED = """
SELECT datname::text, shobj_description(oid, 'pg_database'),
    coalesce('the role ' || nullif(pg_get_userbyid(datdba), current_user)::text, '')
FROM pg_database WHERE datname ^@ 'arena_' ORDER BY datname
"""
_LOCKS = """
SELECT classid::bigint, objid::bigint FROM pg_locks
WHERE locktype = 'advisory' AND objsubid = 2 AND granted
"""


# The database of a build

DESCRIBED = """
SELECT current_setting('server_version_num')::int / 10000,
       pg_encoding_to_char(encoding), datcollate, datctype,
       (SELECT md5(string_agg(name || ' ' || default_version, ',' ORDER BY name))
        FROM pg_available_extensions)
FROM pg_database WHERE datname = 'template1'
"""
_HAS_TABLES = """
SELECT EXISTS (
    SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'f') AND c.relpersistence <> 't'
      AND n.nspname NOT IN ('pg_catalog', 'information_schema')
      AND NOT EXISTS (SELECT FROM pg_depend d
                      WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                        AND d.deptype = 'e'))
"""


_OF_PG_DUMP = re.compile(r"(?m)^\\(?:restrict|unrestrict)\b.*$")
_COPY_FROM_STDIN = re.compile(r"(?im)^COPY\s[^;]*\sFROM\s+STDIN\b")


def _check_script(script: str) -> None:
    """Refuse a script with data for psql, and one that reaches beyond the database.

    Raises:
        ScriptError: it is such a script.
    """
    copy = _COPY_FROM_STDIN.search(script)
    if copy is not None:
        raise ScriptError(
            "pytest-arena does not run COPY … FROM stdin",
            line=script.count("\n", 0, copy.start()) + 1,
            fix="pg_dump --inserts",
        )
    beyond = classify(script, WORDS).beyond
    if beyond:
        delete = "delete it from the script (pg_dump without --create and --clean)"
        raise ScriptError(
            f"{beyond} reaches beyond the database that is built",
            line=0,
            fix=WORDS.instead.get(beyond, delete),
        )


@dataclass(frozen=True, slots=True)
class DatabaseTarget(ServerBuild):
    """The database that a build fills with the app's drivers."""

    def run_script(self, script: str) -> None:
        """Run a script on a separate connection, so that the script's settings end with it."""
        script = _OF_PG_DUMP.sub("", script.removeprefix("\ufeff"))
        _check_script(script)
        with closing(open_control(self.address)) as control:
            try:
                control.run(script)
            except ControlFailure as error:
                diagnostics = getattr(error.__cause__, "diag", None)
                position = int(getattr(diagnostics, "statement_position", None) or 0)
                line = script.count("\n", 0, position - 1) + 1 if position else 0
                raise ScriptError(str(error), line=line, fix=next_step(error.__cause__)) from error

    def has_tables(self) -> bool:
        """Return whether the database has a table."""
        with closing(open_control(self.address)) as control:
            return control.rows(_HAS_TABLES) == [(True,)]

    def is_being_written(self) -> bool:
        """Return whether a transaction in the database has written."""
        return bool(self.registry.control.rows(WRITERS.format(literal(self.address.database))))


_PSYCOPG = "psycopg"  # sync and async


def drivers_of(dialect: type[Dialect]) -> tuple[str, str]:
    """Return the drivers for sync and for async functions.

    The app's driver is preferred, because the app reads the values that it writes. An app on
    asyncpg has no driver for sync functions ("").
    """
    if dialect.driver == _PSYCOPG:
        return _PSYCOPG, _PSYCOPG
    if dialect.is_async:
        return "", dialect.driver
    return dialect.driver, _PSYCOPG


_OWN = "arena_database = own   (a private server, on which a schema may do anything)"
_BYPASS = f"ALTER ROLE … BYPASSRLS;   -- as a superuser, for the login of arena_database\nor {_OWN}"
# The next step by the SQLSTATE, and what must be in the message. A code has several meanings.
_STEPS = {
    "3F000": (
        "schema",
        "CREATE SCHEMA IF NOT EXISTS {name}   (before its tables are created)",
    ),
    "42501": ("", _OWN),  # insufficient_privilege
    "42704": (
        "role",
        (
            "arena_roles = {name}   (created on a private server; must exist on any other)\n"
            "or, for a dump: pg_dump --no-owner --no-privileges …"
        ),
    ),
}


def next_step(error: BaseException | None) -> str:
    """Return what to do after a statement of a build has failed, "" if it is not known."""
    of_driver = getattr(error, "orig", None) or error
    text = str(of_driver)
    if "row-level security" in text:
        return _BYPASS
    subject, step = _STEPS.get(str(sqlstate(of_driver)), ("", ""))
    if subject not in text:
        return ""
    quoted = re.search(r'"([^"]+)"', text)
    return step.replace("{name}", quoted[1] if quoted else "…")


class ServerRegistry(DatabaseRegistry):
    """The databases of a process on a PostgreSQL server."""

    product = "postgresql"
    # The server's version, encoding, locale and extensions.
    question = DESCRIBED
    give_rights = 'ALTER ROLE "{user}" CREATEDB;   -- as a superuser'
    advice = staticmethod(next_step)
    another = "ARENA_DATABASE=own pytest …   # a private server, or the URL of another server"
    socket = "host"

    def __init__(self, address: Address, **options: Any) -> None:
        # For each source, the strategy of a copy, and the statement for the copy's settings.
        self._copy_plans: dict[str, tuple[str, str | None]] = {}
        super().__init__(address, **options)

    # Connect and lock

    def _control(self, set_up: Callable[[Control], object] = nothing) -> Control:
        def begin(control: Control) -> None:
            control.run(_SESSION)
            set_up(control)

        return PostgreSQLControl(partial(connect, self.address_of(_HOME)), begin)

    def _hold(self, control: Control, name: str) -> None:
        control.run(f"SELECT pg_advisory_lock_shared{_lock(*_numbers(name))}")

    def _release(self, control: Control) -> None:
        control.run("SELECT pg_advisory_unlock_all()")

    def _acquire(self, control: Control, name: str, seconds: float) -> bool:
        patience = max(1, round(seconds * 1000))
        try:
            control.run(f"SET lock_timeout = {patience}; SET statement_timeout = 0")
            control.run(f"SELECT pg_advisory_lock{_lock(TURNS, _number(name))}")
        except ControlFailure as error:
            if error.code != "55P03":
                raise
            return False
        return True

    def _held(self, control: Control, names: Iterable[str]) -> set[str]:
        locks = set(control.rows(_LOCKS))
        return {name for name in names if _numbers(name) in locks}

    # Read and write

    def _describe(self, control: Control) -> list[OwnDatabase]:
        return [
            OwnDatabase(name=name, manifest=read_manifest(label), role=role)
            for name, label, role in control.rows(_LISTED)
        ]

    def _text_of(self, control: Control, name: str) -> str | None:
        rows = control.rows(
            "SELECT shobj_description(oid, 'pg_database') FROM pg_database "
            f"WHERE datname = {literal(name)} AND datistemplate AND NOT datallowconn"
        )
        return rows[0][0] if rows else None

    # Build

    def ddl_dialect(self) -> Dialect:
        """Return a dialect for DDL."""
        return PGDialect()  # type: ignore[no-untyped-call]

    def _build(self, address: Address, dialect: type[Dialect]) -> DatabaseTarget:
        url = partial(self.url_of, address, self.product)
        sync_driver, async_driver = drivers_of(dialect)
        sync_url = url(sync_driver) if sync_driver else None
        return DatabaseTarget(self, address, sync_url, url(async_driver))

    # Copy

    def _copy(self, control: Control, template: str | None, name: str) -> None:
        source = template or "template0"
        if source not in self._copy_plans:
            [self._copy_plans[source]] = control.rows(_source_question(source))
        strategy, settings = self._copy_plans[source]
        statement = f"CREATE DATABASE {identifier(name)} TEMPLATE {identifier(source)} {strategy}"
        if template is None:
            control.run(f"{statement} ENCODING 'UTF8'")
            return
        control.run(statement)
        if settings:
            control.run(settings.replace(COPY, identifier(name)))

    def derived(self, template: str | None, *scripts: str) -> str | None:
        """Return the template that scripts make of a copy of a template or of an empty database.

        pytest-arena builds it once for all runs and workers on a server. The build costs a copy of
        the database. Later calls cost one or two round trips.

        Raises:
            TemplateError: another process builds it for too long.
            IsolationError, ServerError: the template cannot be copied, or a script fails.
        """
        script = ";\n".join(filter(None, scripts))
        if not script:
            return template
        base = template or "empty"

        def fill(target: Any, now: float) -> Manifest:
            # The app's event triggers do not fire for a replica.
            settings = {"session_replication_role": "replica"}
            with (
                self.reporting(f"{base} cannot be prepared for tests"),
                closing(open_control(target.address, settings)) as control,
            ):
                control.run(script)
            return Manifest(now, f"prepared {base}")

        below = Template(template, "", Manifest(0)) if template else None
        fingerprint = self.fingerprint_on(base, digest(script))
        return str(self.find_or_build(fingerprint, below, fill, PGDialect_psycopg).content)

    # Freeze and rename

    def freeze(self, name: str) -> None:
        """Refuse new connections to a database and end its connections, for a copy of it."""
        with self.reporting(f"{name} cannot be frozen"):
            self.control.run(f"ALTER DATABASE {identifier(name)} WITH ALLOW_CONNECTIONS false")
            self.end_sessions(f"datname = {literal(name)}")

    def end_sessions(self, where: str) -> None:
        """End sessions. A backend keeps its advisory locks until it has exited, so wait for it."""
        question = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {where}"
        until(lambda: not self.control.rows(question), within=_LEAVE_SECONDS)

    def thaw(self, name: str) -> None:
        """Allow new connections to a frozen database."""
        with self.reporting(f"{name} cannot be opened"):
            self.control.run(f"ALTER DATABASE {identifier(name)} WITH ALLOW_CONNECTIONS true")

    def _finish(self, name: str, final: str, text: str) -> None:
        """Freeze the database, so that PostgreSQL can copy it, and rename it in one transaction.

        Drop an older template of this name.
        """
        self.freeze(name)
        if self._text_of(self.control, final) is not None:
            older = self.names.new("building")
            self.databases.add(older)
            self.control.run(
                f"ALTER DATABASE {identifier(final)} WITH IS_TEMPLATE false; "
                f"ALTER DATABASE {identifier(final)} RENAME TO {identifier(older)}"
            )
            self.drop_later(older)
        self._rename(name, final, "WITH IS_TEMPLATE true", text)
        self._copy_plans.pop(final, None)

    def keep(self, name: str, title: str, *, called: str = "") -> str:
        """Keep a database for inspection, and end its connections. Return its new name."""
        final = called or self.names.new("kept")
        self.freeze(name)
        with self.reporting(f"{name} cannot be kept"):
            self._rename(name, final, "WITH ALLOW_CONNECTIONS true", Manifest(now(), title).text())
        return final

    def _rename(self, name: str, final: str, option: str, text: str) -> None:
        """Rename a frozen database so that it outlives this process, in one transaction."""
        self.control.run(
            f"ALTER DATABASE {identifier(name)} RENAME TO {identifier(final)}; "
            f"ALTER DATABASE {identifier(final)} {option}; "
            f"COMMENT ON DATABASE {identifier(final)} IS {literal(text)}"
        )
        self.databases.discard(name)

    # Drop

    def _drop_now(self, control: Control, name: str) -> None:
        rows = control.rows(
            "SELECT datistemplate, pg_get_userbyid(datdba) = current_user FROM pg_database "
            f"WHERE datname = {literal(name)}"
        )
        if not rows:
            return
        [(is_template, is_ours)] = rows
        if not is_ours:
            raise ControlFailure("another role has become its owner", "42501")
        lock = _lock(*_numbers(name))
        if is_template:
            # A process that copies it holds this lock.
            if control.rows(f"SELECT pg_try_advisory_lock{lock}") != [(True,)]:
                raise ControlFailure("a living run uses it", "55006")
            control.run(f"ALTER DATABASE {identifier(name)} WITH IS_TEMPLATE false")
        try:
            # A lost connection may repeat the statement.
            control.run(f"DROP DATABASE IF EXISTS {identifier(name)} WITH (FORCE)")
        finally:
            if is_template:
                control.rows(f"SELECT pg_advisory_unlock{lock}")


_COPY = "the copy"
COPY = identifier(_COPY)


def _source_question(name: str) -> str:
    """Write the query for the strategy of a copy, and for the statements that adapt it.

    PostgreSQL does not copy the rights and the settings of a database. The statements set them in
    the copy. They also switch off ``synchronous_commit``, so that no commit in the copy waits for
    the disk. The column is NULL if the copy needs no statement. A ``search_path`` is a list of
    quoted names.
    """
    # FILE_COPY is faster: 147 ms for 227 MB on tmpfs, and WAL_LOG takes 1,416 ms. But with fsync
    # FILE_COPY costs a checkpoint, so WAL_LOG is faster for small databases.
    return f"""
WITH d AS (SELECT * FROM pg_database WHERE datname = {literal(name)}),
pairs AS (
    SELECT coalesce('ROLE ' || quote_ident(r.rolname) || ' IN ', '') AS whose,
        split_part(pair, '=', 1) AS key, substr(pair, strpos(pair, '=') + 1) AS value
    FROM d JOIN pg_db_role_setting s ON s.setdatabase = d.oid
    LEFT JOIN pg_roles r ON r.oid = s.setrole CROSS JOIN unnest(s.setconfig) pair
    WHERE s.setrole = 0 OR r.oid IS NOT NULL),
statements (turn, statement) AS (
    SELECT 0, format('ALTER DATABASE %I SET synchronous_commit TO off', '{_COPY}')
    FROM pg_settings WHERE name = 'synchronous_commit' AND reset_val <> 'off'
    UNION ALL
    SELECT 1, format('REVOKE ALL ON DATABASE %I FROM PUBLIC, %I', '{_COPY}',
        pg_get_userbyid(datdba)) FROM d WHERE datacl IS NOT NULL
    UNION ALL
    SELECT 2, format('GRANT %s ON DATABASE %I TO %s', a.privilege_type, '{_COPY}',
        coalesce(quote_ident(r.rolname), 'PUBLIC'))
    FROM d, aclexplode(d.datacl) a LEFT JOIN pg_roles r ON r.oid = a.grantee
    WHERE a.grantee = 0 OR r.oid IS NOT NULL
    UNION ALL
    SELECT 3, format('ALTER %sDATABASE %I SET %I TO %s', whose, '{_COPY}', key,
        CASE WHEN key = 'search_path' THEN (SELECT coalesce(string_agg(
                quote_literal(coalesce(replace(part[1], '""', '"'), part[2])), ', '), '''''')
            FROM regexp_matches(value, '"((?:[^"]|"")*)"|([^,\\s]+)', 'g') part)
        ELSE quote_literal(value) END) FROM pairs)
SELECT CASE WHEN current_setting('server_version_num')::int < 150000 THEN ''
    WHEN current_setting('fsync') = 'on' THEN 'STRATEGY WAL_LOG' ELSE 'STRATEGY FILE_COPY' END,
    (SELECT string_agg(statement, '; ' ORDER BY turn) FROM statements)
"""


def _number(name: str) -> int:
    """Return the second number of the lock for a template or a build."""
    return int(digest(name)[:8], 16)


def _numbers(name: str) -> tuple[int, int]:
    """Return the numbers of the lock of a process, a session or a template."""
    match = _OF_PROCESS.fullmatch(name)
    if match is None:
        return _USES, _number(name)
    return int(match[1], 16), int(match[2] or "0", 16)


def _lock(first: int, second: int) -> str:
    """Write two numbers of an advisory lock. They are signed there, and not in ``pg_locks``."""
    signed = [number - 2**32 if number >= 2**31 else number for number in (first, second)]
    return f"({signed[0]}, {signed[1]})"

"""Templates that are databases, on the server itself: PostgreSQL's."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.engine import URL, Dialect

from pytest_arena._postgresql._control import ControlFailure, literal, open_control
from pytest_arena._postgresql._scripts import run_script
from pytest_arena._product import (
    BuildTarget,
    ConnectTarget,
    Key,
    Manifest,
    ScriptError,
    Template,
    read_manifest,
)
from pytest_arena.errors import TemplateError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_arena._postgresql.registry import ServerRegistry
    from pytest_arena._values import Address


_DESCRIBED = """
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
# A transaction has a number of its own from its first write on. Autovacuum's are nobody's.
_IS_BEING_WRITTEN = """
SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = {0} AND backend_xid IS NOT NULL
               AND backend_type = 'client backend')
    OR EXISTS (SELECT FROM pg_prepared_xacts WHERE database = {0})
"""
# PostgreSQL empties unlogged tables after a crash. If one of its processes has died, the postmaster
# stays and starts the others again.
_SERVER_START = """
SELECT concat_ws(' ', pg_postmaster_start_time(),
    (SELECT max(backend_start) FROM pg_stat_activity WHERE backend_type = 'checkpointer'))
"""
_HAS_UNLOGGED_ROWS = """
SELECT EXISTS (
    SELECT FROM pg_class
    WHERE relkind = 'r' AND relpersistence = 'u' AND pg_relation_size(oid) > 0)
"""
_LOCK_SECONDS = 600  # longer than a build takes; a dead builder's lock is free at once


def url_of(address: Address, driver: str) -> URL:
    """Return the URL under which anybody reaches a database by a driver, with our own login."""
    return URL.create(
        f"postgresql+{driver}",
        username=address.user,
        password=address.password or None,
        host=None if address.is_socket else address.host,
        port=address.port,
        database=address.database,
        query={"host": address.host} if address.is_socket else {},
    )


@dataclass(frozen=True, slots=True)
class DatabaseTarget:
    """A database that nobody else knows of, by the drivers that the app has."""

    own: ServerRegistry
    address: Address
    sync_driver: str  # "" where there is none
    async_driver: str
    product: str = "PostgreSQL"
    has_schemas: bool = True

    @property
    def connect_target(self) -> ConnectTarget:
        """Its name, which the server has only once."""
        name = f"{self.address.server}/{self.address.database}"
        return ConnectTarget(Key("building", name), "", (0, 0), self.address)

    @property
    def sync_url(self) -> URL | None:
        """By the sync driver; with asyncpg there is none."""
        return url_of(self.address, self.sync_driver) if self.sync_driver else None

    @property
    def async_url(self) -> URL:
        """By the async driver."""
        return url_of(self.address, self.async_driver)

    def run_script(self, script: str) -> None:
        """On a connection of arena's own: what the script sets there ends with it."""
        with contextlib.closing(open_control(self.address)) as control:
            try:
                run_script(control, script)
            except ScriptError as error:
                error.fix = error.fix or _next_step(error.__cause__)
                raise

    def has_tables(self) -> bool:
        """Asked of a connection of arena's own."""
        with contextlib.closing(open_control(self.address)) as control:
            return control.rows(_HAS_TABLES) == [(True,)]

    def is_being_written(self) -> bool:
        """As the server knows it."""
        question = _IS_BEING_WRITTEN.format(literal(self.address.database))
        return self.own.control.rows(question) == [(True,)]

    def remove(self) -> None:
        """Whoever is connected."""
        self.own.drop(self.address.database)


@dataclass(frozen=True)
class DatabaseTemplates:
    """A template is a database; its manifest stands in the registry of those that are arena's.

    Many machines share them. ``dialect`` is that of the app's engine, None where it has none yet.
    """

    own: ServerRegistry
    dialect: Dialect | None
    folder: None = None

    @property
    def ddl(self) -> Dialect:
        """The same for every driver: it is of none."""
        dialect: Dialect = cast("Any", PGDialect)()
        return dialect

    def identity(self) -> str:
        """Whatever the server adds to a database: version, encoding, locale, extensions."""
        return self._identity

    @cached_property
    def _identity(self) -> str:
        [values] = self.own.control.rows(_DESCRIBED)
        return " ".join(map(str, ("postgresql", *values)))

    def templates(self, fingerprint: str) -> Iterator[Template[str]]:
        """As the registry has them."""
        for name, text in self.own.templates(fingerprint):
            manifest = read_manifest(text)
            if manifest is not None and self._has_its_rows(manifest):
                yield Template(name, fingerprint, manifest)

    def _has_its_rows(self, manifest: Manifest) -> bool:
        """Whether no crash can have emptied the template's unlogged tables."""
        return not manifest.server_start or manifest.server_start == self._server_start

    @cached_property
    def _server_start(self) -> str:
        [(start,)] = self.own.control.rows(_SERVER_START)
        return str(start)

    def is_whole(self, template: Template[str]) -> bool:
        """Whether nobody has dropped it meanwhile; a template itself is never connected to."""
        return any(
            name == template.content
            for name, _ in self.own.templates(template.fingerprint)
        )

    def used(self, template: Template[str]) -> None:
        """In the registry."""
        self.own.used(template.content)

    @contextlib.contextmanager
    def locked(self, fingerprint: str) -> Iterator[float]:
        """By the server, for all its machines."""
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(self.own.lock(fingerprint, seconds=_LOCK_SECONDS))
            except TimeoutError:
                raise self._waited() from None
            yield _now()

    def _waited(self) -> TemplateError:
        building = [
            row for row in self.own.listed() if row.kind == "building" and row.alive
        ]
        return TemplateError(
            f"another process has been building a template for {_LOCK_SECONDS} s",
            why="a template is built once for all processes, so that this one waits",
            cause="\n".join(
                {f"process {row.pid} on {row.host}, {row.project}" for row in building}
            )
            or "whoever holds the lock on the server",
            fix="end that process; its lock is free at once",
        )

    def clear(self, fingerprint: str) -> None:  # noqa: ARG002 - the registry knows all shelves
        """What dead runs have left, and old templates."""
        self.own.sweep()

    def begin(self, fingerprint: str, below: Template[str] | None) -> DatabaseTarget:  # noqa: ARG002 - on no shelf before it is finished
        """A copy of the template below, settings of its own included."""
        name = self.own.create("building", template=below.content if below else None)
        return DatabaseTarget(
            self.own, self.own.address_of(name), *_drivers(self.dialect)
        )

    def scratch(self) -> DatabaseTarget:
        """With no template's content."""
        return self.begin("", None)

    def finish(self, target: BuildTarget, fingerprint: str, manifest: Manifest) -> str:
        """Nobody connects to it from here on, so that it can be copied at any time."""
        address = cast("DatabaseTarget", target).address
        name = address.database
        with contextlib.closing(open_control(address)) as control:
            has_unlogged_rows = control.rows(_HAS_UNLOGGED_ROWS) == [(True,)]
        if has_unlogged_rows:
            manifest = replace(manifest, server_start=self._server_start)
        self.own.freeze(name)
        text = manifest.text()
        title = manifest.title
        return self.own.finish_template(
            name, fingerprint=fingerprint, manifest=text, title=title
        )

    def advice(self, error: BaseException) -> str:
        """By the server's code for it."""
        return _next_step(error)

    def lacks_table(self, error: BaseException) -> bool:
        """By the server's code for it."""
        return _FAILED_BY.get(_sqlstate(error)) == "table"

    def not_stored(self, error: Exception) -> TemplateError | None:
        """The server is gone, or refuses."""
        if not isinstance(error, ControlFailure):
            return None
        return TemplateError(
            f"the template cannot be stored: {error}",
            why="schema and seed are built once, into a database that each test's is copied from",
            cause=f"PostgreSQL on {self.own.address_of('').server} has ended, or is out of reach",
            fix="ARENA_DATABASE=own pytest …   (a private server)",
        )


def derived(
    own: ServerRegistry,
    template: str | None,
    fingerprint: str,
    change: Callable[[Address], str],
) -> str:
    """Return the template that is a copy of another one, or of none, with a change made to it.

    It is built once for all runs and workers on a server, which costs a copy of the database; where
    it is there, a round trip or two. ``change`` returns its manifest.

    Raises:
        TemplateError: another process has been building it all the time.
        IsolationError, ServerError: no copy can be made. Whatever ``change`` raises.
    """
    if found := _found(own, fingerprint):
        return found
    with DatabaseTemplates(own, None).locked(fingerprint):
        return _found(own, fingerprint) or _changed(own, template, fingerprint, change)


def _found(own: ServerRegistry, fingerprint: str) -> str:
    names = [name for name, _ in own.templates(fingerprint)]
    if names:
        own.used(names[0])
    return names[0] if names else ""


def _changed(
    own: ServerRegistry,
    template: str | None,
    fingerprint: str,
    change: Callable[[Address], str],
) -> str:
    name = own.create("building", template=template)
    try:
        with own.saying(f"no template {fingerprint}"):
            manifest = change(own.address_of(name))
        own.freeze(name)
        return own.finish_template(
            name, fingerprint=fingerprint, manifest=manifest, title=fingerprint
        )
    except BaseException:
        own.drop_later(name)
        raise


# The app's own driver comes first: what it makes of a value, the app reads back.
_PSYCOPG = "psycopg"  # sync and async


def _drivers(dialect: Dialect | None) -> tuple[str, str]:
    """Return the drivers for sync and for async functions.

    "" for sync functions of an app on asyncpg: they never get another driver than the app's.
    """
    if dialect is None or dialect.driver == _PSYCOPG:
        return _PSYCOPG, _PSYCOPG
    if dialect.is_async:
        return "", dialect.driver
    return dialect.driver, _PSYCOPG


def _now() -> float:
    """The time of a file that was just made: a test may have changed the clock, but not this."""
    with tempfile.TemporaryFile() as file:
        return os.fstat(file.fileno()).st_mtime


def _sqlstate(error: BaseException | None) -> str:
    """Return PostgreSQL's code for an error of any driver, of SQLAlchemy's or of arena's."""
    seen: Any = getattr(error, "orig", None) or error
    return getattr(seen, "sqlstate", None) or getattr(seen, "pgcode", None) or ""


_FAILED_BY = {
    "42P01": "table",  # undefined_table
    "3D000": "database",  # invalid_catalog_name
    "3F000": "schema",  # invalid_schema_name
    "0A000": "extension",  # feature_not_supported: … is not available
    "58P01": "extension",  # undefined_file: could not open extension control file
    "42501": "rights",  # insufficient_privilege
    "42710": "role",  # duplicate_object
    "42704": "no role",  # undefined_object
}


def _next_step(error: BaseException | None) -> str:
    """Return what to do after a statement of a build has failed; "" where it is not known."""
    kind = _FAILED_BY.get(_sqlstate(error), "")
    text = str(getattr(error, "orig", None) or error)
    extension = _missing_extension(text)
    if extension:
        return _CREATE_EXTENSION.format(name=extension)
    if (
        kind in {"extension", "role", "no role"}
        and kind.removeprefix("no ") not in text
    ):
        return ""  # the code means other things too
    name = re.search(r'"([^"]+)"', text)
    return _STEPS.get(kind, "").format(name=name[1] if name else "…")


# The extension that defines a type, an operator class or a function, by the name of that.
_EXTENSIONS = {
    **{name: name for name in ("citext", "hstore", "ltree", "cube", "isn", "unaccent")},
    **dict.fromkeys(("vector", "halfvec", "sparsevec"), "vector"),
    **dict.fromkeys(("geometry", "geography"), "postgis"),
    **dict.fromkeys(("gin_trgm_ops", "gist_trgm_ops", "similarity"), "pg_trgm"),
    **dict.fromkeys(("crypt", "gen_salt", "digest", "gen_random_bytes"), "pgcrypto"),
    **dict.fromkeys(("uuid_generate_v1", "uuid_generate_v4"), "uuid-ossp"),
}
_LACKS = re.compile(
    r"""(?: type | operator\ class )\ "(?:\w+\.)?(\w+)" .* does\ not\ exist
    | function\ (?:\w+\.)?(\w+)\( .* does\ not\ exist""",
    re.VERBOSE,
)
_CREATE_EXTENSION = (
    'CREATE EXTENSION IF NOT EXISTS "{name}"   before the tables: in the first migration, or\n'
    "event.listen(Base.metadata, 'before_create', DDL('CREATE EXTENSION IF NOT EXISTS \"{name}\"'))"
)


def _missing_extension(text: str) -> str:
    """Return the extension that defines a missing type or function, or "" if it is not known."""
    missing = _LACKS.search(text)
    if missing is None:
        return ""
    name = missing[1] or missing[2]
    return _EXTENSIONS.get(name, "")


_STEPS = {
    "database": "the database has another name in tests, so ask for it:\n"
    "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET …', current_database()); END $$",
    "schema": "CREATE SCHEMA IF NOT EXISTS {name}   (before what stands in it is made)",
    "extension": "apt-get install postgresql-contrib   (or the extension's own package, on the "
    "server)",
    "role": "DO $$ BEGIN CREATE ROLE {name}; EXCEPTION WHEN duplicate_object THEN NULL; END $$\n"
    "(a role is the server's, and is there from the build before)",
    "no role": "arena_roles = {name}   (made on a private server, to be there on any other)\n"
    "or, of a dump: pg_dump --no-owner --no-privileges …",
    "rights": "arena_database = own   (a private server, on which a schema may do anything)",
}

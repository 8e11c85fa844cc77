"""Templates, which are databases on the server."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_arena._postgresql._control import ControlFailure, literal, open_control
from pytest_arena._postgresql._driver_guard import WORDS
from pytest_arena._product import ScriptError
from pytest_arena._product._database_registry import ServerBuild
from pytest_arena._product._statements import classify
from pytest_arena._values import sqlstate

if TYPE_CHECKING:
    from sqlalchemy.engine import Dialect


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
# A transaction gets its id at its first write. The backend type excludes autovacuum.
_IS_BEING_WRITTEN = """
SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = {0} AND backend_xid IS NOT NULL
               AND backend_type = 'client backend')
"""


_OF_PG_DUMP = re.compile(r"(?m)^\\(?:restrict|unrestrict)\b.*$")
_COPY = re.compile(r"(?im)^COPY\s[^;]*\sFROM\s+STDIN\b")


def _check_script(script: str) -> None:
    """Refuse a script with data for psql, and one that reaches beyond the database.

    Raises:
        ScriptError: it is such a script.
    """
    copy = _COPY.search(script)
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

    has_schemas = True

    def run_script(self, script: str) -> None:
        """Run a script on a separate connection, so that the script's settings end with it."""
        script = _OF_PG_DUMP.sub("", script.removeprefix("\ufeff"))
        _check_script(script)
        with contextlib.closing(open_control(self.address)) as control:
            try:
                control.run(script)
            except ControlFailure as error:
                diagnostics = getattr(error.__cause__, "diag", None)
                position = int(getattr(diagnostics, "statement_position", None) or 0)
                line = script.count("\n", 0, position - 1) + 1 if position else 0
                fix = next_step(error.__cause__)
                raise ScriptError(str(error), line=line, fix=fix) from error

    def has_tables(self) -> bool:
        """Return whether the database has a table."""
        with contextlib.closing(open_control(self.address)) as control:
            return control.rows(_HAS_TABLES) == [(True,)]

    def is_being_written(self) -> bool:
        """Return whether a transaction in the database has written."""
        question = _IS_BEING_WRITTEN.format(literal(self.address.database))
        return self.registry.control.rows(question) == [(True,)]


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
_INSTALL = "apt-get install postgresql-contrib   (or the package of the extension, on the server)"
# The next step by the SQLSTATE, and what must be in the message. A code has several meanings.
_STEPS = {
    "3F000": (
        "schema",
        "CREATE SCHEMA IF NOT EXISTS {name}   (before its tables are created)",
    ),
    "0A000": ("extension", _INSTALL),  # feature_not_supported: … is not available
    "58P01": ("extension", _INSTALL),  # could not open extension control file
    "42501": ("", _OWN),  # insufficient_privilege
    "42704": (
        "role",
        (
            "arena_roles = {name}   (created on a private server; must exist on any other)\n"
            "or, for a dump: pg_dump --no-owner --no-privileges …"
        ),
    ),
}
# The extension that defines a type, an operator class or a function.
_EXTENSIONS = {
    "citext": "citext",
    "hstore": "hstore",
    "ltree": "ltree",
    "vector": "vector",
    "geometry": "postgis",
    "geography": "postgis",
    "gin_trgm_ops": "pg_trgm",
    "crypt": "pgcrypto",
    "gen_salt": "pgcrypto",
    "uuid_generate_v4": "uuid-ossp",
}
_LACKS = re.compile(
    r"""(?:(?:type|operator class) "|function )(?:\w+\.)?(\w+)["(].* does not exist"""
)
_CREATE_EXTENSION = (
    'CREATE EXTENSION IF NOT EXISTS "{name}"   before the tables: in the first migration, or\n'
    "event.listen(Base.metadata, 'before_create', DDL('CREATE EXTENSION IF NOT EXISTS \"{name}\"'))"
)


def next_step(error: BaseException | None) -> str:
    """Return what to do after a statement of a build has failed, "" if it is not known."""
    text = str(getattr(error, "orig", None) or error)
    lacking = _LACKS.search(text)
    if lacking is not None and lacking[1] in _EXTENSIONS:
        return _CREATE_EXTENSION.format(name=_EXTENSIONS[lacking[1]])
    if "row-level security" in text:
        return _BYPASS
    code = str(sqlstate(getattr(error, "orig", None) or error))
    subject, step = _STEPS.get(code, ("", ""))
    if subject not in text:
        return ""
    quoted = re.search(r'"([^"]+)"', text)
    return step.replace("{name}", quoted[1] if quoted else "…")

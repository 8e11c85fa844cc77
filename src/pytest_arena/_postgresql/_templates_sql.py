"""What is a server, and a database on it that is being filled, asked and told?"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from pytest_arena._postgresql._control import literal

if TYPE_CHECKING:
    from pytest_arena._postgresql._control import Control

__all__ = [
    "described",
    "has_tables",
    "is_being_written",
    "lacks_table",
    "next_step",
    "sqlstate_of",
]

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


def described(control: Control) -> str:
    """Return what the server adds to each database: version, encoding, locale, extensions."""
    return " ".join(str(value) for value in control.rows(_DESCRIBED)[0])


def has_tables(control: Control) -> bool:
    """Whether the connection's database has a table that is not an extension's own."""
    return bool(control.rows(_HAS_TABLES)[0][0])


def is_being_written(control: Control, database: str) -> bool:
    """Whether somebody has written in a database, and neither committed nor rolled back."""
    return bool(control.rows(_IS_BEING_WRITTEN.format(literal(database)))[0][0])


def sqlstate_of(error: BaseException | None) -> str:
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
}


def lacks_table(error: BaseException) -> bool:
    """Whether a table is missing that the statement names."""
    return _FAILED_BY.get(sqlstate_of(error)) == "table"


def next_step(error: BaseException) -> str:
    """Return what to do after a statement of a build has failed; "" where it is not known."""
    kind = _FAILED_BY.get(sqlstate_of(error), "")
    text = str(getattr(error, "orig", None) or error)
    if kind in {"extension", "role"} and kind not in text:  # the code means other things too
        return ""
    name = re.search(r'"([^"]+)"', text)
    return _STEPS.get(kind, "").format(name=name[1] if name else "…")


_STEPS = {
    "database": "the database has another name in tests, so ask for it:\n"
    "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET …', current_database()); END $$",
    "schema": "CREATE SCHEMA IF NOT EXISTS {name}   (before what stands in it is made)",
    "extension": "apt-get install postgresql-contrib   (or the extension's own package, on the "
    "server)",
    "role": "DO $$ BEGIN CREATE ROLE {name}; EXCEPTION WHEN duplicate_object THEN NULL; END $$\n"
    "(a role is the server's, and is there from the build before)",
    "rights": "arena_database = own   (a private server, on which the app may do anything)",
}

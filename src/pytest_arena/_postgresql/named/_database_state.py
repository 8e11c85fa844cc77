"""Whether tests may run in a database that pytest-arena did not create."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_arena._postgresql.servers._find import NAMES_NO_TEST_DATABASE
from pytest_arena._product._server_targets import is_own_name

if TYPE_CHECKING:
    from pytest_arena._postgresql._control import Control

# `test` is a word of shop_test and testdb, but not of latest and contest.
_FOR_TESTS = re.compile(r"(?<![a-z])test(s|ing|db)?(?![a-z])", re.IGNORECASE)
_OF_USER = """
    nspname !~ '^pg_' AND nspname <> 'information_schema' AND NOT EXISTS (
    SELECT FROM pg_catalog.pg_depend d
    WHERE d.classid = o.tableoid AND d.objid = o.oid AND d.deptype = 'e')
"""
_STATE = f"""
SELECT b.datname::text, b.datistemplate,
    NOT EXISTS (SELECT FROM pg_catalog.pg_class o
        JOIN pg_catalog.pg_namespace n ON n.oid = o.relnamespace WHERE {_OF_USER})
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_proc o
        JOIN pg_catalog.pg_namespace n ON n.oid = o.pronamespace WHERE {_OF_USER})
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_type o
        JOIN pg_catalog.pg_namespace n ON n.oid = o.typnamespace
        WHERE o.typtype IN ('d', 'e', 'r') AND {_OF_USER})
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_largeobject_metadata)
FROM pg_catalog.pg_database b WHERE b.datname = pg_catalog.current_database()
"""  # noqa: S608 - constants


@dataclass(frozen=True, slots=True)
class DatabaseState:
    """A database of a server."""

    name: str
    is_template: bool
    is_empty: bool  # without objects, except those of extensions

    @property
    def refusal(self) -> str:
        """Why tests do not run in the database, "" if they may."""
        if self.name in NAMES_NO_TEST_DATABASE or self.is_template:
            return "new databases are copied from it, or tools connect to it"
        if is_own_name(self.name):
            return "it belongs to pytest-arena"
        if not self.is_empty and not _FOR_TESTS.search(self.name):
            return "it is not empty, and its name does not have the word test"
        return ""


def read_state(control: Control) -> DatabaseState:
    """Return the state of the connection's database. Raises as ``Control.rows`` does."""
    return DatabaseState(*control.rows(_STATE)[0])

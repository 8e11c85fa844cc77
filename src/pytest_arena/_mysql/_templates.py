"""Templates, which are databases on the server."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from pytest_arena._mysql._control import MySQLFailure, literal, open_control
from pytest_arena._mysql._driver_guard import writers_in
from pytest_arena._product import ScriptError
from pytest_arena._product._database_registry import ServerBuild

# The query for the server's version, character set and SQL mode.
DESCRIBED = (
    "SELECT SUBSTRING_INDEX(VERSION(), '.', 2), VERSION() LIKE '%MariaDB%', "
    "@@GLOBAL.character_set_server, @@GLOBAL.collation_server, @@GLOBAL.sql_mode, "
    "@@lower_case_table_names"
)
_HAS_TABLES = (
    "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = {} "
    "AND table_type NOT IN ('VIEW', 'SEQUENCE')"
)


@dataclass(frozen=True, slots=True)
class MySQLBuild(ServerBuild):
    """The database that a build fills with the app's drivers."""

    def run_script(self, script: str) -> None:
        """Run a script on a separate connection, so that the script's settings end with it."""
        with contextlib.closing(open_control(self.address)) as control:
            control.run(
                "SET SESSION sql_mode = @@GLOBAL.sql_mode, SESSION foreign_key_checks = 1 "
                "/*M! , SESSION check_constraint_checks = 1 */"
            )
            try:
                control.run(script)
            except MySQLFailure as error:
                raise ScriptError(str(error), line=0, fix="") from error

    def has_tables(self) -> bool:
        """Return whether the database has a table."""
        question = _HAS_TABLES.format(literal(self.address.database))
        return self.registry.control.rows(question) != [(0,)]

    def is_being_written(self) -> bool:
        """Return whether a connection of this process has uncommitted rows in the database."""
        return bool(writers_in(self.address.database))

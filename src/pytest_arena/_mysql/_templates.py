"""Templates, which are databases on the server."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING

from sqlalchemy.dialects.mysql.base import MySQLDialect

from pytest_arena._mysql import ASYNC_DRIVERS
from pytest_arena._mysql._control import MySQLFailure, literal, open_control
from pytest_arena._mysql._driver_guard import writers_in
from pytest_arena._mysql._server_registry import MySQLRegistry
from pytest_arena._product import ScriptError
from pytest_arena._product._server_product import ServerBuild, ServerTemplates

if TYPE_CHECKING:
    from sqlalchemy.engine import Dialect

    from pytest_arena._values import Address, ServerLogin


# The lines by which the client mysql sends a routine as one statement. The server needs none.
_DELIMITED = re.compile(
    r"(?ims)^[ \t]*DELIMITER[ \t]+(?P<mark>\S+)[^\n]*\n(?P<text>.*?)^[ \t]*DELIMITER[ \t]+;"
)


_DESCRIBED = (
    "SELECT SUBSTRING_INDEX(VERSION(), '.', 2), VERSION() LIKE '%MariaDB%', "
    "@@GLOBAL.character_set_server, @@GLOBAL.collation_server, @@GLOBAL.sql_mode, "
    "@@lower_case_table_names"
)
_HAS_TABLES = (
    "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = {} "
    "AND table_type NOT IN ('VIEW', 'SEQUENCE')"
)


@dataclass(frozen=True, slots=True)
class MySQLBuild(ServerBuild[MySQLRegistry]):
    """The database that a build fills with the app's drivers."""

    def run_script(self, script: str) -> None:
        """Run a script on a separate connection, so that the script's settings end with it."""
        with contextlib.closing(open_control(self.address)) as control:
            control.run(
                "SET SESSION sql_mode = @@GLOBAL.sql_mode, SESSION foreign_key_checks = 1 "
                "/*M! , SESSION check_constraint_checks = 1 */"
            )
            try:
                control.run(
                    _DELIMITED.sub(lambda found: found["text"].replace(found["mark"], ";"), script)
                )
            except MySQLFailure as error:
                raise ScriptError(str(error), line=0, fix="") from error

    def has_tables(self) -> bool:
        """Return whether the database has a table."""
        question = _HAS_TABLES.format(literal(self.address.database))
        return self.registry.control.rows(question) != [(0,)]

    def is_being_written(self) -> bool:
        """Return whether a connection of this process has uncommitted rows in the database."""
        return bool(writers_in(self.address.database))


@dataclass(frozen=True)
class MySQLTemplates(ServerTemplates[MySQLRegistry]):
    """The templates of a server, with their manifests in the registry.

    Several machines share them. ``dialect`` is the app's.
    """

    dialect: type[Dialect]
    login: ServerLogin  # of the app's connections
    product = "mysql"
    # The server's version, character set and SQL mode.
    question = _DESCRIBED

    def _dialect_of_server(self) -> Dialect:
        """Return a dialect that knows what changes DDL, as after a connection."""
        _, version, is_mariadb, *_ = self.identity().split(" ")
        dialect = MySQLDialect()
        if is_mariadb == "1":
            has_uuid = tuple(map(int, version.split("."))) >= (10, 7)
            vars(dialect).update(supports_sequences=True, supports_native_uuid=has_uuid)
        return dialect

    ddl_dialect = _dialect_of_server

    def _build(self, address: Address) -> MySQLBuild:
        driver = self.dialect.driver
        if not self.dialect.is_async:
            driver = next(filter(find_spec, ASYNC_DRIVERS), ASYNC_DRIVERS[0])
        address = address.as_(self.login)
        url = partial(self.registry.url_of, address, self.dialect.name)
        # PyMySQL converts values like the async drivers.
        return MySQLBuild(self.registry, address, url("pymysql"), url(driver))

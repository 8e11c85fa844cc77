"""Templates, which are databases on the server."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, ClassVar

from sqlalchemy.dialects.mysql.base import MySQLDialect
from sqlalchemy.engine import URL, Dialect

from pytest_arena._mysql._arguments import ASYNC_DRIVERS
from pytest_arena._mysql._control import MySQLFailure, literal, open_control
from pytest_arena._mysql._server_registry import MySQLRegistry
from pytest_arena._mysql._sessions import writers_in
from pytest_arena._product import ScriptError
from pytest_arena._product._server_templates import ServerBuild, ServerTemplates

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_arena._mysql._control import MySQLControl
    from pytest_arena._values import Address, ServerLogin


# A text, a name, a comment, or other characters. A comment with `!` has statements.
_PART = re.compile(
    r"""(?sx) '(?:[^'\\]|\\.|'')*' | "(?:[^"\\]|\\.|"")*" | `(?:[^`]|``)*`
    | (?P<comment> --(?:[ \t][^\n]*)?(?=\n|\Z) | \#[^\n]* | /\*(?!M?!).*?\*/ )
    | (?P<command> (?m:^)[ \t]*(?i:DELIMITER)[ \t]+(?P<delimiter>\S+)[^\n]* )
    | [\w,()=. \t]+ | ."""
)


def run_script(control: MySQLControl, script: str) -> None:
    """Run a script: each statement separately.

    Raises:
        ScriptError: a statement was refused or has failed.
    """
    for line, statement in _split(script):
        try:
            control.run(statement)
        except MySQLFailure as error:
            raise ScriptError(str(error), line=line, fix="") from error


def _split(script: str) -> Iterator[tuple[int, str]]:
    """Yield the statements of a script and their lines. ``DELIMITER`` changes their end mark."""
    delimiter = ";"
    position = 0
    parts: list[str] = []
    while position < len(script):
        if script.startswith(delimiter, position):
            yield from _statement(script, position, parts)
            position += len(delimiter)
            parts = []
            continue
        part = _PART.match(script, position)
        assert part is not None  # noqa: S101 - it matches any character
        position = part.end()
        if part["command"] is not None:
            delimiter = part["delimiter"]
        else:
            parts.append(" " if part["comment"] is not None else part[0])
    yield from _statement(script, position, parts)


def _statement(script: str, end: int, parts: list[str]) -> Iterator[tuple[int, str]]:
    sql = "".join(parts).strip()
    if sql:
        yield script.count("\n", 0, end) + 1 - sql.count("\n"), sql


_DESCRIBED = (
    "SELECT SUBSTRING_INDEX(VERSION(), '.', 2), VERSION() LIKE '%MariaDB%', "
    "@@GLOBAL.character_set_server, @@GLOBAL.collation_server, @@GLOBAL.sql_mode, "
    "@@lower_case_table_names"
)
_HAS_TABLES = (
    "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = {} "
    "AND table_type NOT IN ('VIEW', 'SEQUENCE')"
)


def url_of(address: Address, dialect: str, driver: str) -> URL:
    """Return the URL of a database for a driver."""
    url = URL.create(
        f"{dialect}+{driver}",
        username=address.user,
        password=address.password or None,
        database=address.database,
    )
    if address.is_socket:
        return url.set(host="localhost", query={"unix_socket": address.host})
    return url.set(host=address.host, port=address.port)


@dataclass(frozen=True, slots=True)
class MySQLBuild(ServerBuild[MySQLRegistry]):
    """The database that a build fills with the app's drivers."""

    dialect: str  # mysql or mariadb
    async_driver: str
    has_schemas: bool = False

    @property
    def sync_url(self) -> URL:
        """The URL for PyMySQL, which converts values like the async drivers."""
        return url_of(self.address, self.dialect, "pymysql")

    @property
    def async_url(self) -> URL:
        """The URL for the async driver."""
        return url_of(self.address, self.dialect, self.async_driver)

    def run_script(self, script: str) -> None:
        """Run a script on a separate connection, so that the script's settings end with it."""
        with contextlib.closing(open_control(self.address)) as control:
            control.run(
                "SET SESSION sql_mode = @@GLOBAL.sql_mode, SESSION foreign_key_checks = 1 "
                "/*M! , SESSION check_constraint_checks = 1 */"
            )
            run_script(control, script)

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

    dialect: Dialect
    login: ServerLogin  # of the app's connections
    product = "mysql"
    # The server's version, character set and SQL mode.
    question = _DESCRIBED
    ddl_dialect: ClassVar[type[Dialect]] = MySQLDialect
    fix_if_down = "pytest …   # again, when the server answers"

    def _build(self, address: Address) -> MySQLBuild:
        driver = self.dialect.driver
        if not self.dialect.is_async:
            driver = next(filter(find_spec, ASYNC_DRIVERS), ASYNC_DRIVERS[0])
        return MySQLBuild(
            self.registry, address.as_(self.login), self.dialect.name, driver
        )

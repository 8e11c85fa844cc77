"""Templates, which are databases on the server."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy.dialects.mysql.base import MySQLDialect
from sqlalchemy.engine import URL, Dialect

from pytest_arena._mysql._arguments import ASYNC_DRIVERS
from pytest_arena._mysql._control import (
    MySQLFailure,
    literal,
    open_control,
)
from pytest_arena._mysql._errors import step_for
from pytest_arena._mysql._scripts import run_script
from pytest_arena._mysql._server_registry import MySQLRegistry
from pytest_arena._mysql.drivers._records import writers_in
from pytest_arena._product import (
    BuildTarget,
    ConnectTarget,
    Key,
    Manifest,
    ScriptError,
    Template,
    read_manifest,
)
from pytest_arena._product._server_templates import ServerTemplates
from pytest_arena.errors import TemplateError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_arena._values import Address

_DESCRIBED = (
    "SELECT SUBSTRING_INDEX(VERSION(), '.', 2), VERSION() LIKE '%MariaDB%', "
    "@@GLOBAL.character_set_server, @@GLOBAL.collation_server, @@GLOBAL.sql_mode, "
    "@@lower_case_table_names"
)
_HAS_TABLES = (
    "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = {} "
    "AND table_type NOT IN ('VIEW', 'SEQUENCE')"
)
_SYNC = "pymysql"


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
    query = dict(address.tls or ())
    return url.set(host=address.host, port=address.port, query=query)


@dataclass(frozen=True, slots=True)
class MySQLBuild:
    """The database that a build fills, by the app's drivers."""

    own: MySQLRegistry
    address: Address
    dialect: str  # mysql or mariadb
    async_driver: str  # "" if there is none
    product: str = "MySQL"
    has_schemas: bool = False

    @property
    def connect_target(self) -> ConnectTarget:
        """The database, by its name, which is unique on the server."""
        name = f"{self.address.server}/{self.address.database}"
        return ConnectTarget(Key("building", name), "", (0, 0), self.address)

    @property
    def sync_url(self) -> URL:
        """The URL for PyMySQL. The async drivers convert values as it does."""
        return url_of(self.address, self.dialect, _SYNC)

    @property
    def async_url(self) -> URL:
        """The URL for the async driver."""
        if not self.async_driver:
            raise TemplateError(
                "no async driver for MySQL is installed",
                why="the function that builds the template is async",
                cause="neither asyncmy nor aiomysql can be imported",
                fix="pip install asyncmy   (or make the function a sync one)",
            )
        return url_of(self.address, self.dialect, self.async_driver)

    def run_script(self, script: str) -> None:
        """Run a script on a separate connection, with which its settings end."""
        with contextlib.closing(open_control(self.address)) as control:
            control.run(
                "SET SESSION sql_mode = @@GLOBAL.sql_mode, SESSION foreign_key_checks = 1"
            )
            try:
                run_script(control, script, self.address.database)
            except ScriptError as error:
                if isinstance(error.__cause__, MySQLFailure):
                    number = error.__cause__.number
                    error.suggest(step_for(number, self.address.user))
                raise

    def has_tables(self) -> bool:
        """Return whether the database has a table."""
        question = _HAS_TABLES.format(literal(self.address.database))
        return self.own.control.rows(question) != [(0,)]

    def is_being_written(self) -> bool:
        """Return whether a connection of this process has uncommitted rows in the database."""
        return bool(writers_in(self.address.database))

    def remove(self) -> None:
        """Drop the database, even if a client is connected."""
        self.own.drop(self.address.database)


@dataclass(frozen=True)
class MySQLTemplates(ServerTemplates[MySQLRegistry]):
    """The templates of a server, with their manifests in the registry.

    Several machines share them. ``dialect`` is the app's.
    """

    dialect: Dialect

    @property
    def ddl(self) -> Dialect:
        """Compiles DDL, without a driver."""
        dialect: Dialect = cast("Any", MySQLDialect)()
        return dialect

    def identity(self) -> str:
        """Return what the server adds to a database: version, character set, SQL mode."""
        return self._identity

    @cached_property
    def _identity(self) -> str:
        [values] = self.own.control.rows(_DESCRIBED)
        return " ".join(map(str, ("mysql", *values)))

    def templates(self, fingerprint: str) -> Iterator[Template[str]]:
        """Yield the finished templates of a fingerprint, as the registry lists them."""
        for name, text in self.own.templates(fingerprint):
            manifest = read_manifest(text)
            if manifest is not None:
                yield Template(name, fingerprint, manifest)

    def clear(self, fingerprint: str) -> None:
        """Drop databases of dead runs, and old templates of all fingerprints."""
        del fingerprint
        with self.own.saying("what dead runs have left cannot be swept"):
            self.own.sweep()

    def begin(self, fingerprint: str, below: Template[str] | None) -> MySQLBuild:
        """Copy the template below."""
        del fingerprint  # `finish` registers it
        source = below.content if below else None
        name = self.own.create("building", template=source)
        return MySQLBuild(
            self.own,
            self.own.address_of(name),
            self.dialect.name,
            async_driver_for(self.dialect),
        )

    def scratch(self) -> MySQLBuild:
        """Create an empty database."""
        return self.begin("", None)

    def finish(self, target: BuildTarget, fingerprint: str, manifest: Manifest) -> str:
        """End all sessions of the database, and register it as a template."""
        name = cast("MySQLBuild", target).address.database
        with self.own.saying(f"{name} cannot be made a template"):
            self.own.end_sessions(name)
        return self.own.finish_template(
            name,
            fingerprint=fingerprint,
            manifest=manifest.text(),
            title=manifest.title,
        )

    def advice(self, error: BaseException) -> str:
        """Return the next step by the server's number of the error."""
        original = getattr(error, "orig", None) or error
        number = re.match(r"\((\d+),", str(original))
        return step_for(int(number[1]), self.own.address_of().user) if number else ""

    def not_stored(self, error: Exception) -> TemplateError | None:
        """Return the error for a server that does not answer, or refuses a statement."""
        if not isinstance(error, MySQLFailure):
            return None
        return TemplateError(
            f"the template cannot be stored: {error}",
            why="schema and seed are built once, into a database that is copied for tests",
            cause=f"the server on {self.own.address_of().server} has stopped or refuses",
            fix="pytest …   # once more, when the server answers",
        )


def async_driver_for(dialect: Dialect) -> str:
    """Return the app's driver if it is async, else the first installed one, or ""."""
    if dialect.is_async:
        return dialect.driver
    for driver in ASYNC_DRIVERS:
        if find_spec(driver) is not None:
            return driver
    return ""

"""``rollback`` in the database that ``arena_database`` names, if its role may create no other.

No transaction commits in it. Schema and seed are built in the shared transaction, below all levels.
An advisory lock excludes other runs, because two runs would wait for each other's locks.
"""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn

from pytest_arena._postgresql._control import identifier, open_control
from pytest_arena._postgresql._rollback import Rollback
from pytest_arena._postgresql._server_registry import TURNS, ServerRegistry
from pytest_arena._postgresql._servers import NAMES_NO_TEST_DATABASE
from pytest_arena._postgresql._templates import (
    DatabaseTarget,
    DatabaseTemplates,
    has_tables,
)
from pytest_arena._process import until
from pytest_arena._product import ScriptError, Template
from pytest_arena._product._control_lines import ControlLine
from pytest_arena._product._own_databases import now, owner_of
from pytest_arena.errors import ConfigError, ServerError, redact_url

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_arena._config._read import Config
    from pytest_arena._ledger import Ledger
    from pytest_arena._postgresql._control import Control
    from pytest_arena._product import BuildTarget, Database, Manifest
    from pytest_arena._product._server_search import Server
    from pytest_arena._values import Address

RUN_LOCK = f"{TURNS}, 2"
_LOCK_SECONDS = 5  # the server needs a moment to end a killed run
# `test` is a word of shop_test and testdb, but not of latest and contest.
_FOR_TESTS = re.compile(r"(?<![a-z])test(s|ing|db)?(?![a-z])", re.IGNORECASE)


class NamedServer(ServerRegistry):
    """The database that ``arena_database`` names, instead of a registry of databases.

    Raises:
        ConfigError: several workers of pytest-xdist cannot share it.
        ServerError: the database is neither empty nor named for tests, or another run uses it.
    """

    def __init__(  # the base class would create the registry
        self, server: Server, config: Config, ledger: Ledger
    ) -> None:
        self._address = server.address
        self._process = os.getpid()
        self._taken_by: Database | None = None
        self.lock_timeout = config.lock_timeout
        role = self._address.user
        self.cause = (
            f"role {role} may not create databases, and "
            f"{redact_url(config.server_url)} is from arena_database"
        )
        self._fix = f"ALTER ROLE {identifier(role)} CREATEDB"
        self.where = f"the database {self._address.database} on {self._address.server}"
        if os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1") != "1":
            raise ConfigError(
                f"several workers of pytest-xdist cannot share {self.where}",
                why="each worker needs a transaction, and would wait for locks of other workers",
                cause=self.cause,
                fix=f"pytest -n 0 …\nor {self._fix}",
            )
        self.control = ControlLine(self._connect)
        with self.reporting(f"tests cannot use {self.where}"):
            self.has_schema = self.control.call(has_tables)
        name = self._address.database
        is_kept = name in NAMES_NO_TEST_DATABASE or owner_of(name) is not None
        if is_kept or (self.has_schema and not _FOR_TESTS.search(name)):
            raise self._refused(
                "it has tables, and its name does not have the word test. Or tools use it",
                "an empty database in arena_database, or one named like shop_test",
            )
        ledger.note(
            f"rollback: tests use {self.where} itself, since role {role} may not create "
            "databases. arena_schema is built only in a database without tables"
        )
        self.shared = Rollback(self._address, ledger, config.lock_timeout)

    def _refused(self, reason: str, fix: str) -> ServerError:
        return ServerError(
            f"tests cannot use {self.where}: {reason}",
            why="tests lock its tables and move its sequences, which other users would notice",
            cause=self.cause,
            fix=f"{fix}\nor {self._fix}",
        )

    def _connect(self) -> Control:
        control = open_control(self._address)
        lock = f"SELECT pg_try_advisory_lock({RUN_LOCK})"
        if not until(lambda: control.rows(lock) == [(True,)], within=_LOCK_SECONDS):
            control.close()
            reason = "another run uses it"
            raise self._refused(reason, "wait until the other run has ended")
        return control

    def address_of(self, name: str = "") -> Address:
        """Return the address of the database."""
        del name
        return self._address

    def take(self, database: Database) -> None:
        """Assign the named database to a database of the app."""
        if self._taken_by not in {None, database}:
            raise ConfigError(
                f"the app uses more than one database, and {self.where} is only one",
                why="each database of the app has its own tables and rows",
                cause=self.cause,
                fix=self._fix,
            )
        self._taken_by = database

    def create(self, kind: str, *, template: str | None = None) -> NoReturn:
        """Raise an IsolationError: the role may create no database."""
        del template
        self.shared.save(kind)

    def close(self) -> int:
        """Roll back, and release the lock. Return 0: no database is left."""
        if self._process == os.getpid():
            self.shared.close()
            self.control.close()
        return 0


@dataclass(frozen=True, slots=True)
class NamedTarget(DatabaseTarget):
    """The shared transaction, which a build fills by the app's driver."""

    registry: NamedServer

    def run_script(self, script: str) -> None:
        """Refuse a script, which may need commits."""
        del script
        raise ScriptError(
            f"pytest-arena runs no script in {self.registry.where}",
            line=0,
            fix="psql -f …   (once, in a database whose name has the word test)",
        )

    def has_tables(self) -> bool:
        """Return whether the transaction sees a table."""
        return bool(self.registry.shared.ask(has_tables))

    def is_being_written(self) -> bool:
        """Return whether a connection of the build is inside a transaction with changes."""
        return self.registry.shared.writer is not None

    def remove(self) -> None:
        """Roll back."""
        self.registry.shared.drop_connection()


@dataclass(frozen=True)
class NamedTemplates(DatabaseTemplates):
    """The stages that this run has built. Each run builds them, because no run commits them."""

    registry: NamedServer
    built: dict[str, Template[str]] = field(default_factory=dict)

    @property
    def has_schema(self) -> bool:
        """Whether the database has tables, which tests use as they are."""
        return self.registry.has_schema

    @property
    def words(self) -> str:
        """The summary's text about the content."""
        if not self.built:
            return "unchanged" if self.has_schema else ""
        return "schema or seed built in this run, and never committed"

    def find(self, fingerprint: str, newer_than: float) -> Template[str] | None:
        """Return the stage if this run has built it. No other run can use it."""
        del newer_than
        return self.built.get(fingerprint)

    @contextmanager
    def locked(self, fingerprint: str) -> Iterator[float]:
        """Yield the time. No other process builds in this transaction."""
        del fingerprint
        yield now()

    def begin(self, fingerprint: str, below: Template[str] | None) -> NamedTarget:
        """Return the transaction, which has the stage below."""
        del fingerprint
        last = next(reversed(self.built), None)
        if last is not None and (below is None or below.fingerprint != last):
            if self.registry.shared.depth:
                self.registry.create("building")
            # A test has built the last stage, and its mocks may have acted on the build.
            self.registry.shared.drop_connection()
            self.built.clear()
        dialect = self.dialect
        driver = dialect.driver if dialect is not None else "psycopg"
        sync_driver = "" if dialect is not None and dialect.is_async else driver
        address = self.registry.address_of()
        return NamedTarget(self.registry, address, self.product, sync_driver, driver)

    def finish(self, target: BuildTarget, fingerprint: str, manifest: Manifest) -> str:
        """Note the stage, which is never committed."""
        del target
        name = self.registry.address_of().database
        self.built[fingerprint] = Template(name, fingerprint, manifest)
        return name

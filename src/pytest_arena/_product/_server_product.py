"""A product whose databases are on a server."""

from __future__ import annotations

import threading
from abc import abstractmethod
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Generic

from pytest_arena._config._supported import SUPPORTED
from pytest_arena._origin import as_own
from pytest_arena._process import interrupted
from pytest_arena._product import ConnectTarget, Database, Key
from pytest_arena._product._server_registry import RegistryT
from pytest_arena._values import counted
from pytest_arena.errors import ArenaError

if TYPE_CHECKING:
    from collections.abc import Collection

    from pytest_arena._config._read import Config
    from pytest_arena._product import Core, RequestedDatabase
    from pytest_arena._product._server_search import Server


class ServerProduct(Generic[RegistryT]):
    """A product in a run. The first connection finds or starts its server."""

    name: str
    shares_connections = False
    forced = (
        "pytest-arena replaced the database and ended all connections to the old one"
    )

    def __init__(self, core: Core, config: Config) -> None:
        self._core = core
        self._config = config
        self._server: Server | None = None
        self._started_registry: RegistryT | None = None
        self._starting = threading.RLock()
        # By all names that the tests' databases have had in this run.
        self._databases_by_name: dict[str, Database] = {}
        self._targets: dict[Database, ConnectTarget] = {}

    @abstractmethod
    def _start(self) -> RegistryT:
        """Find or start the server. Return its registry."""

    @property
    def shown(self) -> str:
        """The server for messages, or the product before the server is known."""
        return self._server.shown if self._server else SUPPORTED[self.name].shown

    def _registry(self) -> RegistryT:
        """Return the registry of the server. Find or start the server first."""
        with self._starting:
            if self._started_registry is None:
                try:
                    with as_own():  # no test starts the server's programs
                        self._started_registry = self._start()
                except ArenaError:
                    self._core.ledger.ended_by = f"no test can use {self.shown}"
                    raise
            return self._started_registry

    def _project(self) -> str:
        root = self._config.root
        return f"{root.name}-{sha256(bytes(root)).hexdigest()[:6]}"

    def identify(
        self, requested: RequestedDatabase
    ) -> tuple[Key | None, tuple[str, ...]]:
        """Return the database's key without a host, so that a primary and its replicas share it."""
        known = self.live_at(requested)
        key = known.key if known else Key("server", f"{self.name}/{requested.database}")
        default = SUPPORTED[self.name].maintenance_database
        return key, (requested.database or default,)

    def new_file(self, name: str, taken: Collection[str]) -> None:
        """Return None: a server stores its databases."""

    def live_at(self, requested: RequestedDatabase) -> Database | None:
        """Return the database whose ``arena.url`` had this name at any time in this run."""
        return self._databases_by_name.get(requested.database)

    def target(self, database: Database) -> ConnectTarget:
        """Return the live database. Its name may change after a test with writes."""
        isolation: Any = database.isolation  # with the address of the live database
        if isolation is None:
            return ConnectTarget(
                database.key, "", (database.born, 0), database=database
            )
        # Read this before the address. If the address is newer, the next call reads it again.
        generation = (database.born, isolation.generation)
        target = self._targets.get(database)
        if (
            target is None
            or target.generation != generation
            or target.key != database.key
        ):
            address = isolation.address
            self._databases_by_name.setdefault(address.database, database)
            target = ConnectTarget(
                database.key, "", generation, address, database=database
            )
            self._targets[database] = target
        return target

    def remove(self, database: Database) -> None:
        """Close the isolation, which drops the live database and its snapshots."""
        database.close()
        self._targets.pop(database, None)
        self._databases_by_name = {
            name: known
            for name, known in self._databases_by_name.items()
            if known is not database
        }

    def close(self) -> str:
        """Drop the databases of this run. The last run stops a private server."""
        not_dropped = 0
        if self._started_registry is not None:
            not_dropped = self._started_registry.close()
        place = ""
        if self._server is not None:
            place = self._server.address.server
            self._server.close()
        if not (interrupted.is_set() and not_dropped):
            return ""
        databases = counted(not_dropped, "database")
        return f"left {databases} of this run on {place}. The next run drops them"

"""A product whose databases are on a server."""

from __future__ import annotations

import threading
from abc import abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Generic

from pytest_arena._config._supported import SUPPORTED
from pytest_arena._origin import as_own
from pytest_arena._product import (
    NOWHERE,
    ConnectTarget,
    Database,
    Key,
)
from pytest_arena._product._database_registry import RegistryT
from pytest_arena._product._server_connections import address_for
from pytest_arena.errors import ArenaError

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy.engine import URL

    from pytest_arena._config._read import Config
    from pytest_arena._product import Core, RequestedDatabase
    from pytest_arena._product._server_search import Server, ServerSearch
    from pytest_arena._values import Address


class ServerProduct(Generic[RegistryT]):
    """A product in a run. The first connection finds or starts its server."""

    name: str
    usual_driver: str
    search: ClassVar[ServerSearch]
    shares_connections = False
    forced = "pytest-arena replaced the database and ended all connections to the old one"

    def __init__(self, core: Core, config: Config) -> None:
        self._core = core
        self._config = config
        self.server: Server | None = None
        self._started_registry: RegistryT | None = None
        self._starting = threading.RLock()
        # By all names that the tests' databases have had in this run.
        self._databases_by_name: dict[str, Database] = {}

    @abstractmethod
    def _begin(self, registry: RegistryT, server: Server) -> None:
        """Prepare the logins on a server."""

    @property
    def shown(self) -> str:
        """The server for messages, or the product before the server is known."""
        return self.server.shown if self.server else SUPPORTED[self.name].shown

    def _registry(self) -> RegistryT:
        """Return the registry of the server. Find or start the server first."""
        with self._starting:
            if self._started_registry is None:
                try:
                    with as_own():  # the guard allows these processes
                        self.server = self.search.find(self._config)
                        registry = self.search.registry(self.server.address)
                        self._begin(registry, self.server)
                        self._started_registry = registry
                except ArenaError:
                    self._core.ledger.reason_to_stop = f"no test can use {self.shown}"
                    raise
            return self._started_registry

    def identify(self, requested: RequestedDatabase) -> tuple[Key | None, tuple[str, ...]]:
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

    def target(self, database: Database, generation: tuple[int, int]) -> ConnectTarget:
        """Return the live database. Its name may change after a test with writes."""
        isolation: Any = database.isolation  # with the address of the live database
        address = replace(isolation.address, lock_timeout=self._config.lock_timeout)
        self._databases_by_name.setdefault(address.database, database)
        return ConnectTarget(database.key, "", generation, address, database=database)

    def _url_of(self, address: Address, database: Database, driver: str) -> URL:
        dialect = database.dialect.name
        driver = driver or self.usual_driver
        return self._registry().url_of(address, dialect, driver)

    def url(self, database: Database, driver: str) -> URL:
        """Return the URL with the app's first login, which sees what the app sees."""
        url = self._url_of(address_for(database.target, None), database, driver)
        if database.is_shared:
            # Only engines of this process see the transaction. Any other client finds no server.
            return url.set(host=NOWHERE, query={})
        return url

    def keep(self, database: Database, title: str) -> str:
        """Keep a copy on the server. Return its URL, without a password: CI logs may show it."""
        isolation: Any = database.isolation
        kept = isolation.save(title)
        if self.server is not None:
            self.server.stay()
        url = self._url_of(self._registry().address_of(kept), database, "")
        return url.set(drivername=self.name, password=None).render_as_string()

    def close(self) -> None:
        """Drop the databases of this run. The last run stops a private server."""
        if self._started_registry is not None:
            self._started_registry.close()
        if self.server is not None:
            self.server.close()

"""A product whose databases are on a server, and its templates, which all machines share."""

from __future__ import annotations

import threading
from abc import abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Generic

from pytest_arena._config._supported import SUPPORTED
from pytest_arena._origin import as_own
from pytest_arena._product import (
    NOWHERE,
    ConnectTarget,
    Database,
    Key,
    TemplateStore,
)
from pytest_arena._product._database_registry import RegistryT
from pytest_arena._product._server_connections import address_for
from pytest_arena.errors import ArenaError

if TYPE_CHECKING:
    from collections.abc import Collection
    from contextlib import AbstractContextManager

    from sqlalchemy.engine import URL

    from pytest_arena._config._read import Config
    from pytest_arena._product import BuildTarget, Core, Manifest, RequestedDatabase, Template
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
        self._server: Server | None = None
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
        return self._server.shown if self._server else SUPPORTED[self.name].shown

    def _registry(self) -> RegistryT:
        """Return the registry of the server. Find or start the server first."""
        with self._starting:
            if self._started_registry is None:
                try:
                    with as_own():  # the guard allows these processes
                        self._server = self.search.find(self._config)
                        registry = self.search.registry(self._server.address)
                        self._begin(registry, self._server)
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
        if isolation is None:
            return ConnectTarget(database.key, "", generation, database=database)
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
        if self._server is not None:
            self._server.stay()
        url = self._url_of(self._registry().address_of(kept), database, "")
        return url.set(drivername=self.name, password=None).render_as_string()

    def remove(self, database: Database) -> None:
        """Close the isolation, which drops the live database and its snapshots."""
        database.close()
        self._databases_by_name = {
            name: known for name, known in self._databases_by_name.items() if known is not database
        }

    def close(self) -> None:
        """Drop the databases of this run. The last run stops a private server."""
        if self._started_registry is not None:
            self._started_registry.close()
        if self._server is not None:
            self._server.close()


@dataclass(frozen=True, slots=True)
class ServerBuild(Generic[RegistryT]):
    """The database that a build fills, by the app's drivers."""

    has_schemas: ClassVar[bool] = False
    registry: RegistryT
    address: Address
    sync_url: URL | None  # None with asyncpg
    async_url: URL

    @property
    def connect_target(self) -> ConnectTarget:
        """The target of connections during the build, with a unique key."""
        name = f"{self.address.server}/{self.address.database}"
        return ConnectTarget(Key("building", name), "", (0, 0), self.address)

    def remove(self) -> None:
        """Drop the database, even if a client is connected."""
        self.registry.drop(self.address.database)


@dataclass(frozen=True)
class ServerTemplates(TemplateStore, Generic[RegistryT]):
    """The templates of a server, with their manifests in the registry.

    ``question`` is the query for properties of the server that each new database has.
    """

    registry: RegistryT
    product: ClassVar[str]
    question: ClassVar[str]

    def identity(self) -> str:
        """Return the product and the properties of the server, for the fingerprint."""
        return self._identity

    @cached_property
    def _identity(self) -> str:
        with self.registry.reporting("the server's settings cannot be read"):
            [values] = self.registry.control.rows(self.question)
        return " ".join(map(str, (self.product, *values)))

    def find(self, fingerprint: str, newer_than: float) -> Template | None:
        """Return the template, and hold it."""
        found = self.registry.find(fingerprint)
        return None if found is None or found.manifest.built < newer_than else found

    def begin(self, fingerprint: str, below: Template | None) -> BuildTarget:
        """Create the database that a build fills: a copy of ``below``, or an empty one."""
        del fingerprint  # `finish` registers it
        template = below.content if below else None
        name = self.registry.create("building", template=template)
        return self._build(self.registry.address_of(name))

    def finish(self, target: Any, fingerprint: str, manifest: Manifest) -> str:
        """Register the database of a build as a template."""
        return self.registry.finish_template(
            target.address.database, fingerprint=fingerprint, manifest=manifest
        )

    @abstractmethod
    def _build(self, address: Address) -> BuildTarget:
        """Return a build that fills a database."""

    def locked(self, fingerprint: str) -> AbstractContextManager[float]:
        """Lock a fingerprint on the server, for all machines. Yield the time of the lock."""
        return self.registry.locked(fingerprint)

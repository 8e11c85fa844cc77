"""PostgreSQL in a run: its server, its databases and their isolations."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from pytest_arena._postgresql._identity import Identity, identity_of_control
from pytest_arena._postgresql._isolation import ServerIsolation
from pytest_arena._postgresql._journal import (
    FIX_FOR_UNDO,
    why_no_undo,
)
from pytest_arena._postgresql._named import NamedServer, NamedTemplates
from pytest_arena._postgresql._roles import Roles
from pytest_arena._postgresql._rollback import Rollback
from pytest_arena._postgresql._server_registry import ServerRegistry
from pytest_arena._postgresql._servers import SEARCH
from pytest_arena._postgresql._templates import DatabaseTemplates, url_of
from pytest_arena._product import NOWHERE, Isolation
from pytest_arena._product._server_product import ServerProduct
from pytest_arena._product._server_targets import address_for
from pytest_arena.errors import ConfigError, impossible

if TYPE_CHECKING:
    from sqlalchemy.engine import URL, Dialect

    from pytest_arena._config._read import Config
    from pytest_arena._product import ConnectTarget, Core, Database, Usage
    from pytest_arena._product._server_search import Server


class PostgreSQL(ServerProduct[ServerRegistry]):
    """PostgreSQL in a run. The first connection finds or starts the server."""

    name = "postgresql"

    def __init__(self, core: Core, config: Config) -> None:
        super().__init__(core, config)
        self._stores: dict[str, DatabaseTemplates] = {}  # by the driver that builds
        self.shares_connections = config.isolation == "rollback"
        self.users: Roles  # created with the registry of the server

    def _start(self) -> ServerRegistry:
        # With rollback, a role that may not create databases uses the named database itself.
        may_use_named = self._config.isolation == "rollback"
        if not may_use_named:
            self._refuse_apps_database()
        server = SEARCH.find(self._config)
        if may_use_named and not server.is_named:
            self._refuse_apps_database()
        self._server = server
        registry = self._open_registry(server)
        self.users = Roles(self._core, registry, is_private=server.is_private)
        return registry

    def _open_registry(self, server: Server) -> ServerRegistry:
        if server.is_named:
            return NamedServer(server, self._config, self._core.ledger)
        return ServerRegistry(
            server.address,
            project=self._project(),
            lock_timeout=self._config.lock_timeout,
        )

    def _refuse_apps_database(self) -> None:
        """Refuse a URL in ``arena_database`` with a database that the tests use.

        Raises:
            ConfigError: the tests use the database.
        """
        try:
            url = make_url(self._config.server_url)
        except (ArgumentError, ValueError):
            return  # not set, or the search for the server reports the error
        host = url.host or "localhost"
        name = f"{self.name}://{host}:{url.port or 5432}/{url.database}"
        requested, _ = self._core.requested()
        if not url.database or name not in requested:
            return
        other = "template1" if url.database == "postgres" else "postgres"
        raise ConfigError(
            f"arena_database names a database that the tests use: {name}",
            why="pytest-arena creates its databases on that server, and connects to a database "
            "that neither the app nor a fixture uses",
            cause=self._config.place("database"),
            fix=f"ARENA_DATABASE={url.set(database=other).render_as_string()} pytest …",
        )

    def template_store(self, dialect: type[Dialect]) -> DatabaseTemplates:
        """Return the templates on the server. The app's driver builds them."""
        if dialect.driver not in self._stores:
            registry = self._registry()
            store: DatabaseTemplates
            if isinstance(registry, NamedServer):
                store = NamedTemplates(registry, dialect())
            else:
                store = DatabaseTemplates(registry, dialect())
            self._stores[dialect.driver] = store
            self.users.prepare()
        return self._stores[dialect.driver]

    def isolate(self, database: Database, content: Any, uses: Usage) -> Isolation:
        """Return the isolation of a database: ``undo``, ``clone`` or ``rollback``."""
        registry = self._registry()
        note = self._core.ledger.note
        with_rights = self.users.begin(database)
        if self._config.isolation == "rollback":
            return self._roll_back(database, with_rights(content))
        name = self._choose_isolation(registry)
        isolation = ServerIsolation(
            registry, content, name, with_rights=with_rights, uses=uses, note=note
        )
        if name == "clone":
            self._note_slow_disk(registry)
        report = partial(self.users.note_inactive_rights, database.login)
        report(isolation.address)
        if content is None:
            isolation.on_new_schema = report
        return isolation

    def _choose_isolation(self, registry: ServerRegistry) -> str:
        """Return undo, or clone if undo does not work here. The summary says why."""
        requested = self._config.isolation
        if requested == "clone":
            return "clone"
        reason = why_no_undo(registry)
        if not reason:
            return "undo"
        if requested == "undo":
            raise ConfigError(
                f"arena_isolation = undo: {reason}",
                why="the tests would run with another isolation than the option names",
                cause=self._config.place("isolation"),
                fix=f"{FIX_FOR_UNDO}\n"
                "or arena_isolation = auto   (clone, as long as undo does not work)",
            )
        self._core.ledger.note(
            f"{self.shown}: tests are isolated by clone, since {reason}. For undo: {FIX_FOR_UNDO}"
        )
        return "clone"

    def _roll_back(self, database: Database, template: str | None) -> Isolation:
        """Return the isolation ``rollback``, in a copy or in the named database."""
        if self._config.drivers != "refuse":
            raise ConfigError(
                f"arena_drivers = {self._config.drivers} does not work with rollback",
                why="a connection that no engine opens does not see the tests' one transaction, "
                "and would commit",
                cause=self._config.place("drivers"),
                fix="arena_drivers = refuse\nor arena_isolation = undo",
            )
        registry = self._registry()
        if isinstance(registry, NamedServer):
            registry.take(database)
            return registry.shared
        with registry.reporting("no database for the first test"):
            name = registry.create("live", template=template)
        return Rollback(
            registry.address_of(name),
            self._core.ledger,
            self._config.lock_timeout,
            partial(registry.drop_later, name),
        )

    def _note_slow_disk(self, registry: ServerRegistry) -> None:
        server = self._server
        if server is None or server.is_private:
            return
        if registry.control.rows("SHOW fsync") == [("on",)]:
            self._core.ledger.note(
                f"{server.shown} writes each new or dropped database to the disk. Tests are faster "
                "with fsync = off, or on a private server: arena_database = own"
            )

    def target_of(self, database: Database, identity: Identity) -> ConnectTarget | None:
        """Return the target if a connection of this identity is open on the live database."""
        target = self.target(database)
        if target.address is None or target.address.database != identity.database:
            return None
        registry = self._registry().control.call(identity_of_control)
        return target if identity.server == registry.server else None

    def url(self, database: Database, driver: str) -> URL:
        """Return the URL with the app's first login, which sees what the app sees."""
        target = self.target(database)
        if target.address is None:
            raise impossible(f"{database.name}: no address before its first connection")
        url = url_of(address_for(target, None), driver)
        if database.is_shared:
            # Only engines of this process see the transaction. Any other client finds no server.
            return url.set(host=NOWHERE, query={})
        return url

    def keep(self, database: Database, title: str) -> str:
        """Keep a copy on the server. Return its URL, without a password: CI logs may show it."""
        kept = cast("ServerIsolation", database.isolation).save(title)
        if self._server is not None:
            self._server.stay()
        url = url_of(self._registry().address_of(kept), "psycopg")
        return url.set(drivername="postgresql", password=None).render_as_string()

    def shell(self, where: str) -> list[str]:
        """Return the words of the command that opens a database."""
        return ["psql", where]

"""PostgreSQL in a run: its server, its databases and their isolations."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from pytest_arena._postgresql._isolation import ServerIsolation
from pytest_arena._postgresql._journal import FIX_FOR_UNDO, why_no_undo
from pytest_arena._postgresql._roles import Roles
from pytest_arena._postgresql._rollback import Rollback
from pytest_arena._postgresql._servers import SEARCH
from pytest_arena._product._server_product import ServerProduct
from pytest_arena.errors import ConfigError

if TYPE_CHECKING:
    from pytest_arena._config._read import Config
    from pytest_arena._postgresql._server_registry import ServerRegistry
    from pytest_arena._product import Core, Database, Isolation, Usage
    from pytest_arena._product._server_search import Server


class PostgreSQL(ServerProduct["ServerRegistry"]):
    """PostgreSQL in a run. The first connection finds or starts the server."""

    name = "postgresql"
    usual_driver = "psycopg"
    search = SEARCH

    def __init__(self, core: Core, config: Config) -> None:
        super().__init__(core, config)
        self.shares_connections = config.isolation == "rollback"
        self.users: Roles  # created with the registry of the server

    def _begin(self, registry: ServerRegistry, server: Server) -> None:
        self.users = Roles(self._core, registry, is_private=server.is_private)
        self.login_of = self.users.login_of

    def template_store(self) -> ServerRegistry:
        """Return the templates on the server."""
        registry = self._registry()
        self.users.prepare()
        return registry

    def isolate(self, database: Database, content: Any, uses: Usage) -> Isolation:
        """Return the isolation of a database: ``undo``, ``clone`` or ``rollback``."""
        registry = self._registry()
        note = self._core.ledger.note
        owner_script = self.users.begin(database)
        if self._config.isolation == "rollback":
            template = registry.derived(content, owner_script(content))
            with registry.reporting("no database for the first test"):
                live = registry.create("live", template=template)
            return Rollback(
                registry.address_of(live),
                self._core.ledger,
                self._config.lock_timeout,
                partial(registry.drop_later, live),
            )
        name = self._choose_isolation(registry)
        isolation = ServerIsolation(
            registry, content, name, owner_script=owner_script, uses=uses, note=note
        )
        self.users.note_inactive_rights(database.login, isolation.address)
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

    def shell(self, where: str) -> list[str]:
        """Return the words of the command that opens a database."""
        return ["psql", where]


open_product = PostgreSQL

"""PostgreSQL: databases of the arena's own on a server, from wherever one can be had."""

from __future__ import annotations

import threading
from hashlib import sha256
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy.engine import URL, Dialect, make_url
from sqlalchemy.exc import ArgumentError

from pytest_arena._origin import as_own
from pytest_arena._postgresql._arguments import DRIVERS, address_for
from pytest_arena._postgresql._identity import Identity, identity_of_control
from pytest_arena._postgresql._roles import Roles
from pytest_arena._postgresql._templates import DatabaseTemplates, url_of
from pytest_arena._postgresql.isolation import ServerIsolation, isolate
from pytest_arena._postgresql.journal._journal_templates import lacking
from pytest_arena._postgresql.registry import ServerRegistry
from pytest_arena._postgresql.servers._find import find_server
from pytest_arena._product import (
    ConnectTarget,
    Core,
    Database,
    Isolation,
    Key,
    RequestedDatabase,
    isolation_named,
)
from pytest_arena.errors import ConfigError, impossible

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from pytest_arena._config._read import Config
    from pytest_arena._postgresql.servers import Server

ISOLATIONS = {
    "auto": None,
    "undo": None,
    "clone": None,
}  # which class it is, `Choice` says


class PostgreSQL:
    """Found or started at the first connection; nothing is asked of a server before."""

    name = "postgresql"
    shell = "psql"
    forced = "another database was put in its place, and all connections to the old one were ended"

    def __init__(self, core: Core, config: Config) -> None:
        self._core = core
        self._config = config
        self._server: Server | None = None
        self._own: ServerRegistry | None = None
        self._starting = threading.RLock()
        self._shelves: dict[str, DatabaseTemplates] = {}  # by the driver that builds
        self._lives: dict[
            str, Database
        ] = {}  # by the names that their databases have had
        self._targets: dict[Database, ConnectTarget] = {}
        self.roles: Roles  # created with the registry of the server

    @property
    def shown(self) -> str:
        """The server, where one is in use."""
        return self._server.shown if self._server else "PostgreSQL"

    def _databases(self) -> ServerRegistry:
        with self._starting:
            if self._own is None:
                with (
                    as_own()
                ):  # the programs that are looked for and started are no test's
                    self._check_is_not_the_apps()
                    self._server = find_server(self._config)
                    root = self._config.root
                    project = f"{root.name}-{sha256(bytes(root)).hexdigest()[:6]}"
                    tell = self._core.ledger.note
                    self._own = ServerRegistry(
                        self._server.address, project=project, tell=tell
                    )
                    is_private = self._server.is_private
                    self.roles = Roles(self._core, self._own, is_private=is_private)
            return self._own

    def _check_is_not_the_apps(self) -> None:
        try:
            url = make_url(self._config.server_url)
        except (ArgumentError, ValueError):
            return  # there is none; or whoever looks for the server says what is wrong with it
        meant = (
            f"{self.name}://{url.host or 'localhost'}:{url.port or 5432}/{url.database}"
        )
        other = "template1" if url.database == "postgres" else "postgres"
        if url.database and meant in {
            _with_port(name) for name in self._core.requested()[0]
        }:
            raise ConfigError(
                f"arena_database names the app's own database: {meant}",
                why="arena makes databases of its own on that server, and has to enter by one that "
                "is not the app's",
                cause=self._config.places["database"],
                fix=f"ARENA_DATABASE={url.set(database=other).render_as_string()} pytest …",
            )

    def drivers(self) -> tuple[str, ...]:
        """Those that SQLAlchemy knows and arena, too."""
        return tuple(driver for driver in DRIVERS if find_spec(driver) is not None)

    def identify(
        self, requested: RequestedDatabase
    ) -> tuple[Key | None, tuple[str, ...]]:
        """The database's name: two hosts with one name are a primary and its replica."""
        known = self.live_at(requested)
        key = known.key if known else Key("server", f"{self.name}/{requested.database}")
        return key, (requested.database or "postgres",)

    def new_file(self, name: str, taken: Collection[str]) -> None:
        """A server has its own files."""
        del name, taken

    def live_at(self, requested: RequestedDatabase) -> Database | None:
        """Return the database that ``arena.url`` has named so, at any time in this run."""
        return self._lives.get(requested.database)

    def template_store(self, dialect: type[Dialect]) -> DatabaseTemplates:
        """On the server; what is built there is built by the app's own driver."""
        if dialect.driver not in self._shelves:
            self._shelves[dialect.driver] = DatabaseTemplates(
                self._databases(), dialect()
            )
            self.roles.prepare()
        return self._shelves[dialect.driver]

    def isolate(
        self, database: Database, content: Any, uses: Callable[[], int]
    ) -> Isolation:
        """``undo``, or ``clone``; what a test asks for comes above it."""
        own = self._databases()
        tell = self._core.ledger.note
        isolation_named(self._config, ISOLATIONS, self.shown)
        isolation = isolate(
            own,
            self._config.isolation,
            content,
            given=self.roles.begin(database),
            shown=self.shown,
            place=self._config.places["isolation"],
            uses=uses,
            tell=tell,
        )
        if isolation.name == "clone":
            self._say_that_it_is_slow(own)
        self.roles.tell_of_policies(database.login, isolation.live.name)
        return cast("Isolation", isolation)

    def ask_for(self, name: str, isolation: Isolation) -> str:
        """``undo`` needs rights; clone can always be had."""
        if name not in ISOLATIONS:
            return f"{self.shown} is isolated by undo or clone"
        missing = lacking(self._databases()) if name == "undo" else ""
        if not missing:
            cast("ServerIsolation", isolation).ask_for(name)
        return missing

    def _say_that_it_is_slow(self, own: ServerRegistry) -> None:
        server = self._server
        if (
            server is None
            or server.is_private
            or own.control.rows("SHOW fsync") != [("on",)]
        ):
            return
        self._core.ledger.note(
            f"{server.shown} syncs databases to the disk when they are made and dropped; that is "
            "quick with fsync = off, or on a private server: arena_database = own"
        )

    def target(self, database: Database) -> ConnectTarget:
        """The live database, whose name is another one after each test that has written."""
        isolation = cast("ServerIsolation | None", database.isolation)
        if isolation is None:
            return ConnectTarget(
                database.key, "", (database.born, 0), database=database
            )
        known = self._targets.get(database)  # asked for at each checkout
        generation = (
            database.born,
            isolation.generation,
        )  # before the address, which moves first
        if known is None or known.generation != generation or known.key != database.key:
            address = isolation.live.address
            self._lives.setdefault(address.database, database)
            known = self._targets[database] = ConnectTarget(
                database.key, "", generation, address, database=database
            )
        return known

    def target_of(self, database: Database, identity: Identity) -> ConnectTarget | None:
        """By what server it is, and what the live database is called there."""
        target = self.target(database)
        if target.address is None or target.address.database != identity.database:
            return None
        own = self._databases().control.call(identity_of_control)
        return target if identity.server == own.server else None

    def url(self, database: Database, driver: str) -> URL:
        """With the app's first login, so that whoever comes by it sees what the app does."""
        target = self.target(database)
        if target.address is None:
            raise impossible(f"{database.name}: no address before its first connection")
        return url_of(address_for(target, None), driver)

    def keep(self, database: Database, title: str) -> str:
        """A clone that stays on the server; its URL."""
        # It is printed, in CI logs too: whoever looks knows the password, or PGPASSWORD does.
        kept = cast("ServerIsolation", database.isolation).save(title)
        url = url_of(self._databases().address_of(kept), "psycopg")
        return url.set(drivername="postgresql", password=None).render_as_string()

    def policed(self, database: Database, *, is_off: bool = False) -> tuple[str, ...]:
        """By the users of the app's engines."""
        live = cast("ServerIsolation", database.isolation).live
        return live.policed(self.roles.policed(database), is_off=is_off)

    def policed_for_arena(self, database: Database) -> tuple[str, ...]:
        """Return the tables that force policies on their owner, if the login is no superuser."""
        live = cast("ServerIsolation", database.isolation).live
        return live.policed(self.roles.policed_for_arena(), is_off=False)

    def remove(self, database: Database) -> None:
        """Drop what is live and its pictures."""
        if database.isolation is not None:
            database.isolation.close()
            database.isolation = None
        self._targets.pop(database, None)
        self._lives = {
            name: known for name, known in self._lives.items() if known is not database
        }

    def close(self, *, is_hurried: bool = False) -> str:
        """Drop what this run has made; a private server goes on until it is idle."""
        number = 0
        if self._own is not None:
            number = self._own.close(is_hurried=is_hurried)
        place = ""
        if self._server is not None:
            place = self._server.address.server
            self._server.close()
        if not (is_hurried and number):
            return ""
        databases = "1 database" if number == 1 else f"{number} databases"
        return f"left {databases} of this run on {place}. The next run drops what is left there"


def _with_port(name: str) -> str:
    host, _, database = name.rpartition("/")
    return f"{host}5432/{database}" if host.endswith(":") else name

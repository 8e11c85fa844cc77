"""The search for a server for the test databases.

``arena_database`` may name the server by a URL. Without a URL, the server is a local service of
this machine. If no service can be used, it is a private server of installed programs. A server of
another machine is used only if ``arena_database`` names it.
"""

from __future__ import annotations

import os
import re
import threading
from abc import ABC, abstractmethod
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Generic

from pytest_arena._config._supported import SUPPORTED, product_of
from pytest_arena._origin import as_own
from pytest_arena._product import NOWHERE, ConnectTarget, Database, Key
from pytest_arena._product._database_registry import RegistryT
from pytest_arena._product._own_databases import Place
from pytest_arena._product._server_connections import address_for
from pytest_arena._product._server_control import ServerFailure
from pytest_arena.errors import ArenaError, ConfigError, ServerError, redact, redact_url

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from sqlalchemy.engine import URL

    from pytest_arena._config._read import Config
    from pytest_arena._product import Core, RequestedDatabase
    from pytest_arena._product._own_databases import PlaceKind, SweepResult
    from pytest_arena._values import Address


_WHY = "pytest-arena makes a database for each test, on a server where it may create databases"


@dataclass(frozen=True)
class Server:
    """A server that answers. Its login may create databases."""

    address: Address  # of a maintenance database
    shown: str  # its version and origin, for the run's summary
    is_private: bool = False  # whether pytest-arena has started it

    def close(self) -> None:
        """End this process' use of the server. Idempotent. It never raises."""

    def stay(self) -> None:
        """Let the server run after this run, because a database was kept."""


@dataclass(frozen=True)
class DatabasesOnServer:
    """The databases with pytest-arena's names on a server."""

    registry: Any  # the class of a run's databases
    shown: str
    address: Address

    def places(self) -> Iterator[Place]:
        """Yield the server with its databases."""
        with self._opened() as registry:
            things = tuple(database.thing() for database in registry.listed())
        yield Place(shown=self.shown, where=self.address.server, things=things)

    def sweep(self, *, everything: bool) -> Iterator[SweepResult]:
        """Drop databases as a run does. Yield the dropped ones, and the others with a reason."""
        with self._opened() as registry:
            yield from registry.sweep(everything=everything)

    def _opened(self) -> closing[Any]:
        return closing(self.registry(self.address, sweeps=False))


class Unavailable(Exception):
    """No usable server was found. The text is the reason, ``fix`` the next step or ""."""

    def __init__(self, reason: str, *, fix: str = "") -> None:
        super().__init__(reason)
        self.fix = fix


def _numbers(version: str) -> list[int]:
    return [*map(int, re.findall(r"\d+", version))]


def refused(address: Address, error: ServerFailure) -> Unavailable:
    """Return why a login failed, in the server's words."""
    lines = str(error).strip().splitlines()
    text = redact(lines[-1].strip() if lines else "no reason")
    if error.is_crowded:
        return Unavailable(f"the server on {address.server} has no free connection: {text}")
    if error.is_down:
        return Unavailable(f"nothing answers on {address.server} ({text})")
    return Unavailable(f"{address.server} refuses {address.user}: {text}")


def parse_url(text: str) -> URL:
    """Parse the URL of a server."""
    from sqlalchemy.engine import make_url  # noqa: PLC0415 - the command `arena` does without it
    from sqlalchemy.exc import ArgumentError  # noqa: PLC0415 - as above

    try:
        return make_url(text)
    except (ArgumentError, ValueError) as error:
        raise Unavailable(
            "the URL cannot be read. pytest-arena needs a URL of one server"
        ) from error


def port_of(variable: str, default: int) -> int:
    """Return the port in a variable, or the default."""
    text = os.environ.get(variable, "")
    return int(text) if text.isdigit() else default


class ServerProduct(ABC, Generic[RegistryT]):
    """A product in a run. The first connection finds or starts its server."""

    name: str
    usual_driver: str
    registry: ClassVar[Any]  # the class of the databases that pytest-arena creates
    form: ClassVar[str]
    """How a run names a server."""
    fix: ClassVar[str]
    """The next step if no server was found."""
    oldest: ClassVar[dict[str, str]]
    """The oldest supported version, by the name of the product."""

    forced = "pytest-arena replaced the database and ended all connections to the old one"

    def __init__(self, core: Any, config: Config) -> None:
        self._core: Core = core  # None for `arena databases`
        self._config = config
        self.server: Server | None = None
        self._started_registry: RegistryT | None = None
        self._starting = threading.RLock()
        # By all names that the tests' databases have had in this run.
        self._databases_by_name: dict[str, Database] = {}

    # Search

    @abstractmethod
    def read_url(self, text: str) -> Address:
        """Read a URL of one server."""

    @abstractmethod
    def local_logins(self) -> Iterator[Address]:
        """Yield the sockets and the loopback port of this machine, with the usual users."""

    @abstractmethod
    def ask(self, address: Address, seconds: int) -> tuple[str, str, bool]:
        """Log in. Return the product, its version, and whether the login may create databases."""

    def enter(self, address: Address, where: str, *, seconds: int = 10) -> Server:
        """Return a server that can be used, without changing it. ``where`` follows its version."""
        try:
            product, version, may_create = self.ask(address, seconds)
        except ServerFailure as error:
            raise refused(address, error) from error
        oldest = self.oldest[product]
        if _numbers(version) < _numbers(oldest):
            raise Unavailable(
                f"the server on {address.server} is {product} {version}, and pytest-arena needs "
                f"{oldest} or newer",
                fix=self.registry.another,
            )
        if not may_create:
            raise Unavailable(
                f"{address.user} on {address.server} may not create databases",
                fix=f"{self.registry.give_rights.format(user=address.user)}\n"
                f"or {self.registry.another}",
            )
        return Server(address, f"{product} {version}{where}")

    def find(self) -> Server:
        """Return the server that the option names, else the first one of the product."""
        if self._config.server_url and self.is_meant:
            return self._named()
        sources = {
            "a local service": self.local_service,
            "a private server": self.private_server,
        }
        reasons = []
        for name, find in sources.items():
            try:
                return find()
            except Unavailable as reason:
                reasons.append(f"{name}: {' '.join(str(reason).split())}")
        raise ServerError(
            f"there is no {self.shown} for the tests",
            why=_WHY,
            cause="\n".join(reasons),
            fix=f"{self.fix}\nor {self.form}",
        )

    def local_service(self) -> Server:
        """Return the first server of this machine that lets a usual login create databases."""
        if self._config.database == "own":
            raise Unavailable("not asked for, a private server is")
        reasons: dict[str, None] = {}
        for address in self.local_logins():
            try:
                # A local server answers within a millisecond.
                return self.enter(address, f", a local service on {address.server}", seconds=2)
            except Unavailable as reason:
                reasons[str(reason)] = None
        raise Unavailable("; ".join(reasons))

    def private_server(self) -> Server:
        """Find or start a private server."""
        raise Unavailable(f"pytest-arena starts no server of {self.shown}")

    def _named(self) -> Server:
        config = self._config
        try:
            address = self.read_url(config.server_url)
            return self.enter(address, f" on {address.server}, from arena_database")
        except Unavailable as reason:
            raise ServerError(
                f"the server for the tests cannot be used: {reason}",
                why=_WHY,
                cause=f"{redact_url(config.server_url)} from {config.place('database')}",
                fix=reason.fix
                or f"correct arena_database, or delete it: then pytest-arena looks for a "
                f"server\n{self.form}",
            ) from reason

    # `arena databases`

    @classmethod
    def place_kinds_of(cls, config: Config) -> list[PlaceKind]:
        """Return the places of databases for `arena databases`."""
        return cls(None, config).place_kinds()

    @property
    def is_meant(self) -> bool:
        """Whether the option names no other product."""
        names_no_server = self._config.database in {"auto", "own"}
        return names_no_server or product_of(self._config.database) == self.name

    def place_kinds(self) -> list[PlaceKind]:
        """Return the server, if there is one and the option names no other product."""
        if self._config.database == "own" or not self.is_meant:
            return []
        find = self.find if self._config.server_url else self.local_service
        try:
            server = find()
        except (Unavailable, ConfigError):
            return []  # no server, or the product's driver is not installed
        return [DatabasesOnServer(self.registry, server.shown, server.address)]

    # In a run

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
                        self.server = self.find()
                        registry = self.registry(self.server.address)
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
        return key, (requested.database or SUPPORTED[self.name].maintenance_database,)

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

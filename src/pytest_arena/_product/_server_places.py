"""A product's server, private servers and databases in `arena databases`."""

from __future__ import annotations

import sys
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pytest_arena._config._supported import FILE_PRODUCTS, SUPPORTED, product_of
from pytest_arena._product._databases_command import (
    Place,
    PlaceKind,
    SweepResult,
    Thing,
    size_of,
    time_of,
)
from pytest_arena._product._server_search import Unavailable
from pytest_arena.errors import ArenaError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_arena._config._read import Config
    from pytest_arena._product._private_servers import PrivateServers, ServerFolder
    from pytest_arena._product._server_registry import DatabaseRegistry
    from pytest_arena._product._server_search import ServerSearch
    from pytest_arena._values import Address


@dataclass(frozen=True)
class ServerCommands:
    """The commands of one product.

    ``registry`` is the class of a run's databases. Other databases are never touched.
    """

    product: str
    search: ServerSearch
    registry: type[DatabaseRegistry[Any]]

    def place_kinds(self, config: Config, *, removes_all: bool) -> list[PlaceKind]:
        """Return the server and the private servers, if the option names no other product."""
        names_no_server = config.database in {"auto", "own", *FILE_PRODUCTS}
        if not names_no_server and product_of(config.database) != self.product:
            return []
        kinds: list[PlaceKind] = []
        if config.database not in {"own", *FILE_PRODUCTS}:
            kinds += self._server(config)
        is_named = config.server_url or config.database in FILE_PRODUCTS
        if sys.platform != "win32" and not (removes_all and is_named):
            kinds.append(PrivatePlaces(self, self.search.private, config.cache))
        return kinds

    def _server(self, config: Config) -> list[PlaceKind]:
        find = self.search.find if config.server_url else self.search.local_service
        try:
            server = find(config)
        except Unavailable as error:
            note = " ".join(str(error).split())
            return [DatabasesOnServer(self, SUPPORTED[self.product].shown, note=note)]
        except ConfigError:
            if config.database == "auto":
                return []  # the product's driver is not installed
            raise
        return [DatabasesOnServer(self, server.shown, server.address)]


@dataclass(frozen=True)
class DatabasesOnServer:
    """The databases with pytest-arena's names on a server, or the note why there is no server."""

    commands: ServerCommands
    shown: str
    address: Address | None = None
    note: str = ""

    def look(self) -> Iterator[Place]:
        """Yield the server with its databases."""
        things: tuple[Thing, ...] = ()
        where = "a local service"
        if self.address is not None:
            where = self.address.server
            with self._registry(self.address) as registry:
                found = registry.listed(with_sizes=True)
            things = tuple(database.thing() for database in found)
        yield Place(shown=self.shown, where=where, things=things, note=self.note)

    def sweep(self, *, everything: bool) -> Iterator[SweepResult]:
        """Drop databases as a run does. Yield the dropped ones, and the others with a reason."""
        if self.address is not None:
            with self._registry(self.address) as registry:
                yield from registry.sweep(everything=everything)

    def _registry(self, address: Address) -> closing[DatabaseRegistry[Any]]:
        return closing(self.commands.registry(address, sweeps=False))


@dataclass(frozen=True)
class PrivatePlaces:
    """All private servers. This class starts no server, and stops no server that a run uses."""

    commands: ServerCommands
    servers: PrivateServers[Any]
    cache: Path

    def look(self) -> Iterator[Place]:
        """Yield each server with its state and its databases."""
        for folder in self._folders():
            yield self._place(folder)

    def sweep(self, *, everything: bool) -> Iterator[SweepResult]:
        """Sweep running servers. With ``everything`` also remove unused servers."""
        for folder in self._folders():
            thing = _thing(folder)
            if self.servers.is_running(folder):
                yield from self._databases(folder).sweep(everything=everything)
            if not everything:
                continue
            if self.servers.is_in_use(folder):
                yield SweepResult(thing, "a private server that is in use")
            else:
                self.servers.remove(folder)
                yield SweepResult(thing)

    def _folders(self) -> Iterator[ServerFolder]:
        for parent in self.servers.parents(self.cache):
            folders = [path for path in sorted(parent.iterdir()) if path.is_dir()]
            yield from map(self.servers.folder, folders)

    def _databases(self, folder: ServerFolder) -> DatabasesOnServer:
        return DatabasesOnServer(self.commands, "", self.servers.address_of(folder))

    def _place(self, folder: ServerFolder) -> Place:
        state = "stopped"
        inside: tuple[Thing, ...] = ()
        if self.servers.is_running(folder):
            state = "in use" if self.servers.is_in_use(folder) else "idle"
            # The server may start, stop, or have no free connection.
            with suppress(ArenaError):
                [databases] = self._databases(folder).look()
                inside = databases.things
        server = replace(
            _thing(folder),
            state=state,
            created=time_of(folder.beside("made")),
            used=time_of(folder.beside("used")),
        )
        return Place(
            shown=f"{self.servers.title(folder)}, a private server",
            where=str(folder.path),
            things=(server, *inside),
        )


def _thing(folder: ServerFolder) -> Thing:
    path = folder.path
    return Thing(name=path.name, what="server", bytes=size_of(path))

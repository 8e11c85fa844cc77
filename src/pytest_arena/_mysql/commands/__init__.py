"""MySQL and MariaDB in `arena databases`: a server, and pytest-arena's databases on it."""

from __future__ import annotations

import os
import sys
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

from pytest_arena._config._supported import FILE_PRODUCTS, product_of
from pytest_arena._mysql import FACTS
from pytest_arena._mysql._control import MySQLFailure
from pytest_arena._mysql._server_registry import (
    REGISTRY,
    MySQLRegistry,
    look,
)
from pytest_arena._mysql.servers._search import find_server, local_service
from pytest_arena._product._databases_command import (
    Place,
    PlaceKind,
    RegistryRow,
    SweepResult,
    Thing,
    UnreadablePlace,
    sweep_results,
)
from pytest_arena._product.servers import Unavailable
from pytest_arena.errors import ConfigError, ServerError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_arena._config._read import Config
    from pytest_arena._values import Address


class MySQLDatabases:
    """The databases in the registry of a server. Other databases are never touched."""

    def __init__(self, address: Address, shown: str, *, registry: str) -> None:
        self._address = address
        self._shown = shown
        self._registry = registry

    def look(self) -> Iterator[Place]:
        """Yield the server with its databases."""
        content = look(self._address, registry=self._registry)
        note = ""
        if content.others:
            others = ", ".join(content.others)
            note = f"another version of arena has databases there: see {others}"
        yield Place(
            shown=self._shown,
            where=self._address.server,
            things=tuple(row.thing() for row in content.databases),
            note=note,
        )

    def sweep(self, *, everything: bool) -> Iterator[SweepResult]:
        """Remove databases as a run does. Yield the removed ones, and the others with a reason."""
        before = look(self._address, registry=self._registry)
        if not before.is_found:
            return
        run = MySQLRegistry(
            self._address, project="arena databases", registry=self._registry
        )
        with closing(run):
            try:
                run.sweep(everything=everything)
            except MySQLFailure as error:
                raise ServerError(
                    f"{self._address.server}: the databases cannot be swept: {error}",
                    why="what killed runs have left stays on the server",
                    cause="the server does not answer, or refuses a statement",
                    fix="arena databases sweep   # once more",
                ) from error
        after = look(self._address, registry=self._registry)
        yield from sweep_results(
            before.databases,
            after.databases,
            run.left,
            self._reason,
            everything=everything,
        )
        if not after.is_found:
            yield SweepResult(Thing(name=self._registry, what="registry"))

    def _reason(self, row: RegistryRow) -> str:
        """Return why a database was left."""
        if row.alive:
            return f"a living run's: {row.project}, {row.host} {row.pid}"
        if not row.owner.startswith(f"{self._address.user}@"):
            return f"belongs to the login {row.owner}"
        return "a living run uses it"


def place_kinds(
    config: Config, *, removes_all: bool
) -> tuple[list[PlaceKind], list[PlaceKind]]:
    """Return the server and the private servers, if the option names no other product."""
    is_of_product = product_of(config.database) == FACTS.name
    if config.database not in {"auto", "own", *FILE_PRODUCTS} and not is_of_product:
        return [], []
    # The tests of pytest-arena set this variable, to use separate registries.
    registry = os.environ.get("ARENA_REGISTRY") or REGISTRY
    kinds = _server(config, registry)
    is_named = removes_all and (config.server_url or config.database in FILE_PRODUCTS)
    if sys.platform != "win32" and not is_named:
        from pytest_arena._mysql.servers._private_mysql import PRIVATE_SERVERS  # noqa: PLC0415 - not for Windows
        from pytest_arena._product.servers._private_places import PrivateServerPlaces  # noqa: PLC0415 - as above

        # Most projects have no server of this product.
        if is_of_product or PRIVATE_SERVERS.parents(config.cache):
            databases_on = partial(MySQLDatabases, shown="", registry=registry)
            kinds.append(
                PrivateServerPlaces(
                    PRIVATE_SERVERS, config.cache, databases=databases_on
                )
            )
    return kinds, []


def _server(config: Config, registry: str) -> list[PlaceKind]:
    if config.database in {"own", *FILE_PRODUCTS}:
        return []
    is_asked_for = config.database != "auto"
    try:
        server = find_server(config) if config.server_url else local_service(config)
    except (Unavailable, ConfigError) as error:
        if not is_asked_for:
            return []
        reason = str(getattr(error, "what", error))
        note = " ".join(reason.split())
        place = Place(shown=FACTS.shown, where="a local service", note=note)
        return [UnreadablePlace(place)]
    if not (is_asked_for or look(server.address, registry=registry).is_found):
        return []  # most projects have nothing on this server
    return [MySQLDatabases(server.address, server.shown, registry=registry)]

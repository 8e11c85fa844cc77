"""MySQL and MariaDB in `arena databases`: a server, and pytest-arena's databases on it."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING

from pytest_arena._config._supported import FILE_PRODUCTS, product_of
from pytest_arena._mysql import FACTS
from pytest_arena._mysql._server_registry import MySQLRegistry, look
from pytest_arena._mysql.servers._search import find_server, local_service
from pytest_arena._product._databases_command import Place, PlaceKind, UnreadablePlace
from pytest_arena._product._databases_on_server import DatabasesOnServer
from pytest_arena._product.servers import Unavailable
from pytest_arena.errors import ConfigError

if TYPE_CHECKING:
    from pytest_arena._config._read import Config


_databases_on = partial(DatabasesOnServer, look=look, registry=MySQLRegistry)


def place_kinds(
    config: Config, *, removes_all: bool
) -> tuple[list[PlaceKind], list[PlaceKind]]:
    """Return the server and the private servers, if the option names no other product."""
    is_of_product = product_of(config.database) == FACTS.name
    if config.database not in {"auto", "own", *FILE_PRODUCTS} and not is_of_product:
        return [], []
    kinds = _server(config)
    is_named = removes_all and (config.server_url or config.database in FILE_PRODUCTS)
    if sys.platform != "win32" and not is_named:
        from pytest_arena._mysql.servers._private_mysql import PRIVATE_SERVERS  # noqa: PLC0415 - not for Windows
        from pytest_arena._product.servers._private_places import PrivateServerPlaces  # noqa: PLC0415 - not for Windows

        # Most projects have no server of this product.
        if is_of_product or PRIVATE_SERVERS.parents(config.cache):
            databases_on = partial(_databases_on, shown="")
            kinds.append(
                PrivateServerPlaces(
                    PRIVATE_SERVERS, config.cache, databases=databases_on
                )
            )
    return kinds, []


def _server(config: Config) -> list[PlaceKind]:
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
    if not (is_asked_for or look(server.address)):
        return []  # most projects have no databases on this server
    return [_databases_on(server.address, server.shown)]

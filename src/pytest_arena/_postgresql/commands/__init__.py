"""PostgreSQL in `arena databases`: a server, private servers, and the databases on them."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING

from pytest_arena._config._supported import FILE_PRODUCTS, product_of
from pytest_arena._postgresql import FACTS
from pytest_arena._postgresql.registry import ServerRegistry, look
from pytest_arena._postgresql.servers._find import find_server, local_service
from pytest_arena._product._databases_command import Place, PlaceKind, UnreadablePlace
from pytest_arena._product._databases_on_server import DatabasesOnServer
from pytest_arena._product.servers import Unavailable
from pytest_arena.errors import ConfigError, ServerError

if TYPE_CHECKING:
    from pytest_arena._config._read import Config


_databases_on = partial(DatabasesOnServer, look=look, registry=ServerRegistry)


def place_kinds(
    config: Config, *, removes_all: bool
) -> tuple[list[PlaceKind], list[PlaceKind]]:
    """Return the server and the private servers, if the option names no other product."""
    if product_of(config.database) not in {"", FACTS.name, *FILE_PRODUCTS}:
        return [], []
    # The server is first, because the command ends if the user named an unusable server.
    kinds = _server(config)
    is_named = removes_all and (config.server_url or config.database in FILE_PRODUCTS)
    if sys.platform != "win32" and not is_named:
        from pytest_arena._postgresql.servers._cluster import CLUSTERS  # noqa: PLC0415 - not for Windows
        from pytest_arena._product.servers._private_places import PrivateServerPlaces  # noqa: PLC0415 - not for Windows

        databases_on = partial(_databases_on, shown="")
        kinds.append(
            PrivateServerPlaces(CLUSTERS, config.cache, databases=databases_on)
        )
    return kinds, []


def _server(config: Config) -> list[PlaceKind]:
    if config.database in {"own", *FILE_PRODUCTS}:
        return []
    try:
        server = find_server(config) if config.server_url else local_service(config)
    except (Unavailable, ConfigError) as error:
        # A missing driver is a `ConfigError` only in a run of the tests.
        if config.server_url and isinstance(error, ConfigError):
            raise ServerError(
                error.what, why=error.why, cause=error.cause, fix=error.fix
            ) from error
        reason = str(getattr(error, "what", error))
        note = " ".join(reason.split())
        place = Place(shown=FACTS.shown, where="a local service", note=note)
        return [UnreadablePlace(place)]
    return [_databases_on(server.address, server.shown)]

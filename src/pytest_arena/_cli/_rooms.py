"""Where may something of arena's be?"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from pytest_arena._cli._base import Place
from pytest_arena._cli._cached_files import CachedFiles
from pytest_arena._cli._live_files import LiveFiles
from pytest_arena._cli._options import read_options
from pytest_arena._cli._server_databases import ServerDatabases
from pytest_arena._postgresql.registry import REGISTRY
from pytest_arena._postgresql.servers import Unavailable, Wanted
from pytest_arena._postgresql.servers._find import find_server, local_service
from pytest_arena.errors import ConfigError, ServerError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from pytest_arena._cli._base import Left, Removed, Room
    from pytest_arena._config import Config

__all__ = ["rooms"]

_REGISTRY = "ARENA_REGISTRY"  # for tests, which leave the others' registry alone


class Nothing:
    """A place that nobody can look at."""

    def __init__(self, place: Place) -> None:
        self._place = place

    def look(self) -> Iterator[Place]:
        """Say why."""
        yield self._place

    def sweep(self, *, everything: bool) -> Iterator[Removed | Left]:
        """Nothing is there."""
        del everything
        yield from ()


def rooms(database: str | None) -> Sequence[Room]:
    """Return all that are to be looked at, in the order in which they are shown.

    Raises:
        ConfigError: a value that cannot be right.
        ServerError: the server that is named cannot be used.
    """
    config = read_options(database)
    registry = os.environ.get(_REGISTRY) or REGISTRY
    # The server first: where it was named and is not there, nothing is said and nothing swept.
    server = _server(config, registry)
    private = _private_servers(config.cache, registry)
    return [LiveFiles(), *server, *private, CachedFiles(config.cache)]


def _server(config: Config, registry: str) -> list[Room]:
    if config.database in {"own", "sqlite"}:
        return []
    wanted = Wanted(
        url=config.database if "://" in config.database else "",
        own=False,
        cache=config.cache,
        place=config.place("database"),
    )
    if wanted.url:
        return [_named(wanted, registry)]
    try:
        found = local_service(wanted)
    except (Unavailable, ConfigError) as reason:
        why = " ".join(str(getattr(reason, "what", reason)).split())
        return [Nothing(Place(shown="PostgreSQL", where="a local service", note=why))]
    return [ServerDatabases(found.address, found.shown, registry=registry)]


def _named(wanted: Wanted, registry: str) -> Room:
    try:
        found = find_server(wanted)
    except ConfigError as error:  # no driver: that is no wrong option
        raise ServerError(error.what, why=error.why, cause=error.cause, fix=error.fix) from error
    return ServerDatabases(found.address, found.shown, registry=registry)


def _private_servers(cache: Path, registry: str) -> list[Room]:
    if sys.platform == "win32":
        return []
    from pytest_arena._cli._private_servers import PrivateServers  # noqa: PLC0415 - not on Windows

    return [PrivateServers(cache, registry=registry)]

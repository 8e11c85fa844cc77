"""What do ``arena databases list`` and ``sweep`` do, and where do they look?"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pytest_arena._cli._base import Place
from pytest_arena._cli._files import CachedFiles, LiveFiles
from pytest_arena._cli._lines import as_json, as_lines, closing_line, sweep_line
from pytest_arena._cli._server_databases import ServerDatabases
from pytest_arena._config._project import read_options
from pytest_arena._postgresql.registry import REGISTRY
from pytest_arena._postgresql.servers import Unavailable, Wanted
from pytest_arena._postgresql.servers._find import find_server, local_service
from pytest_arena.errors import ArenaError, ConfigError, ServerError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from pytest_arena._cli._base import Omission, PlaceKind, Removed
    from pytest_arena._config import Config


@dataclass(frozen=True, slots=True)
class Nothing:
    """A place that nobody can look at, and why."""

    place: Place

    def look(self) -> Iterator[Place]:
        """Say why."""
        yield self.place

    def sweep(self, *, everything: bool) -> Iterator[Removed | Omission]:
        """Nothing is there."""
        del everything
        yield from ()


def list_databases(given: argparse.Namespace) -> int:
    """Print what there is. Returns the exit status; a place that fails is told after the others.

    Raises:
        ConfigError: a value that cannot be right.
        ServerError: the server that is named cannot be used.
    """
    places: list[Place] = []
    failures: list[ArenaError] = []
    for room in _rooms(given.database):
        try:
            places += room.look()
        except ArenaError as error:
            failures.append(error)
    lines = as_lines(places, now=datetime.now(UTC))
    print(as_json(places) if given.json else "\n".join(lines))  # noqa: T201 - a command prints
    return _status(failures)


def sweep_databases(given: argparse.Namespace) -> int:
    """Remove what may go, and print it. Returns and raises as ``list_databases``."""
    done: list[Removed | Omission] = []
    failures: list[ArenaError] = []
    for room in _rooms(given.database):
        try:
            for thing in room.sweep(everything=given.everything):
                done.append(thing)
                print(sweep_line(thing), flush=True)  # noqa: T201 - a command prints
        except ArenaError as error:
            failures.append(error)
    print(closing_line(done))  # noqa: T201 - a command prints
    return _status(failures)


def _status(failures: list[ArenaError]) -> int:
    for error in failures:
        sys.stderr.write(f"{error}\n")
    return 1 if failures else 0


def _rooms(database: str | None) -> list[PlaceKind]:
    """Return all that are to be looked at, in the order in which they are shown."""
    config = read_options(database)
    registry = os.environ.get("ARENA_REGISTRY") or REGISTRY  # for tests: the others' is left alone
    # The server first: where it was named and is not there, nothing is said and nothing swept.
    rooms = [LiveFiles(), *_server(config, registry)]
    if sys.platform != "win32":
        from pytest_arena._cli._private_servers import PrivateServers  # noqa: PLC0415 - as above

        rooms.append(PrivateServers(config.cache, registry=registry))
    return [*rooms, CachedFiles(config.cache)]


def _server(config: Config, registry: str) -> list[PlaceKind]:
    if config.database in {"own", "sqlite"}:
        return []
    url, place = config.database if "://" in config.database else "", config.places["database"]
    wanted = Wanted(url=url, own=False, cache=config.cache, place=place)
    try:
        found = find_server(wanted) if url else local_service(wanted)
    except (Unavailable, ConfigError) as reason:
        if url and isinstance(reason, ConfigError):  # no driver: that is no wrong option
            what, why, cause, fix = reason.what, reason.why, reason.cause, reason.fix
            raise ServerError(what, why=why, cause=cause, fix=fix) from reason
        note = " ".join(str(getattr(reason, "what", reason)).split())
        return [Nothing(Place(shown="PostgreSQL", where="a local service", note=note))]
    return [ServerDatabases(found.address, found.shown, registry=registry)]

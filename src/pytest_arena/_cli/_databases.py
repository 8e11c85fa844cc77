"""What do ``arena databases list`` and ``sweep`` do, and where do they look?"""

from __future__ import annotations

import os
import sys
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from pytest_arena._cli import _lines as lines
from pytest_arena._cli._files import CachedFiles, LiveFiles
from pytest_arena._config._project import read_options
from pytest_arena._postgresql.registry import REGISTRY, RegistryRow, ServerRegistry, look
from pytest_arena._postgresql.servers import Unavailable
from pytest_arena._postgresql.servers._find import find_server, local_service
from pytest_arena.errors import ArenaError, ConfigError, ServerError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from pytest_arena._config._read import Config
    from pytest_arena._values import Address


@dataclass(frozen=True, slots=True)
class Nothing:
    """A place that nobody can look at, and why."""

    place: lines.Place

    def look(self) -> Iterator[lines.Place]:
        """Say why."""
        yield self.place

    def sweep(self, *, everything: bool) -> Iterator[lines.Swept]:
        """Nothing is there."""
        del everything
        yield from ()


def list_or_sweep(given: argparse.Namespace) -> int:
    """Print what there is; or remove what may go, and print it. Returns the exit status.

    A place that fails is told after the others.

    Raises:
        ConfigError: a value that cannot be right.
        ServerError: the server that is named cannot be used.
    """
    places: list[lines.Place] = []
    done: list[lines.Swept] = []
    failures: list[ArenaError] = []
    for room in _rooms(given.database):
        try:
            if given.sweeps:
                done.extend(_printed(room.sweep(everything=given.everything)))
            else:
                places += room.look()
        except ArenaError as error:
            failures.append(error)
    text = "\n".join(lines.as_lines(places, now=datetime.now(UTC)))
    shown = lines.as_json(places) if given.json else text
    print(lines.closing_line(done) if given.sweeps else shown)  # noqa: T201 - a command prints
    sys.stderr.writelines(f"{failure}\n" for failure in failures)
    return 1 if failures else 0


def _printed(things: Iterator[lines.Swept]) -> Iterator[lines.Swept]:
    for thing in things:
        print(lines.sweep_line(thing), flush=True)  # noqa: T201 - a command prints
        yield thing


def _rooms(database: str | None) -> list[lines.PlaceKind]:
    """Return all that are to be looked at, in the order in which they are shown."""
    config = read_options(database)
    registry = os.environ.get("ARENA_REGISTRY") or REGISTRY  # for tests: the others' is left alone
    # The server first: where it was named and is not there, nothing is said and nothing swept.
    rooms = [LiveFiles(), *_server(config, registry)]
    if sys.platform != "win32":
        from pytest_arena._cli._private_servers import PrivateServers  # noqa: PLC0415 - as above

        on = partial(ServerDatabases, shown="", registry=registry)
        rooms.append(PrivateServers(config.cache, databases=on))
    return [*rooms, CachedFiles(config.cache)]


def _server(config: Config, registry: str) -> list[lines.PlaceKind]:
    if config.database in {"own", "sqlite"}:
        return []
    try:
        found = find_server(config) if config.server_url else local_service(config)
    except (Unavailable, ConfigError) as reason:
        # No driver: that is no wrong option.
        if config.server_url and isinstance(reason, ConfigError):
            what, why, cause, fix = reason.what, reason.why, reason.cause, reason.fix
            raise ServerError(what, why=why, cause=cause, fix=fix) from reason
        note = " ".join(str(getattr(reason, "what", reason)).split())
        return [Nothing(lines.Place(shown="PostgreSQL", where="a local service", note=note))]
    return [ServerDatabases(found.address, found.shown, registry=registry)]


class ServerDatabases:
    """What a server's registry names. What it does not name is nobody's business here."""

    def __init__(self, address: Address, shown: str, *, registry: str) -> None:
        self._address, self._shown, self._registry = address, shown, registry

    def look(self) -> Iterator[lines.Place]:
        """Say what is there."""
        seen = look(self._address, registry=self._registry)
        things, others = tuple(map(_thing, seen.databases)), ", ".join(seen.others)
        note = f"another version of arena has databases there: see {others}" if others else ""
        yield lines.Place(shown=self._shown, where=self._address.server, things=things, note=note)

    def sweep(self, *, everything: bool) -> Iterator[lines.Swept]:
        """Have it swept by a run of our own, and say what is not there any more."""
        before = look(self._address, registry=self._registry)
        if before.bytes is None:
            return
        project = "arena databases"
        with closing(
            ServerRegistry(self._address, project=project, registry=self._registry)
        ) as run:
            run.rest()  # what it sweeps by itself as it begins
            run.sweep(everything=everything)
            left = {name: why for name, _, why in (line.partition(": ") for line in run.left)}
        after = look(self._address, registry=self._registry)
        there = {row.name for row in after.databases}
        for row in before.databases:
            if row.name not in there and not row.alive:
                yield lines.Swept(row.kind, row.name, row.bytes)
            elif row.name in there and (everything or row.name in left):
                yield lines.Swept(row.kind, row.name, why=left.get(row.name) or self._why_left(row))
        if after.bytes is None:
            yield lines.Swept("registry", self._registry, before.bytes)

    def _why_left(self, row: RegistryRow) -> str:
        if row.alive:
            return f"a living run's: {row.project}, {row.host} {row.pid}"
        if row.owner != self._address.user:
            return f"belongs to the role {row.owner}"
        return "a living run uses it"


# What a row of the registry and a thing have in common.
_SAME = ("name", "project", "host", "pid", "created", "used", "bytes", "title")


def _thing(row: RegistryRow) -> lines.Thing:
    state = ("alive" if row.alive else "dead") if row.pid else ""
    return lines.Thing(what=row.kind, state=state, **{name: getattr(row, name) for name in _SAME})

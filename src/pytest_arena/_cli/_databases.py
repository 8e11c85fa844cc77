"""`arena databases list` and `sweep`, and the places where they look."""

from __future__ import annotations

import os
import sys
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from pytest_arena._cli import _lines as lines
from pytest_arena._cli._files import CachedFiles, LiveFiles
from pytest_arena._config._project import read_options
from pytest_arena._postgresql.registry import (
    REGISTRY,
    RegistryRow,
    ServerRegistry,
    look,
)
from pytest_arena._postgresql.servers import Unavailable
from pytest_arena._postgresql.servers._find import find_server, local_service
from pytest_arena._supported import FILE_PRODUCTS
from pytest_arena.errors import ArenaError, ConfigError, ServerError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from pytest_arena._config._read import Config
    from pytest_arena._values import Address

_FAILED = 1


class Unreachable:
    """A place that cannot be read. Its note says why."""

    def __init__(self, place: lines.Place) -> None:
        self._place = place

    def look(self) -> Iterator[lines.Place]:
        """Yield the place without things."""
        yield self._place

    def sweep(self, *, everything: bool) -> Iterator[lines.SweepResult]:
        """Remove nothing."""
        del everything
        yield from ()


def list_or_sweep(options: argparse.Namespace) -> int:
    """List the databases, or remove what may be removed. Returns the exit status.

    If one place fails, its error is printed after the other places.

    Raises:
        ConfigError: an option has a wrong value.
        ServerError: the named server cannot be used.
    """
    config = read_options(options.database)
    kinds = _place_kinds(config, removes_all=options.everything)
    if options.sweeps:
        return _sweep(kinds, everything=options.everything, is_agreed=options.yes)
    places, failures = _look(kinds)
    text = lines.as_json(places) if options.json else _table(places)
    print(text)  # noqa: T201 - a command prints
    return _status(failures)


def _look(kinds: list[lines.PlaceKind]) -> tuple[list[lines.Place], list[ArenaError]]:
    """Return the places, and an error for each that cannot be read."""
    places: list[lines.Place] = []
    failures: list[ArenaError] = []
    for kind in kinds:
        try:
            places += kind.look()
        except ArenaError as error:
            failures.append(error)
    return places, failures


def _table(places: list[lines.Place]) -> str:
    now = datetime.now(UTC)
    return "\n".join(lines.as_lines(places, now=now))


def _sweep(kinds: list[lines.PlaceKind], *, everything: bool, is_agreed: bool) -> int:
    if everything and not is_agreed:
        # A place that fails here fails again below, and is reported there.
        places, _ = _look(kinds)
        if any(place.things for place in places):
            lines.say(_table(places), "")
            is_agreed = lines.ask(
                "Remove all of this, except what living runs use?",
                is_agreed=False,
                refusal="nothing is removed",
                command="arena databases sweep --all --yes",
            )
            if not is_agreed:
                return _FAILED
    results: list[lines.SweepResult] = []
    failures: list[ArenaError] = []
    for kind in kinds:
        try:
            for result in kind.sweep(everything=everything):
                lines.say(lines.sweep_line(result))
                results.append(result)
        except ArenaError as error:
            failures.append(error)
    lines.say(lines.closing_line(results))
    return _status(failures)


def _status(failures: list[ArenaError]) -> int:
    """Print the errors, and return the exit status."""
    sys.stderr.writelines(f"{failure}\n" for failure in failures)
    return _FAILED if failures else 0


def _place_kinds(config: Config, *, removes_all: bool) -> list[lines.PlaceKind]:
    """Return the places to look at, in the order in which they are shown.

    If a server or ``sqlite`` is named, ``--all`` empties nothing else.
    """
    # The tests of pytest-arena set this variable, to use separate registries.
    registry = os.environ.get("ARENA_REGISTRY") or REGISTRY
    # The server is first, because an unusable server that was named ends the command.
    server = _server(config, registry)
    if removes_all and config.server_url:
        return server
    kinds: list[lines.PlaceKind] = [LiveFiles(), *server]
    has_only_files = removes_all and config.database in FILE_PRODUCTS
    if sys.platform != "win32" and not has_only_files:
        from pytest_arena._cli._private_servers import PrivateServers  # noqa: PLC0415 - not for Windows

        databases_on = partial(ServerDatabases, shown="", registry=registry)
        kinds.append(PrivateServers(config.cache, databases=databases_on))
    return [*kinds, CachedFiles(config.cache)]


def _server(config: Config, registry: str) -> list[lines.PlaceKind]:
    if config.database in {"own", *FILE_PRODUCTS}:
        return []
    try:
        server = find_server(config) if config.server_url else local_service(config)
    except (Unavailable, ConfigError) as error:
        # A missing driver is a mistake of configuration only in a run of the tests.
        if config.server_url and isinstance(error, ConfigError):
            raise ServerError(
                error.what, why=error.why, cause=error.cause, fix=error.fix
            ) from error
        reason = str(getattr(error, "what", error))
        note = " ".join(reason.split())
        place = lines.Place(shown="PostgreSQL", where="a local service", note=note)
        return [Unreachable(place)]
    return [ServerDatabases(server.address, server.shown, registry=registry)]


class ServerDatabases:
    """The databases in the registry of a server. Other databases are never touched."""

    def __init__(self, address: Address, shown: str, *, registry: str) -> None:
        self._address = address
        self._shown = shown
        self._registry = registry

    def look(self) -> Iterator[lines.Place]:
        """Yield the server with its databases."""
        content = look(self._address, registry=self._registry)
        note = ""
        if content.others:
            others = ", ".join(content.others)
            note = f"another version of arena has databases there: see {others}"
        yield lines.Place(
            shown=self._shown,
            where=self._address.server,
            things=tuple(map(_thing, content.databases)),
            note=note,
        )

    def sweep(self, *, everything: bool) -> Iterator[lines.SweepResult]:
        """Remove databases as a run does. Yield the removed ones, and the others with a reason."""
        before = look(self._address, registry=self._registry)
        if before.bytes is None:
            return
        run = ServerRegistry(
            self._address, project="arena databases", registry=self._registry
        )
        with closing(run):
            run.rest()  # finishes the sweep that each run does at its start
            run.sweep(everything=everything)
        reasons = {}
        for line in run.left:  # a line for each database that was left
            name, _, reason = line.partition(": ")
            reasons[name] = reason
        after = look(self._address, registry=self._registry)
        existing = {row.name for row in after.databases}
        for row in before.databases:
            thing = _thing(row)
            if row.name not in existing:
                if not row.alive:
                    yield lines.SweepResult(thing)
            elif everything or row.name in reasons:
                reason = reasons.get(row.name) or self._reason(row)
                yield lines.SweepResult(thing, reason)
        if after.bytes is None:
            registry = lines.Thing(
                name=self._registry, what="registry", bytes=before.bytes
            )
            yield lines.SweepResult(registry)

    def _reason(self, row: RegistryRow) -> str:
        """Return why a database was left."""
        if row.alive:
            return f"a living run's: {row.project}, {row.host} {row.pid}"
        if row.owner != self._address.user:
            return f"belongs to the role {row.owner}"
        return "a living run uses it"


def _thing(row: RegistryRow) -> lines.Thing:
    state = ""
    if row.pid:
        state = "alive" if row.alive else "dead"
    return lines.Thing(
        name=row.name,
        what=row.kind,
        state=state,
        project=row.project,
        host=row.host,
        pid=row.pid,
        created=row.created,
        used=row.used,
        bytes=row.bytes,
        title=row.title,
    )

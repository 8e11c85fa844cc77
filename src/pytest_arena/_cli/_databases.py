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
from pytest_arena._postgresql.registry import (
    REGISTRY,
    RegistryRow,
    ServerRegistry,
    look,
)
from pytest_arena._postgresql.servers import Unavailable
from pytest_arena._postgresql.servers._find import find_server, local_service
from pytest_arena.errors import ArenaError, ConfigError, ServerError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from pytest_arena._config._read import Config
    from pytest_arena._values import Address

_FAILED = 1


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
    """Print what there is, or remove what may go and print it. Returns the exit status.

    The failure of one place is printed after the other places.

    Raises:
        ConfigError: a value that cannot be right.
        ServerError: the server that is named cannot be used.
    """
    kinds = _place_kinds(read_options(given.database), removes_all=given.everything)
    if not given.sweeps:
        return _list(kinds, as_json=given.json)
    if given.everything and not _may_remove_all(kinds, is_agreed=given.yes):
        return _FAILED
    return _sweep(kinds, everything=given.everything)


def _list(kinds: list[lines.PlaceKind], *, as_json: bool) -> int:
    places, failures = _look(kinds)
    text = lines.as_json(places) if as_json else _table(places)
    print(text)  # noqa: T201 - a command prints
    return _status(failures)


def _look(kinds: list[lines.PlaceKind]) -> tuple[list[lines.Place], list[ArenaError]]:
    places: list[lines.Place] = []
    failures: list[ArenaError] = []
    for kind in kinds:
        try:
            places += kind.look()
        except ArenaError as error:
            failures.append(error)
    return places, failures


def _table(places: list[lines.Place]) -> str:
    return "\n".join(lines.as_lines(places, now=datetime.now(UTC)))


def _may_remove_all(kinds: list[lines.PlaceKind], *, is_agreed: bool) -> bool:
    """Print what there is, and ask. Empty folders and an empty registry may always go."""
    if is_agreed:
        return True
    places, _ = _look(
        kinds
    )  # a place that fails now is not swept, and is reported then
    if not any(place.things for place in places):
        return True
    lines.say(_table(places), "")
    return lines.agreed(
        "Remove all of this, except what living runs use?",
        already=False,
        otherwise="nothing is removed",
        command="arena databases sweep --all --yes",
    )


def _sweep(kinds: list[lines.PlaceKind], *, everything: bool) -> int:
    removed: list[lines.Swept] = []
    failures: list[ArenaError] = []
    for kind in kinds:
        try:
            for thing in kind.sweep(everything=everything):
                lines.say(lines.sweep_line(thing))
                removed.append(thing)
        except ArenaError as error:
            failures.append(error)
    lines.say(lines.closing_line(removed))
    return _status(failures)


def _status(failures: list[ArenaError]) -> int:
    sys.stderr.writelines(f"{failure}\n" for failure in failures)
    return _FAILED if failures else 0


def _place_kinds(config: Config, *, removes_all: bool) -> list[lines.PlaceKind]:
    """Return the places to look at, in the order in which they are shown.

    A named server, or ``sqlite``, is all that ``--all`` may empty.
    """
    registry = (
        os.environ.get("ARENA_REGISTRY") or REGISTRY
    )  # for tests: the others' is left alone
    # The server first: where it was named and is not there, nothing is said and nothing swept.
    server = _server(config, registry)
    if removes_all and config.server_url:
        return server
    kinds: list[lines.PlaceKind] = [LiveFiles(), *server]
    is_for_files = removes_all and config.database == "sqlite"
    if sys.platform != "win32" and not is_for_files:
        from pytest_arena._cli._private_servers import PrivateServers  # noqa: PLC0415 - as above

        on = partial(ServerDatabases, shown="", registry=registry)
        kinds.append(PrivateServers(config.cache, databases=on))
    return [*kinds, CachedFiles(config.cache)]


def _server(config: Config, registry: str) -> list[lines.PlaceKind]:
    if config.database in {"own", "sqlite"}:
        return []
    try:
        found = find_server(config) if config.server_url else local_service(config)
    except (Unavailable, ConfigError) as reason:
        # No driver: that is no wrong option.
        if config.server_url and isinstance(reason, ConfigError):
            what = reason.what
            why = reason.why
            cause = reason.cause
            fix = reason.fix
            raise ServerError(what, why=why, cause=cause, fix=fix) from reason
        note = " ".join(str(getattr(reason, "what", reason)).split())
        return [
            Nothing(lines.Place(shown="PostgreSQL", where="a local service", note=note))
        ]
    return [ServerDatabases(found.address, found.shown, registry=registry)]


class ServerDatabases:
    """What a server's registry names. What it does not name is nobody's business here."""

    def __init__(self, address: Address, shown: str, *, registry: str) -> None:
        self._address = address
        self._shown = shown
        self._registry = registry

    def look(self) -> Iterator[lines.Place]:
        """Say what is there."""
        seen = look(self._address, registry=self._registry)
        things = tuple(map(_thing, seen.databases))
        others = ", ".join(seen.others)
        note = (
            f"another version of arena has databases there: see {others}"
            if others
            else ""
        )
        yield lines.Place(
            shown=self._shown, where=self._address.server, things=things, note=note
        )

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
            left = {
                name: why
                for name, _, why in (line.partition(": ") for line in run.left)
            }
        after = look(self._address, registry=self._registry)
        there = {row.name for row in after.databases}
        for row in before.databases:
            if row.name not in there and not row.alive:
                yield lines.Swept(row.kind, row.name, row.bytes)
            elif row.name in there and (everything or row.name in left):
                yield lines.Swept(
                    row.kind, row.name, why=left.get(row.name) or self._why_left(row)
                )
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
    return lines.Thing(
        what=row.kind, state=state, **{name: getattr(row, name) for name in _SAME}
    )

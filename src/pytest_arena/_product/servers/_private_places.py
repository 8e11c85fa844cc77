"""The user's private servers of a product, in `arena databases`."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any

from pytest_arena._product._databases_command import (
    Place,
    PlaceKind,
    SweepResult,
    Thing,
    size_of,
    time_of,
)
from pytest_arena._product.servers._keeper import attempt
from pytest_arena.errors import ArenaError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pytest_arena._product.servers._places import ServerFolder
    from pytest_arena._product.servers._private_servers import PrivateServers
    from pytest_arena._values import Address


class PrivateServerPlaces:
    """All private servers. This class starts no server, and stops no server that a run uses."""

    def __init__(
        self,
        servers: PrivateServers[Any],
        cache: Path,
        *,
        databases: Callable[[Address], PlaceKind],
    ) -> None:
        self._servers = servers
        self._cache = cache
        self._databases_on = databases

    def look(self) -> Iterator[Place]:
        """Yield each server with its state and its databases."""
        shown = f"Private servers of {self._servers.shown}"
        parents = self._servers.parents(self._cache)
        if not parents:
            yield Place(shown=shown, where="none was ever started")
        for parent in parents:
            places = [self._place(folder) for folder in self._servers.in_parent(parent)]
            yield from places or [Place(shown=shown, where=str(parent))]

    def sweep(self, *, everything: bool) -> Iterator[SweepResult]:
        """Sweep running servers. With ``everything`` also stop and remove unused servers."""
        for parent in self._servers.parents(self._cache):
            servers = self._servers.in_parent(parent)
            for folder in servers:
                yield from self._sweep_server(folder, everything=everything)
            if not everything:
                continue
            folders = chain.from_iterable(map(self._servers.top_folders, servers))
            for path in dict.fromkeys([*folders, parent]):
                with suppress(OSError):  # the folder does not exist, or is not empty
                    path.rmdir()

    def _sweep_server(
        self, folder: ServerFolder, *, everything: bool
    ) -> Iterator[SweepResult]:
        if everything and not self._servers.is_in_use(folder):
            yield self._remove(folder)
        elif self._servers.is_running(folder):
            databases = self._databases_on(self._servers.address_of(folder))
            yield from databases.sweep(everything=everything)
            if everything:
                yield SweepResult(_thing(folder), "a private server that is in use")

    def _place(self, folder: ServerFolder) -> Place:
        state = "stopped"
        if self._servers.is_running(folder):
            state = "in use" if self._servers.is_in_use(folder) else "idle"
        server = replace(
            _thing(folder),
            state=state,
            created=time_of(folder.beside("boot")),
            used=time_of(folder.beside("used")),
        )
        inside: tuple[Thing, ...] = ()
        note = ""
        try:
            if state != "stopped":
                address = self._servers.address_of(folder)
                [databases] = self._databases_on(address).look()
                inside = databases.things
        except ArenaError as error:
            note = error.what  # the server starts, stops, or has no free connection
        return Place(
            shown=f"{self._servers.title(folder)}, a private server",
            where=str(folder.path),
            things=(server, *inside),
            note=note,
        )

    def _remove(self, folder: ServerFolder) -> SweepResult:
        server = _thing(folder)
        lock = folder.beside("lock")
        try:
            with attempt(lock) as is_ours:
                if not is_ours or not self._servers.stop(folder):
                    return SweepResult(
                        server, "a private server that starts, or does not stop"
                    )
                server = _thing(folder)
                self._servers.remove(folder)
                lock.unlink()  # a process that waits for the lock notices this
        except OSError as error:
            return SweepResult(server, str(error))
        return SweepResult(server)


def _thing(folder: ServerFolder) -> Thing:
    path = folder.path
    return Thing(name=path.name, what="server", bytes=size_of(path))

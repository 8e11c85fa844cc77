"""The user's private PostgreSQL servers."""

from __future__ import annotations

from contextlib import closing, suppress
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING

from pytest_arena._postgresql._control import ControlFailure, open_control
from pytest_arena._postgresql.servers import Unavailable
from pytest_arena._postgresql.servers import _cluster as cluster
from pytest_arena._postgresql.servers import _places as places
from pytest_arena._postgresql.servers._keeper import attempt, is_held
from pytest_arena._postgresql.servers._programs import account
from pytest_arena._product._databases_command import (
    Place,
    PlaceKind,
    SweepResult,
    Thing,
    size_of,
    time_of,
)
from pytest_arena.errors import ArenaError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pytest_arena._postgresql.servers._places import ClusterFolder
    from pytest_arena._values import Address

_SHOWN = "Private servers"


class PrivateServers:
    """All private servers. This class starts no server, and stops no server that a run uses."""

    def __init__(
        self, cache: Path, *, databases: Callable[[Address], PlaceKind]
    ) -> None:
        self._cache = cache
        self._databases_on = databases

    def look(self) -> Iterator[Place]:
        """Yield each server with its state and its databases."""
        parents = self._parents()
        if not parents:
            yield Place(shown=_SHOWN, where="none was ever started")
        for parent in parents:
            clusters = [self._place(folder) for folder in _clusters(parent)]
            yield from clusters or [Place(shown=_SHOWN, where=str(parent))]

    def sweep(self, *, everything: bool) -> Iterator[SweepResult]:
        """Sweep running servers. ``everything`` also stops and removes unused servers."""
        for parent in self._parents():
            clusters = _clusters(parent)
            for folder in clusters:
                yield from self._sweep_server(folder, everything=everything)
            if not everything:
                continue
            folders = chain.from_iterable(map(cluster.top_folders, clusters))
            for path in dict.fromkeys([*folders, parent]):
                with suppress(OSError):  # it does not exist, or is not empty
                    path.rmdir()

    def _sweep_server(
        self, folder: ClusterFolder, *, everything: bool
    ) -> Iterator[SweepResult]:
        if everything and not _is_in_use(folder):
            yield _remove(folder)
        elif cluster.is_running(folder):
            databases = self._databases_on(cluster.address_of(folder))
            yield from databases.sweep(everything=everything)
            if everything:
                yield SweepResult(_thing(folder), "a private server that is in use")

    def _parents(self) -> list[Path]:
        try:
            return places.cluster_parents(cache=self._cache, account=account())
        except Unavailable:  # no account can run a server
            return []

    def _place(self, folder: ClusterFolder) -> Place:
        state = "stopped"
        if cluster.is_running(folder):
            state = "in use" if _is_in_use(folder) else "idle"
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
                address = cluster.address_of(folder)
                [databases] = self._databases_on(address).look()
                inside = databases.things
        except (
            ArenaError
        ) as error:  # the server starts, stops, or has no free connection
            note = error.what
        version = folder.path.name.split("-")[0]
        return Place(
            shown=f"PostgreSQL {version}, a private server",
            where=str(folder.path),
            things=(server, *inside),
            note=note,
        )


def _clusters(parent: Path) -> list[ClusterFolder]:
    """Return the clusters below a folder. Beside each is a file with the ending ``.used``."""
    paths = [used.with_suffix("") for used in parent.glob("*.used")]
    return [places.ClusterFolder(path, account()) for path in sorted(paths)]


def _is_in_use(folder: ClusterFolder) -> bool:
    """Return whether a run uses or starts the server, or a client is connected."""
    for name in ("used", "lock"):
        lock = folder.beside(name)
        if lock.exists() and is_held(lock):
            return True
    if not cluster.is_running(folder):
        return False
    try:
        with closing(open_control(cluster.address_of(folder))) as control:
            return control.rows(cluster.OTHER_CLIENTS) != [(0,)]
    except ControlFailure:
        return True  # the server starts, stops, or has no free connection


def _remove(folder: ClusterFolder) -> SweepResult:
    server = _thing(folder)
    lock = folder.beside("lock")
    try:
        with attempt(lock) as is_ours:
            if not is_ours or not cluster.stop(folder):
                return SweepResult(
                    server, "a private server that starts, or does not stop"
                )
            server = _thing(folder)
            cluster.remove(folder)
            lock.unlink()  # a process that waits for the lock notices that it was removed
    except OSError as error:
        return SweepResult(server, str(error))
    return SweepResult(server)


def _thing(folder: ClusterFolder) -> Thing:
    path = folder.path
    return Thing(name=path.name, what="server", bytes=size_of(path))

"""The private servers that arena has started for this user."""

from __future__ import annotations

from contextlib import closing, suppress
from itertools import chain
from typing import TYPE_CHECKING

from pytest_arena._cli._lines import Place, PlaceKind, Swept, Thing, size_of, time_of
from pytest_arena._postgresql._control import ControlFailure, open_control
from pytest_arena._postgresql.servers import Unavailable
from pytest_arena._postgresql.servers import _cluster as cluster
from pytest_arena._postgresql.servers import _places as places
from pytest_arena._postgresql.servers._keeper import attempt, is_held
from pytest_arena._postgresql.servers._programs import account
from pytest_arena.errors import ArenaError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pytest_arena._postgresql.servers._places import ClusterFolder
    from pytest_arena._values import Address

_SHOWN = "Private servers"


class PrivateServers:
    """None is ever started here. One that runs and that nobody uses can be stopped."""

    def __init__(
        self, cache: Path, *, databases: Callable[[Address], PlaceKind]
    ) -> None:
        self._cache = cache
        self._databases_on = databases

    def look(self) -> Iterator[Place]:
        """Say of each whether it runs and is used, and what databases are on it."""
        parents = self._parents()
        if not parents:
            yield Place(shown=_SHOWN, where="none was ever started")
        for parent in parents:
            found = [self._place(folder) for folder in _clusters(parent)]
            yield from found or [Place(shown=_SHOWN, where=str(parent))]

    def sweep(self, *, everything: bool) -> Iterator[Swept]:
        """Sweep those that run; with ``everything``, stop and remove those that nobody uses."""
        for parent in self._parents():
            clusters = _clusters(parent)
            for folder in clusters:
                yield from self._swept(folder, everything=everything)
            above = [*chain.from_iterable(map(cluster.top_folders, clusters)), parent]
            for empty in dict.fromkeys(above if everything else []):
                with suppress(OSError):  # it is not there, or not empty
                    empty.rmdir()

    def _swept(self, folder: ClusterFolder, *, everything: bool) -> Iterator[Swept]:
        if everything and not _is_in_use(folder):
            yield _removed(folder)
        elif cluster.is_running(folder):
            yield from self._databases_on(cluster.address_of(folder)).sweep(
                everything=everything
            )
            if everything:
                yield Swept(
                    "server",
                    folder.path.name,
                    why="a private server that somebody uses",
                )

    def _parents(self) -> list[Path]:
        try:
            return places.cluster_parents(cache=self._cache, account=account())
        except Unavailable:  # root, and nobody whom a server could run as
            return []

    def _place(self, folder: ClusterFolder) -> Place:
        state = "stopped"
        if cluster.is_running(folder):
            state = "in use" if _is_in_use(folder) else "idle"
        server = Thing(
            name=folder.path.name,
            what="server",
            state=state,
            created=time_of(folder.beside("boot")),
            used=time_of(folder.beside("used")),
            bytes=size_of(folder.path),
        )
        inside: tuple[Thing, ...] = ()
        note = ""
        try:
            if state != "stopped":
                [databases] = self._databases_on(cluster.address_of(folder)).look()
                inside = databases.things
        except ArenaError as error:  # full, starting or ending
            note = error.what
        shown = f"PostgreSQL {folder.path.name.split('-')[0]}, a private server"
        return Place(
            shown=shown, where=str(folder.path), things=(server, *inside), note=note
        )


def _clusters(parent: Path) -> list[ClusterFolder]:
    paths = sorted(used.with_suffix("") for used in parent.glob("*.used"))
    return [places.ClusterFolder(path, account()) for path in paths]


def _is_in_use(folder: ClusterFolder) -> bool:
    """Whether a run has it, or is about to start it, or a client is connected."""
    locks = map(folder.beside, ("used", "lock"))
    if any(lock.exists() and is_held(lock) for lock in locks):
        return True
    if not cluster.is_running(folder):
        return False
    try:
        with closing(open_control(cluster.address_of(folder))) as control:
            return control.rows(cluster.OTHER_CLIENTS) != [(0,)]
    except ControlFailure:
        return True  # full, starting or ending


def _removed(folder: ClusterFolder) -> Swept:
    lock = folder.beside("lock")
    try:
        with attempt(lock) as is_ours:
            if not is_ours or not cluster.stop(folder):
                why = "a private server that starts, or does not stop"
                return Swept("server", folder.path.name, why=why)
            size = size_of(folder.path)
            cluster.remove(folder)
            lock.unlink()  # whoever waits for it sees that it is gone
    except OSError as error:
        return Swept("server", folder.path.name, why=str(error))
    return Swept("server", folder.path.name, size)

"""Where a private cluster has its data and its socket, and who may enter there."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_arena._postgresql.servers._base import Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_arena._postgresql.servers._programs import Account

__all__ = ["ClusterFolder", "cluster_folder", "cluster_parents"]

HOME = "ARENA_CLUSTERS"  # another folder for all clusters

# Creating a database writes some thousand files: 30 ms in memory, up to 600 on a disk.
_MEMORY = Path("/dev/shm")  # noqa: S108 - a tmpfs, used with a folder that only this user enters
_ROOM_NEEDED = 1024**3
_SHORT = Path("/tmp")  # noqa: S108 - as above; a socket's path has to be short
_LONGEST_SOCKET = 103  # bytes, on macOS; 107 on Linux
_SOCKET = ".s.PGSQL.5432"


@dataclass(frozen=True, slots=True)
class ClusterFolder:
    """The folder of one cluster, which its server's user alone may enter, and files beside it."""

    path: Path
    account: Account | None

    @property
    def data(self) -> Path:
        """What initdb makes."""
        return self.path / "data"

    @property
    def socket_folder(self) -> Path:
        """Where the socket is: with the data, if that is short enough."""
        if len(os.fsencode(self.path / _SOCKET)) <= _LONGEST_SOCKET:
            return self.path
        return _SHORT / _own_name() / self.path.name

    @property
    def socket(self) -> Path:
        """The socket."""
        return self.socket_folder / _SOCKET

    def beside(self, ending: str) -> Path:
        """A file that belongs to us, not to the server's user."""
        return self.path.with_name(f"{self.path.name}.{ending}")

    def ensure(self) -> None:
        """Make the folders, if they are not there yet.

        Raises:
            Unavailable: somebody else has made them, or they cannot be made.
        """
        for folder in dict.fromkeys((self.path, self.socket_folder)):
            try:
                _ensure_parent(folder.parent, self.account)
                _ensure_private(folder, self.account)
            except OSError as error:
                raise Unavailable(f"no folder for a private server: {error}") from error


def cluster_folder(key: str, *, cache: Path, account: Account | None) -> ClusterFolder:
    """Return the folder of a cluster: where it stands already, else where there is room."""
    places = [place / _own_name() for place in _places(cache, account)]
    there = (place for place in places if (place / key).exists())
    return ClusterFolder(next(there, places[0]) / key, account)


def cluster_parents(*, cache: Path, account: Account | None) -> list[Path]:
    """Return the folders in which there may be clusters of this user."""
    parents = dict.fromkeys(place / _own_name() for place in _places(cache, account))
    return [parent for parent in parents if _is_own(parent)]


def _is_own(parent: Path) -> bool:
    try:
        _check_owner(parent, {os.getuid()})
    except OSError:
        return False
    return parent.is_dir()


def _places(cache: Path, account: Account | None) -> Iterator[Path]:
    if chosen := os.environ.get(HOME):
        yield Path(chosen).absolute()
        return
    if _has_room(_MEMORY):
        yield _MEMORY
    # Root's cache is closed to the user that the server runs as.
    yield Path("/var/tmp") if account else cache  # noqa: S108 - with a folder that nobody else enters
    yield _MEMORY  # found again, even if it is full by now


def _own_name() -> str:
    return f"pytest-arena-pg-{os.getuid()}"


def _has_room(folder: Path) -> bool:
    if not os.access(folder, os.W_OK):
        return False
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize >= _ROOM_NEEDED


def _ensure_parent(folder: Path, account: Account | None) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Another user passes through it, to a folder of its own, and cannot look around.
    folder.mkdir(mode=0o711 if account else 0o700, exist_ok=True)
    _check_owner(folder, {os.getuid()})


def _ensure_private(folder: Path, account: Account | None) -> None:
    folder.mkdir(mode=0o700, exist_ok=True)
    owner = account.uid if account else os.getuid()
    _check_owner(folder, {owner, os.getuid()})
    if account:
        os.chown(folder, account.uid, account.gid)


def _check_owner(folder: Path, allowed: set[int]) -> None:
    # The place above may be open to all: somebody else could have made this folder before us.
    if folder.is_symlink() or folder.lstat().st_uid not in allowed:
        raise PermissionError(f"{folder} belongs to another user")

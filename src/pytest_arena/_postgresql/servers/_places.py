"""Where a private cluster has its data and its socket, who may enter, and the locks beside it.

The locks are on files: the kernel takes them back, however a process ends.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_arena._postgresql.servers import Unavailable
from pytest_arena._postgresql.servers._keeper import locked
from pytest_arena._process import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_arena._postgresql.servers._programs import Account


HOME = "ARENA_CLUSTERS"  # another folder for all clusters

# Creating a database writes some thousand files: 30 ms in memory, up to 600 on a disk.
_MEMORY = Path("/dev/shm")  # noqa: S108 - a tmpfs, used with a folder that only this user enters
_ROOM_NEEDED = 1024**3
_SHORT = Path("/tmp")  # noqa: S108 - as above; a socket's path has to be short
_LONGEST_SOCKET = 103  # bytes, on macOS; 107 on Linux
_SOCKET = ".s.PGSQL.5432"
_LOCK_SECONDS = 150


@dataclass(frozen=True, slots=True)
class ClusterFolder:
    """The folder of one cluster, which its server's user alone may enter, and files beside it."""

    path: Path
    account: Account

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
        account = self.account
        try:
            for folder in dict.fromkeys((self.path, self.socket_folder)):
                folder.parent.parent.mkdir(parents=True, exist_ok=True)
                # Another user passes through it, to a folder of its own, and cannot look around.
                folder.parent.mkdir(
                    mode=0o711 if account.is_other else 0o700, exist_ok=True
                )
                _check_owner(folder.parent, {os.getuid()})
                folder.mkdir(mode=0o700, exist_ok=True)
                _check_owner(folder, {account.uid, os.getuid()})
                os.chown(folder, account.uid, account.gid)
        except OSError as error:
            raise Unavailable(f"no folder for a private server: {error}") from error


def cluster_folder(key: str, *, cache: Path, account: Account) -> ClusterFolder:
    """Return the folder of a cluster: where it stands already, else where there is room."""
    places = [place / _own_name() for place in _places(cache, account)]
    there = (place for place in places if (place / key).exists())
    return ClusterFolder(next(there, places[0]) / key, account)


def cluster_parents(*, cache: Path, account: Account) -> list[Path]:
    """Return the folders in which there may be clusters of this user."""
    parents = dict.fromkeys(place / _own_name() for place in _places(cache, account))
    return [
        parent
        for parent in parents
        if _is_own(parent, {os.getuid()}) and parent.is_dir()
    ]


def _places(cache: Path, account: Account) -> Iterator[Path]:
    if chosen := os.environ.get(HOME):
        yield Path(chosen).absolute()
        return
    if _has_room(_MEMORY):
        yield _MEMORY
    # Root's cache is closed to the user that the server runs as.
    yield Path("/var/tmp") if account.is_other else cache  # noqa: S108 - with a folder that nobody else enters
    yield _MEMORY  # found again, even if it is full by now


def _own_name() -> str:
    return f"pytest-arena-pg-{os.getuid()}"


def _has_room(folder: Path) -> bool:
    return os.access(folder, os.W_OK) and shutil.disk_usage(folder).free >= _ROOM_NEEDED


def _is_own(folder: Path, owners: set[int]) -> bool:
    # The place above may be open to all: somebody else could have made this folder before us.
    return os.path.lexists(folder) and (
        not folder.is_symlink() and folder.lstat().st_uid in owners
    )


def _check_owner(folder: Path, owners: set[int]) -> None:
    if not _is_own(folder, owners):
        raise PermissionError(f"{folder} belongs to another user")


class SharedLock:
    """A lock on a file that several processes hold at once, this one among them."""

    def __init__(self, path: Path) -> None:
        self._file = _open(path)
        os.utime(path)
        fcntl.flock(self._file, fcntl.LOCK_SH)

    def close(self) -> None:
        """Let it go. A forked child's share is its own: the parent's stays."""
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)

    def __del__(self) -> None:
        self.close()


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold a file alone.

    Raises:
        Unavailable: another process has held it all the time.
    """
    file = _open(path)

    def is_ours() -> bool:
        nonlocal file
        if _is_removed(
            file
        ):  # with all the rest: whoever comes later locks another one
            stale, file = file, _open(path)
            os.close(stale)
        return locked(file) and not _is_removed(file)

    try:
        if not until(is_ours, within=_LOCK_SECONDS):
            raise Unavailable(
                f"another process has held {path} for {_LOCK_SECONDS} seconds"
            )
        yield
    finally:
        os.close(file)


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except FileNotFoundError as error:
        raise Unavailable(f"{path.parent} has just been removed") from error


def _is_removed(file: int) -> bool:
    return os.fstat(file).st_nlink == 0

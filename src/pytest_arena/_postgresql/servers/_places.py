"""The folders and locks of a private cluster.

The locks are on files: the kernel releases them when a process ends.
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


HOME = "ARENA_CLUSTERS"  # names another folder for all clusters

# Creating a database writes some thousand files: 30 ms in memory, up to 600 on a disk.
_MEMORY = Path("/dev/shm")  # noqa: S108 - a tmpfs, used with a folder that only this user enters
_ROOM_NEEDED = 1024**3
_SHORT = Path("/tmp")  # noqa: S108 - as above; a socket's path has to be short
_LONGEST_SOCKET = 103  # bytes on macOS, 107 on Linux
_SOCKET = ".s.PGSQL.5432"
_LOCK_SECONDS = 150


@dataclass(frozen=True, slots=True)
class ClusterFolder:
    """The folder of a cluster, which only the server's user may enter, and the files beside it."""

    path: Path
    account: Account

    @property
    def data(self) -> Path:
        """The folder that initdb fills."""
        return self.path / "data"

    @property
    def socket_folder(self) -> Path:
        """The socket's folder: the cluster's, if its path is short enough."""
        if len(os.fsencode(self.path / _SOCKET)) <= _LONGEST_SOCKET:
            return self.path
        return _SHORT / _own_name() / self.path.name

    @property
    def socket(self) -> Path:
        """The socket's path."""
        return self.socket_folder / _SOCKET

    def beside(self, ending: str) -> Path:
        """Return a file beside the folder. It belongs to this process' user."""
        return self.path.with_name(f"{self.path.name}.{ending}")

    def ensure(self) -> None:
        """Make the folders if they do not exist.

        Raises:
            Unavailable: the folders cannot be made, or belong to another user.
        """
        account = self.account
        # With 711 another user can reach its folder in it, and cannot list the others.
        parent_mode = 0o711 if account.is_other else 0o700
        try:
            for folder in (self.path, self.socket_folder):
                folder.parent.parent.mkdir(parents=True, exist_ok=True)
                folder.parent.mkdir(mode=parent_mode, exist_ok=True)
                _check_owner(folder.parent, {os.getuid()})
                folder.mkdir(mode=0o700, exist_ok=True)
                _check_owner(folder, {account.uid, os.getuid()})
                os.chown(folder, account.uid, account.gid)
        except OSError as error:
            raise Unavailable(f"no folder for a private server: {error}") from error


def cluster_folder(key: str, *, cache: Path, account: Account) -> ClusterFolder:
    """Return the folder of a cluster that exists, else a folder where there is room."""
    parents = list(_parents(cache, account))
    for parent in parents:
        if (parent / key).exists():
            return ClusterFolder(parent / key, account)
    return ClusterFolder(parents[0] / key, account)


def cluster_parents(*, cache: Path, account: Account) -> list[Path]:
    """Return the folders in which there may be clusters of this user."""
    parents = dict.fromkeys(_parents(cache, account))
    return [p for p in parents if p.is_dir() and _is_own(p, {os.getuid()})]


def _parents(cache: Path, account: Account) -> Iterator[Path]:
    name = _own_name()
    chosen = os.environ.get(HOME)
    if chosen:
        yield Path(chosen).absolute() / name
        return
    if _has_room(_MEMORY):
        yield _MEMORY / name
    # The server's user cannot enter root's cache.
    on_disk = Path("/var/tmp") if account.is_other else cache  # noqa: S108 - no other user enters the folder in it
    yield on_disk / name
    yield _MEMORY / name  # a cluster is found again when memory is full


def _own_name() -> str:
    return f"pytest-arena-pg-{os.getuid()}"


def _has_room(folder: Path) -> bool:
    return os.access(folder, os.W_OK) and shutil.disk_usage(folder).free >= _ROOM_NEEDED


def _is_own(folder: Path, owners: set[int]) -> bool:
    # All users may write to the parent: another user may have made this folder first.
    if not os.path.lexists(folder) or folder.is_symlink():
        return False
    return folder.lstat().st_uid in owners


def _check_owner(folder: Path, owners: set[int]) -> None:
    if not _is_own(folder, owners):
        raise PermissionError(f"{folder} belongs to another user")


class SharedLock:
    """A lock on a file that several processes hold at once."""

    def __init__(self, path: Path) -> None:
        self._file = _open(path)
        os.utime(path)
        fcntl.flock(self._file, fcntl.LOCK_SH)

    def close(self) -> None:
        """Release the lock. A forked child releases only its share."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __del__(self) -> None:
        self.close()


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Lock a file for this process alone.

    Raises:
        Unavailable: another process has not released it in time.
    """
    file = _open(path)

    def is_ours() -> bool:
        nonlocal file
        if _is_removed(file):  # with the cluster: other processes lock a new file
            os.close(file)
            file = _open(path)
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

"""The folders and locks of a private server.

The locks are on files, so the kernel releases them when a process ends.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_arena._process import until
from pytest_arena._product.servers import Unavailable
from pytest_arena._product.servers._keeper import locked

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_arena._product.servers._server_programs import Account


# Tests put all private servers into another folder by this variable.
HOME = "ARENA_CLUSTERS"

# Creating a database writes some thousand files: 30 ms in memory, up to 600 on a disk.
_MEMORY = Path("/dev/shm")  # noqa: S108 - a tmpfs, used with a folder that only this user enters
_ROOM_NEEDED = 1024**3
_SHORT = Path("/tmp")  # noqa: S108 - as above; a socket's path has to be short
_LONGEST_SOCKET = 103  # bytes on macOS, 107 on Linux
_LOCK_SECONDS = 150


@dataclass(frozen=True, slots=True)
class ServerFolder:
    """The folder of a server, which only the server's user may enter, and its other files."""

    path: Path
    account: Account
    label: str
    socket_name: str

    @property
    def data(self) -> Path:
        """The folder with the server's data."""
        return self.path / "data"

    @property
    def socket_folder(self) -> Path:
        """The socket's folder: the server's folder if its path is short enough."""
        if len(os.fsencode(self.path / self.socket_name)) <= _LONGEST_SOCKET:
            return self.path
        return _SHORT / _own_name(self.label) / self.path.name

    @property
    def socket(self) -> Path:
        """The socket's path."""
        return self.socket_folder / self.socket_name

    def beside(self, ending: str) -> Path:
        """Return a file next to the folder. It belongs to this process' user."""
        return self.path.with_name(f"{self.path.name}.{ending}")

    def ensure(self) -> None:
        """Create the folders if they do not exist.

        Raises:
            Unavailable: the folders cannot be created, or belong to another user.
        """
        account = self.account
        # 711 lets another user enter its folder inside, but not list the folders.
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


def path_for(key: str, parents: list[Path]) -> Path:
    """Return the path of the existing server, else the best path for a new one."""
    for parent in parents:
        if (parent / key).exists():
            return parent / key
    return parents[0] / key


def existing_parents(label: str, cache: Path, account: Account) -> list[Path]:
    """Return the existing folders for servers of this user."""
    paths = dict.fromkeys(parents(label, cache, account))
    return [path for path in paths if path.is_dir() and _is_own(path, {os.getuid()})]


def parents(label: str, cache: Path, account: Account) -> list[Path]:
    """Return the folders for servers of this user, the best first."""
    name = _own_name(label)
    chosen = os.environ.get(HOME)
    if chosen:
        return [Path(chosen).absolute() / name]
    # The server's user cannot enter root's cache.
    on_disk = Path("/var/tmp") if account.is_other else cache  # noqa: S108 - no other user enters the folder in it
    # Both places are searched, so that a server in memory is found when memory is full.
    places = [on_disk / name, _MEMORY / name]
    if os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free >= _ROOM_NEEDED:
        places.reverse()
    return places


def _own_name(label: str) -> str:
    return f"pytest-arena-{label}-{os.getuid()}"


def _is_own(folder: Path, owners: set[int]) -> bool:
    # All users may write to the parent, so another user may have created this folder.
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
        if _is_removed(file):  # another process has removed it with the server
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

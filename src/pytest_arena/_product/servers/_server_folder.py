"""The folder of a private server, its user, and its locks.

The locks are on files, so the kernel releases them when a process ends.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_arena._process import until
from pytest_arena._product.servers import Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

# Tests put all private servers into another folder by this variable.
HOME = "ARENA_CLUSTERS"

# Creating a database writes some thousand files: 30 ms in memory, up to 600 on a disk.
_MEMORY = Path("/dev/shm")  # noqa: S108 - a tmpfs, used with a folder that only this user enters
_ROOM_NEEDED = 1024**3
_LOCK_SECONDS = 150
_KEPT = ("PATH", "TZ", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")


@dataclass(frozen=True, slots=True)
class Account:
    """A user of the system other than root, because the servers refuse to run as root."""

    uid: int
    gid: int
    is_other: bool  # whether it is not this process' user

    def as_arguments(self) -> dict[str, Any]:
        """Return arguments for ``subprocess``, which also drop root's groups."""
        if not self.is_other:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}


def account_for(users: tuple[str, ...], shown: str) -> Account:
    """Return the user that runs a server: this process' user, for root the first of ``users``.

    Raises:
        Unavailable: the system has none of ``users``.
    """
    if os.geteuid() != 0:
        return Account(os.geteuid(), os.getegid(), is_other=False)
    import pwd  # noqa: PLC0415 - not on Windows

    for name in users:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_uid, entry.pw_gid, is_other=True)
    names = " or ".join(users)
    raise Unavailable(f"{shown} refuses root, and this system has no user {names}")


def environment() -> dict[str, str]:
    """Return the environment of the server's processes, a part of this process' environment.

    Another user could read the other variables, and some, such as PGPORT, would change the server.
    """
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return {**kept, "LC_ALL": "C"}


@dataclass(frozen=True, slots=True)
class ServerFolder:
    """The folder of a server, which only the server's user may enter, and its other files."""

    path: Path
    account: Account

    @property
    def data(self) -> Path:
        """The folder with the server's data."""
        return self.path / "data"

    def beside(self, ending: str) -> Path:
        """Return a file next to the folder. It belongs to this process' user."""
        return self.path.with_name(f"{self.path.name}.{ending}")

    def ensure(self) -> None:
        """Create the folders if they do not exist.

        Raises:
            Unavailable: the folders cannot be created, or belong to another user.
        """
        account = self.account
        parent = self.path.parent
        # 711 lets another user enter its folder inside, but not list the folders.
        parent_mode = 0o711 if account.is_other else 0o700
        try:
            parent.parent.mkdir(parents=True, exist_ok=True)
            parent.mkdir(mode=parent_mode, exist_ok=True)
            _check_owner(parent, {os.getuid()})
            self.path.mkdir(mode=0o700, exist_ok=True)
            _check_owner(self.path, {account.uid, os.getuid()})
            os.chown(self.path, account.uid, account.gid)
        except OSError as error:
            raise Unavailable(f"no folder for a private server: {error}") from error


def parents(label: str, cache: Path, account: Account) -> list[Path]:
    """Return the folders for servers of this user, the best first."""
    name = f"pytest-arena-{label}-{os.getuid()}"
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


def is_own(folder: Path, owners: set[int]) -> bool:
    """Return whether a folder belongs to one of these users.

    All users may write to its parent, so another user may have created it.
    """
    if not os.path.lexists(folder) or folder.is_symlink():
        return False
    return folder.lstat().st_uid in owners


def _check_owner(folder: Path, owners: set[int]) -> None:
    if not is_own(folder, owners):
        raise PermissionError(f"{folder} belongs to another user")


class SharedLock:
    """A lock on a file that several processes hold at once. A forked child does not hold it."""

    def __init__(self, path: Path) -> None:
        self._file = _open(path)
        self._process = os.getpid()
        os.utime(path)
        fcntl.flock(self._file, fcntl.LOCK_SH)

    @property
    def is_ours(self) -> bool:
        """Whether this process holds the lock."""
        return self._file >= 0 and self._process == os.getpid()

    def close(self) -> bool:
        """Release the lock. Return whether no other process holds it."""
        is_last = _try_lock(self._file)
        os.close(self._file)
        self._file = -1
        return is_last


@contextmanager
def attempt(path: Path) -> Iterator[bool]:
    """Try to lock a file for this block. Yield whether it is locked."""
    file = _open(path)
    try:
        yield _try_lock(file)
    finally:
        os.close(file)


def is_held(path: Path) -> bool:
    """Return whether any process has locked a file."""
    if not path.exists():
        return False
    with attempt(path) as is_ours:
        return not is_ours


@contextmanager
def exclusive(path: Path) -> Iterator[int]:
    """Lock a file for this process alone. Yield the open file.

    Raises:
        Unavailable: another process has not released it in time.
    """
    file = _open(path)
    try:
        if not until(lambda: _try_lock(file), within=_LOCK_SECONDS):
            raise Unavailable(
                f"another process has held {path} for {_LOCK_SECONDS} seconds"
            )
        yield file
    finally:
        os.close(file)


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except FileNotFoundError as error:
        raise Unavailable(f"{path.parent} has just been removed") from error


def _try_lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

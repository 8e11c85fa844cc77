"""Private servers: folder, user and locks, the start by the first run, the stop by the last.

The locks are on files, so the kernel releases them when a process ends.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from abc import ABC, abstractmethod
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from pytest_arena._process import until
from pytest_arena._product._server_search import Programs, Server, Unavailable

if sys.platform != "win32":  # which has no private servers
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_arena._values import Address


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
    """Return the user that runs a server: this process' user, for root the first of ``users``."""
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
        """Create the folders if they do not exist."""
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
    """Return whether a folder belongs to one of these users."""
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
    """Lock a file for this process alone. Yield the open file."""
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


_START_SECONDS = 60.0
_PROGRAM_SECONDS = 120
# Runs the server as a child of the system's first process, so that it outlives this process.
_IN_BACKGROUND = '"$0" "$@" &'


ProgramsT = TypeVar("ProgramsT", bound=Programs)


@dataclass(frozen=True)
class PrivateServer(Server):
    """A running private server. It runs at least until all processes have closed it."""

    folder: ServerFolder = field(kw_only=True)
    held: SharedLock = field(kw_only=True)
    servers: PrivateServers[Any] = field(kw_only=True, repr=False)

    def close(self) -> None:
        """End this process' use of the server. Stop the server if no other process uses it."""
        if not self.held.is_ours:
            return
        with suppress(Unavailable), exclusive(self.folder.beside("lock")):
            # A user may still look at a kept database.
            if self.held.close() and not self.folder.beside("kept").exists():
                self.servers.stop(self.folder)

    def stay(self) -> None:
        """Let the server run after this run, until the next run ends."""
        self.folder.beside("kept").touch()


class PrivateServers(ABC, Generic[ProgramsT]):
    """The private servers of a product: its programs and its settings."""

    shown: ClassVar[str]
    """The product, in a message."""
    label: ClassVar[str]
    """The product, in the name of a folder."""
    users: ClassVar[tuple[str, ...]]
    """Users of the system that run a server for root."""
    pid_file: ClassVar[str]
    """The file in the data with the server's process id. The server removes it when it stops."""
    stop_signal: ClassVar[int]

    @abstractmethod
    def address_of(self, folder: ServerFolder) -> Address:
        """Return the address of the server's maintenance database."""

    @abstractmethod
    def title(self, folder: ServerFolder) -> str:
        """Return the server's product and version."""

    @abstractmethod
    def answers(self, folder: ServerFolder) -> bool:
        """Return whether the server has started, also if it has no free connection."""

    @abstractmethod
    def make_data(self, folder: ServerFolder, programs: ProgramsT) -> None:
        """Fill the folder with the data of a new server."""

    @abstractmethod
    def command(self, folder: ServerFolder, programs: ProgramsT) -> list[str]:
        """Return the command that runs the server."""

    @abstractmethod
    def is_last_word(self, line: str) -> bool:
        """Return whether a line of the log says why the server ended."""

    def account(self) -> Account:
        """Return the user that runs the servers."""
        return account_for(self.users, self.shown)

    def folder(self, path: Path) -> ServerFolder:
        """Return the folder of a server at this path."""
        return ServerFolder(path, self.account())

    def parents(self, cache: Path) -> list[Path]:
        """Return the existing folders in which this user may have servers."""
        try:
            paths = parents(self.label, cache, self.account())
        except Unavailable:  # no account can run a server
            return []
        return [
            path
            for path in dict.fromkeys(paths)
            if path.is_dir() and is_own(path, {os.getuid()})
        ]

    def find(self, programs: ProgramsT, *, cache: Path) -> PrivateServer:
        """Return the running server of these programs. Start it if it does not run."""
        key = programs.key
        places = parents(self.label, cache, self.account())
        known = [place / key for place in places if (place / key).exists()]
        folder = self.folder((known or [places[0] / key])[0])
        folder.ensure()
        # Only one of several processes starts the server.
        with exclusive(folder.beside("lock")):
            folder.ensure()  # the previous owner of the lock may have removed the folder
            if not self.is_in_use(folder):
                folder.beside("kept").unlink(missing_ok=True)
            if not self._is_ready(folder):
                self._start(folder, programs)
            return PrivateServer(
                self.address_of(folder),
                f"{self.title(folder)}, a private server from {programs.shown}",
                is_private=True,
                folder=folder,
                held=SharedLock(folder.beside("used")),
                servers=self,
            )

    def is_running(self, folder: ServerFolder) -> bool:
        """Return whether the folder has a server, also a starting, stopping or busy one."""
        return is_held(folder.beside("running"))

    def is_in_use(self, folder: ServerFolder) -> bool:
        """Return whether a process uses the server."""
        return is_held(folder.beside("used"))

    def stop(self, folder: ServerFolder) -> None:
        """Stop the server, if it runs. It may end later."""
        with suppress(OSError, ValueError):
            pid = int((folder.data / self.pid_file).read_text("utf-8").split()[0])
            if self.is_running(folder):
                os.kill(pid, self.stop_signal)

    def remove(self, folder: ServerFolder) -> None:
        """Stop an unused server, and remove it with its data."""
        self.stop(folder)
        until(lambda: not self.is_running(folder), within=_START_SECONDS)
        shutil.rmtree(folder.path, ignore_errors=True)
        for ending in ("used", "log", "made", "kept"):
            folder.beside(ending).unlink(missing_ok=True)

    def _is_ready(self, folder: ServerFolder) -> bool:
        """Return whether the server answers. Wait for a server that starts or stops."""
        until(
            lambda: self.answers(folder) or not self.is_running(folder),
            within=_START_SECONDS,
        )
        return self.is_running(folder) and self.answers(folder)

    def _start(self, folder: ServerFolder, programs: ProgramsT) -> None:
        made = folder.beside("made")
        was_killed = (folder.data / self.pid_file).exists()
        # A killed server has not flushed its data. If it does not start with the data, replace
        # them: later runs build the templates again.
        if made.exists() and not was_killed:
            with suppress(Unavailable):
                self._run(folder, programs)
                return
        made.unlink(missing_ok=True)
        shutil.rmtree(folder.path, ignore_errors=True)
        folder.ensure()
        self.make_data(folder, programs)
        made.touch()
        self._run(folder, programs)

    def _run(self, folder: ServerFolder, programs: ProgramsT) -> None:
        log = folder.beside("log")
        with exclusive(folder.beside("running")) as file, log.open("wb") as output:
            subprocess.run(  # noqa: S603 - a program of the product
                ["/bin/sh", "-c", _IN_BACKGROUND, *self.command(folder, programs)],
                cwd=folder.path,
                env=environment(),
                check=True,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                pass_fds=[file],  # the server holds the lock until it ends
                **folder.account.as_arguments(),
            )
        if self._is_ready(folder):
            return
        if self.is_running(folder):
            raise Unavailable(
                f"{programs.shown} has not started in {_START_SECONDS:.0f} seconds"
            )
        text = log.read_text(encoding="utf-8", errors="replace")
        raise Unavailable(f"{programs.shown} did not start: {self.last_words(text)}")

    def last_words(self, text: str) -> str:
        """Return the line of a log that says why a program ended, else the last line."""
        lines = text.strip().splitlines()
        lines = [line for line in lines if self.is_last_word(line)] or lines
        return lines[-1] if lines else "it gave no reason"

    def run_installer(self, folder: ServerFolder, command: list[str]) -> None:
        """Run the product's program that creates data."""
        try:
            done = subprocess.run(  # noqa: S603 - a program of the product
                command,
                cwd=folder.path,
                env=environment(),
                check=False,
                timeout=_PROGRAM_SECONDS,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                **folder.account.as_arguments(),
            )
        except (OSError, subprocess.SubprocessError) as error:
            # The user that runs servers for root may not enter a folder of root's.
            raise Unavailable(f"{command[0]} does not run: {error}") from error
        if done.returncode:
            text = (done.stdout + done.stderr).decode(errors="replace")
            raise Unavailable(f"{command[0]} failed: {self.last_words(text)}")

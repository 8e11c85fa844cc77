"""A private cluster: one for a user and a PostgreSQL, shared by all processes and later runs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pytest_arena._postgresql.servers import Server, Unavailable, _keeper
from pytest_arena._postgresql.servers import _places as places
from pytest_arena._postgresql.servers._entrance import Answer, knock
from pytest_arena._postgresql.servers._keeper import attempt, is_held
from pytest_arena._postgresql.servers._programs import (
    Account,
    Programs,
    account,
    environment,
)
from pytest_arena._process import until
from pytest_arena._values import Address

# Asked by the keeper, too.
OTHER_CLIENTS = """
SELECT count(*) FROM pg_catalog.pg_stat_activity
WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
"""
# Counted up when what initdb is told below changes: then old clusters stay aside.
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


@dataclass(frozen=True)
class Cluster(Server):
    """A cluster that runs. While this is open, in any process, it goes on running."""

    folder: places.ClusterFolder = field(kw_only=True)
    held: places.SharedLock = field(kw_only=True)

    def close(self) -> None:
        """This process is done with it. It lives on until nobody has used it for a while."""
        self.held.close()


def find_cluster(programs: Programs, *, cache: Path) -> Cluster:
    """Find the cluster of these programs running, or start it.

    Raises:
        Unavailable: it cannot be started; the reason is the server's own.
    """
    folder = places.cluster_folder(programs.key(FORM), cache=cache, account=account())
    folder.ensure()
    # Whoever comes second, of several processes that start at once, finds what the first started.
    with places.exclusive(folder.beside("lock")):
        folder.ensure()  # whoever had the lock may have removed it
        used, keeper = folder.beside("used"), folder.beside("keeper")
        used.touch()
        _sweep(folder)
        # Without a keeper nothing would stop it: it is started anew as soon as nobody uses it.
        if not (is_held(keeper) or is_held(used)):
            stop(folder)
        if not _answers(folder):
            _start(folder, programs)
        shown = f"PostgreSQL {programs.version}, a private server from {programs.shown}"
        held = places.SharedLock(used)
        return Cluster(
            address_of(folder), shown, is_private=True, folder=folder, held=held
        )


def is_running(folder: places.ClusterFolder) -> bool:
    """Whether its server says anything, if only that it starts or ends."""
    return knock(address_of(folder), seconds=_KNOCK_SECONDS).answer is not Answer.SILENT


def stop(folder: places.ClusterFolder) -> bool:
    """Stop its server, whoever is connected. Returns whether it has ended, and its keeper.

    Raises:
        OSError: it is another server's.
    """
    if is_running(folder):
        os.kill(server_pid(folder), signal.SIGINT)
    keeper = folder.beside("keeper")
    return until(
        lambda: not (is_running(folder) or is_held(keeper)), within=_START_SECONDS
    )


def address_of(folder: places.ClusterFolder) -> Address:
    """Return its maintenance database, by its socket."""
    return Address("postgresql", str(folder.socket_folder), 5432, _USER, "postgres")


def _answers(folder: places.ClusterFolder) -> bool:
    # A server may be full and live; one that starts or ends says so with a code of its own.
    knocked = knock(address_of(folder), seconds=_KNOCK_SECONDS)
    return knocked.answer is Answer.OPEN or knocked.sqlstate == "53300"


def _start(folder: places.ClusterFolder, programs: Programs) -> None:
    programs = reachable(programs, folder)
    boot = folder.beside("boot")
    # Without fsync nobody knows what of data from before the machine's start has reached the disk.
    if (
        boot.exists()
        and boot.read_text(encoding="ascii") == _boot()
        and folder.data.exists()
    ):
        # What does not start is thrown away: whatever is in it can be made again.
        with suppress(Unavailable):
            return _run(folder, programs)
    make_data(folder, programs)
    boot.write_text(_boot(), encoding="ascii")
    return _run(folder, programs)


def _boot() -> str:
    """Return what names the machine's start."""
    with suppress(OSError):
        return (
            Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        )
    command = ["/usr/sbin/sysctl", "-n", "kern.boottime"]
    answer = subprocess.run(  # noqa: S603 - a program of macOS
        command, capture_output=True, text=True, check=False
    )
    return answer.stdout.strip()


def _run(folder: places.ClusterFolder, programs: Programs) -> None:
    """Start the server and wait until it answers."""
    folder.beside("log").unlink(missing_ok=True)
    keeper = folder.beside("keeper")
    # The keeper of a server that has died ends by itself, some moments later.
    with places.exclusive(keeper):
        pass
    done = subprocess.run(  # noqa: S603 - a file of ours, by the Python that runs us
        [sys.executable, "-I", "-S", _keeper.__file__],
        input=json.dumps(_task(folder, programs)),
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Unavailable(f"the process beside {programs.shown} did not start")
    if not until(
        lambda: _answers(folder) or not is_held(keeper), within=_START_SECONDS
    ):
        raise Unavailable(
            f"{programs.shown} has not started in {_START_SECONDS:.0f} seconds"
        )
    if not _answers(folder):
        raise Unavailable(
            f"{programs.shown} did not start: {_last_words(folder.beside('log'))}"
        )


def _task(folder: places.ClusterFolder, programs: Programs) -> dict[str, Any]:
    # In quotes: a comma in it would begin another folder.
    settings = {**_SETTINGS, "unix_socket_directories": f'"{folder.socket_folder}"'}
    arguments = [
        part for name, text in settings.items() for part in ("-c", f"{name}={text}")
    ]
    return {
        **{
            name: str(folder.beside(name)) for name in ("keeper", "lock", "used", "log")
        },
        "command": [
            str(programs.folder / "postgres"),
            "-D",
            str(folder.data),
            *arguments,
        ],
        "folder": str(folder.path),
        "environment": environment(),
        "account": folder.account.as_arguments(),
        "socket": str(folder.socket),
        "user": _USER,
        "question": OTHER_CLIENTS,
        "idle": float(os.environ.get(IDLE) or _IDLE_SECONDS),
    }


def server_pid(folder: places.ClusterFolder) -> int:
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


def make_data(folder: places.ClusterFolder, programs: Programs) -> None:
    """Fill the folder with the data of a fresh cluster.

    Raises:
        Unavailable: initdb failed; it says what it said.
    """
    # Bytes decide the order, and all of Unicode has its capitals; macOS may not know the name.
    locales = [["--locale=C.UTF-8"], ["--locale=C"]]
    if programs.major >= _BUILTIN_LOCALES:
        locales = [
            ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        ]
    # Whoever can enter the folder of the socket is the user itself: no password is needed. Small
    # segments of the log make an empty cluster 30 MB instead of 45.
    command = [
        *(
            str(programs.folder / "initdb"),
            "-D",
            str(folder.data),
            f"--username={_USER}",
        ),
        *("--auth=trust", "--encoding=UTF8", "--no-sync", "--wal-segsize=1"),
    ]
    failed = ""
    for locale in locales:
        shutil.rmtree(folder.data, ignore_errors=True)
        folder.data.mkdir(mode=0o700)
        os.chown(folder.data, folder.account.uid, folder.account.gid)
        try:
            return _run_as(folder.account, [*command, *locale], cwd=folder.data)
        except subprocess.CalledProcessError as error:
            lines = error.stderr.decode(errors="replace").strip().splitlines()
            failed = lines[-1] if lines else "it said nothing"
        except (OSError, subprocess.SubprocessError) as error:
            failed = str(error)
    raise Unavailable(f"initdb of {programs.shown} failed: {failed}")


def reachable(programs: Programs, folder: places.ClusterFolder) -> Programs:
    """Return the programs, or a copy of them that the server's user can run.

    Raises:
        Unavailable: it can run neither.
    """
    if not folder.account.is_other or _runs(programs, folder.account):
        return programs
    home = _home_of_programs(folder)
    copied = replace(programs, folder=_copied(programs.folder, home, folder.account))
    if _runs(copied, folder.account):
        return copied
    shutil.rmtree(home, ignore_errors=True)
    raise Unavailable(
        f"{programs.folder} is closed to the user that PostgreSQL runs as"
    )


def _home_of_programs(folder: places.ClusterFolder) -> Path:
    """Return where a copy is. Memory may be closed to programs: Docker mounts it so."""
    return Path("/var/tmp", *folder.path.parts[-2:], "programs")  # noqa: S108 - with a folder that nobody else enters


def _runs(programs: Programs, account: Account) -> bool:
    try:
        _run_as(
            account, [str(programs.folder / "postgres"), "--version"], cwd=Path("/")
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return True


def _run_as(account: Account, command: list[str], *, cwd: Path) -> None:
    subprocess.run(  # noqa: S603 - PostgreSQL's own programs
        command,
        cwd=cwd,
        env=environment(),
        check=True,
        timeout=_PROGRAM_SECONDS,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        **account.as_arguments(),
    )


def _copied(programs: Path, home: Path, account: Account) -> Path:
    """Copy a wheel's ``package/pginstall`` and the libraries beside it, ``package.libs``."""
    installed, package = programs.parent, programs.parent.parent
    target = home / package.name / installed.name
    libraries = package.with_name(f"{package.name}.libs")
    places.ClusterFolder(home.parent, account).ensure()
    shutil.copytree(installed, target, dirs_exist_ok=True, symlinks=True)
    if libraries.is_dir():
        shutil.copytree(libraries, home / libraries.name, dirs_exist_ok=True)
    for path in (home, *home.rglob("*")):
        os.chown(path, account.uid, account.gid, follow_symlinks=False)
    return target / programs.name


def _sweep(folder: places.ClusterFolder) -> None:
    """Remove the clusters that nobody has used for two weeks: those of older programs."""
    for used in folder.path.parent.glob("*.used"):
        if time.time() - used.stat().st_mtime < _OLD_SECONDS:
            continue
        other = places.ClusterFolder(used.with_suffix(""), folder.account)
        with attempt(other.beside("lock")) as is_ours:
            if is_ours and not (is_held(other.beside("keeper")) or is_running(other)):
                remove(other)


def remove(folder: places.ClusterFolder) -> None:
    """Remove a cluster that does not run, with all that is beside it but its lock.

    Somebody may wait for the lock: whoever comes later has to wait for the same file.
    """
    for path in dict.fromkeys(
        (folder.path, folder.socket_folder, _home_of_programs(folder))
    ):
        shutil.rmtree(path, ignore_errors=True)
    for ending in ("used", "keeper", "log", "boot"):
        folder.beside(ending).unlink(missing_ok=True)


def top_folders(folder: places.ClusterFolder) -> list[Path]:
    """Return the folders that are made for a cluster and stay without it."""
    home = _home_of_programs(folder).parent
    return [folder.socket_folder.parent, folder.path, home, home.parent]

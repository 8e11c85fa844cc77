"""A private cluster for each user and version of PostgreSQL."""

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

from pytest_arena._postgresql._control import TOO_MANY_CONNECTIONS
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

# The keeper asks it, too.
OTHER_CLIENTS = """
SELECT count(*) FROM pg_catalog.pg_stat_activity
WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
"""
# Increased when the arguments of initdb change: older clusters are not used then.
FORM = "1"
IDLE = "ARENA_CLUSTER_IDLE"  # after so many seconds without a user the cluster stops
_IDLE_SECONDS = 600.0
_START_SECONDS = 60.0
_KNOCK_SECONDS = 5.0
_PROGRAM_SECONDS = 120
_OLD_SECONDS = 14 * 24 * 3600
_BUILTIN_LOCALES = 17  # the first version with a builtin locale provider
_USER = "postgres"

# A cluster does not have to survive a crash of the machine.
_SETTINGS = {
    "listen_addresses": "",
    "port": "5432",
    "unix_socket_permissions": "0700",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    # The log is in memory, as the data.
    "max_wal_size": "128MB",
    "min_wal_size": "16MB",
    "max_connections": "200",
    # DROP DATABASE scans all shared buffers.
    "shared_buffers": "32MB",
    "max_locks_per_transaction": "128",
    # PREPARE TRANSACTION fails with 0, the default.
    "max_prepared_transactions": "16",
    # In the data folder: a killed server would leave it in /dev/shm, where containers have 64 MB.
    "dynamic_shared_memory_type": "mmap",
    "jit": "off",
    # Its workers connect to databases that are being copied, and take locks during tests.
    "autovacuum": "off",
    # The log has the server's own errors, not those of the app's statements.
    "log_min_messages": "fatal",
    "log_checkpoints": "off",
}


@dataclass(frozen=True)
class Cluster(Server):
    """A running cluster. It runs at least until every process has closed it."""

    folder: places.ClusterFolder = field(kw_only=True)
    held: places.SharedLock = field(kw_only=True)

    def close(self) -> None:
        """End this process' use of the cluster. The keeper stops an unused cluster later."""
        self.held.close()


def find_cluster(programs: Programs, *, cache: Path) -> Cluster:
    """Return the running cluster of these programs; start it if it does not run.

    Raises:
        Unavailable: the cluster does not start. The reason is the server's.
    """
    folder = places.cluster_folder(programs.key(FORM), cache=cache, account=account())
    folder.ensure()
    # Of several processes that start at once, the first starts the cluster.
    with places.exclusive(folder.beside("lock")):
        folder.ensure()  # the process that had the lock may have removed it
        used = folder.beside("used")
        used.touch()
        _sweep(folder)
        # No keeper would stop this server. It is restarted as soon as no process uses it.
        if not is_held(folder.beside("keeper")) and not is_held(used):
            stop(folder)
        if not _answers(folder):
            _start(folder, programs)
        return Cluster(
            address_of(folder),
            f"PostgreSQL {programs.version}, a private server from {programs.shown}",
            is_private=True,
            folder=folder,
            held=places.SharedLock(used),
        )


def is_running(folder: places.ClusterFolder) -> bool:
    """Whether the cluster's server answers, also if it is starting or stopping."""
    return knock(address_of(folder), seconds=_KNOCK_SECONDS).answer is not Answer.SILENT


def stop(folder: places.ClusterFolder) -> bool:
    """Stop the cluster's server and end its connections. Return whether it and its keeper ended.

    Raises:
        OSError: another server uses the folder.
    """
    if is_running(folder):
        os.kill(server_pid(folder), signal.SIGINT)
    keeper = folder.beside("keeper")
    return until(
        lambda: not is_running(folder) and not is_held(keeper), within=_START_SECONDS
    )


def address_of(folder: places.ClusterFolder) -> Address:
    """Return the address of the cluster's maintenance database."""
    return Address(
        "postgresql",
        str(folder.socket_folder),
        5432,
        _USER,
        "postgres",
        log=str(folder.beside("log")),
    )


def _answers(folder: places.ClusterFolder) -> bool:
    knocked = knock(address_of(folder), seconds=_KNOCK_SECONDS)
    # A server that starts or stops has other codes.
    return knocked.answer is Answer.OPEN or knocked.sqlstate == TOO_MANY_CONNECTIONS


def _start(folder: places.ClusterFolder, programs: Programs) -> None:
    programs = reachable(programs, folder)
    boot = folder.beside("boot")
    # Without fsync, data from before the machine's start may be incomplete.
    if folder.data.exists() and boot.exists() and boot.read_text("ascii") == _boot():
        # Data that does not start is replaced. All databases in it can be made again.
        with suppress(Unavailable):
            _run(folder, programs)
            return
    make_data(folder, programs)
    boot.write_text(_boot(), encoding="ascii")
    _run(folder, programs)


def _boot() -> str:
    """Return a name of the machine's last start."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    command = ["/usr/sbin/sysctl", "-n", "kern.boottime"]
    answer = subprocess.run(  # noqa: S603 - a program of macOS
        command, capture_output=True, text=True, check=False
    )
    return answer.stdout.strip()


def _run(folder: places.ClusterFolder, programs: Programs) -> None:
    """Start the server and wait until it answers."""
    folder.beside("log").unlink(missing_ok=True)
    keeper = folder.beside("keeper")
    # The keeper of a dead server ends by itself. Wait for that.
    with places.exclusive(keeper):
        pass
    started = subprocess.run(  # noqa: S603 - pytest-arena's file, by this Python
        [sys.executable, "-I", "-S", _keeper.__file__],
        input=json.dumps(_task(folder, programs)),
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
        check=False,
    )
    if started.returncode:
        raise Unavailable(f"the process beside {programs.shown} did not start")
    has_ended_or_answers = until(
        lambda: _answers(folder) or not is_held(keeper), within=_START_SECONDS
    )
    if not has_ended_or_answers:
        raise Unavailable(
            f"{programs.shown} has not started in {_START_SECONDS:.0f} seconds"
        )
    if not _answers(folder):
        raise Unavailable(
            f"{programs.shown} did not start: {_last_words(folder.beside('log'))}"
        )


def _task(folder: places.ClusterFolder, programs: Programs) -> dict[str, object]:
    command = [str(programs.folder / "postgres"), "-D", str(folder.data)]
    for name, text in _SETTINGS.items():
        command += ["-c", f"{name}={text}"]
    # In quotes: a comma in it would begin another folder.
    command += ["-c", f'unix_socket_directories="{folder.socket_folder}"']
    return {
        "keeper": str(folder.beside("keeper")),
        "lock": str(folder.beside("lock")),
        "used": str(folder.beside("used")),
        "log": str(folder.beside("log")),
        "command": command,
        "folder": str(folder.path),
        "environment": environment(),
        "account": folder.account.as_arguments(),
        "socket": str(folder.socket),
        "user": _USER,
        "question": OTHER_CLIENTS,
        "idle": float(os.environ.get(IDLE) or _IDLE_SECONDS),
    }


def server_pid(folder: places.ClusterFolder) -> int:
    """Return the server's process id, as its file has it.

    Raises:
        OSError: the file is another server's, or does not exist.
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
    lines = fatal or lines
    return lines[-1] if lines else "it said nothing"


def make_data(folder: places.ClusterFolder, programs: Programs) -> None:
    """Fill the folder with the data of a fresh cluster.

    Raises:
        Unavailable: initdb failed, with its message.
    """
    # Text is sorted by bytes, and upper() knows all of Unicode. macOS may not have C.UTF-8.
    locales = [["--locale=C.UTF-8"], ["--locale=C"]]
    if programs.major >= _BUILTIN_LOCALES:
        locales = [
            ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        ]
    command = [
        str(programs.folder / "initdb"),
        "-D",
        str(folder.data),
        f"--username={_USER}",
        "--auth=trust",  # only this user can enter the socket's folder
        "--encoding=UTF8",
        "--no-sync",
        "--wal-segsize=1",  # an empty cluster has 30 MB instead of 45
    ]
    reason = ""
    for locale in locales:
        shutil.rmtree(folder.data, ignore_errors=True)
        folder.data.mkdir(mode=0o700)
        os.chown(folder.data, folder.account.uid, folder.account.gid)
        try:
            _run_as(folder.account, [*command, *locale], cwd=folder.data)
        except subprocess.CalledProcessError as error:
            lines = error.stderr.decode(errors="replace").strip().splitlines()
            reason = lines[-1] if lines else "it said nothing"
        except (OSError, subprocess.SubprocessError) as error:
            reason = str(error)
        else:
            return
    raise Unavailable(f"initdb of {programs.shown} failed: {reason}")


def reachable(programs: Programs, folder: places.ClusterFolder) -> Programs:
    """Return the programs, or a copy of them that the server's user can run.

    Raises:
        Unavailable: the server's user can run neither.
    """
    if not folder.account.is_other or _runs(programs, folder.account):
        return programs
    home = _home_of_programs(folder)
    copied = replace(programs, folder=_copy(programs.folder, home, folder.account))
    if _runs(copied, folder.account):
        return copied
    shutil.rmtree(home, ignore_errors=True)
    raise Unavailable(
        f"{programs.folder} is closed to the user that PostgreSQL runs as"
    )


def _home_of_programs(folder: places.ClusterFolder) -> Path:
    """Return the folder of a copy. Docker mounts /dev/shm so that no program in it runs."""
    return Path("/var/tmp", *folder.path.parts[-2:], "programs")  # noqa: S108 - no other user enters the folder in it


def _runs(programs: Programs, account: Account) -> bool:
    command = [str(programs.folder / "postgres"), "--version"]
    try:
        _run_as(account, command, cwd=Path("/"))
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


def _copy(programs: Path, home: Path, account: Account) -> Path:
    """Copy a wheel's ``package/pginstall`` and ``package.libs``, the libraries beside it."""
    installed = programs.parent
    package = installed.parent
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
    """Remove the clusters that no process has used for two weeks."""
    for used in folder.path.parent.glob("*.used"):
        if time.time() - used.stat().st_mtime < _OLD_SECONDS:
            continue
        other = places.ClusterFolder(used.with_suffix(""), folder.account)
        with attempt(other.beside("lock")) as is_ours:
            if not is_ours or is_held(other.beside("keeper")) or is_running(other):
                continue
            remove(other)


def remove(folder: places.ClusterFolder) -> None:
    """Remove a stopped cluster and the files beside it, except its lock.

    Another process may wait for the lock, and a later process has to use the same file.
    """
    for path in (folder.path, folder.socket_folder, _home_of_programs(folder)):
        shutil.rmtree(path, ignore_errors=True)
    for ending in ("used", "keeper", "log", "boot"):
        folder.beside(ending).unlink(missing_ok=True)


def top_folders(folder: places.ClusterFolder) -> list[Path]:
    """Return the folders that are made for a cluster and stay when it is removed."""
    home = _home_of_programs(folder).parent
    return [folder.socket_folder.parent, folder.path, home, home.parent]

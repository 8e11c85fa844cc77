"""The private clusters of PostgreSQL."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_arena._postgresql._control import TOO_MANY_CONNECTIONS
from pytest_arena._postgresql.servers import _postgresql_wire as wire
from pytest_arena._postgresql.servers._entrance import Answer, knock
from pytest_arena._postgresql.servers._programs import PostgreSQLPrograms
from pytest_arena._product.servers import Unavailable
from pytest_arena._product.servers._private_servers import PrivateServers, run_as
from pytest_arena._values import Address

if TYPE_CHECKING:
    from pytest_arena._product.servers._places import ServerFolder
    from pytest_arena._product.servers._server_programs import Account

_KNOCK_SECONDS = 5.0
_BUILTIN_LOCALES = 17  # the first version with a builtin locale provider
_PORT = 5432

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
    # The log is in memory, like the data.
    "max_wal_size": "128MB",
    "min_wal_size": "16MB",
    "max_connections": "200",
    # DROP DATABASE scans all shared buffers.
    "shared_buffers": "32MB",
    "max_locks_per_transaction": "128",
    # PREPARE TRANSACTION fails with 0, the default.
    "max_prepared_transactions": "16",
    # This is in the data folder. In /dev/shm, where containers have 64 MB, a killed server would
    # leave it behind.
    "dynamic_shared_memory_type": "mmap",
    "jit": "off",
    # Autovacuum connects to databases that are being copied, and takes locks during tests.
    "autovacuum": "off",
    # The log has errors of the server, not errors of the app's statements.
    "log_min_messages": "fatal",
    "log_checkpoints": "off",
}


class Clusters(PrivateServers[PostgreSQLPrograms]):
    """A private cluster for each user and version of PostgreSQL."""

    shown = "PostgreSQL"
    label = "pg"
    socket_name = f".s.PGSQL.{_PORT}"
    users: tuple[str, ...] = ("postgres", "nobody")
    form = "1"
    protocol = Path(wire.__file__)
    signals: tuple[int, ...] = (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL)

    def address_of(self, folder: ServerFolder) -> Address:
        """Return the address of the cluster's maintenance database."""
        return Address(
            "postgresql",
            str(folder.socket_folder),
            _PORT,
            wire.USER,
            wire.DATABASE,
            log=str(folder.beside("log")),
        )

    def title(self, folder: ServerFolder) -> str:
        """Return the server's product and version."""
        version, _, _ = folder.path.name.partition("-")
        return f"PostgreSQL {version}"

    def answers(self, folder: ServerFolder) -> bool:
        """Return whether the server has started. It may have no free connection."""
        knocked = knock(self.address_of(folder), seconds=_KNOCK_SECONDS)
        # A server that starts or stops has other SQLSTATEs.
        is_full = knocked.sqlstate == TOO_MANY_CONNECTIONS
        return is_full or knocked.answer is Answer.OPEN

    def clients(self, folder: ServerFolder) -> int:
        """Return how many clients are connected."""
        return wire.clients(str(folder.socket))

    def server_pid(self, folder: ServerFolder) -> int:
        """Return the server's process id, by its file postmaster.pid."""
        lines = (folder.data / "postmaster.pid").read_text("utf-8").splitlines()
        if lines[1] != str(folder.data):
            raise OSError(f"{folder.data}/postmaster.pid is another server's")
        return int(lines[0])

    def command(self, folder: ServerFolder, programs: PostgreSQLPrograms) -> list[str]:
        """Return the command that runs the server."""
        command = [str(programs.server), "-D", str(folder.data)]
        for name, text in _SETTINGS.items():
            command += ["-c", f"{name}={text}"]
        # The folder is in quotes, because a comma would begin another folder.
        command += ["-c", f'unix_socket_directories="{folder.socket_folder}"']
        return command

    def is_last_word(self, line: str) -> bool:
        """Return whether a line of the log names the reason why the server ended."""
        return "FATAL" in line

    def make_data(self, folder: ServerFolder, programs: PostgreSQLPrograms) -> None:
        """Fill the folder with the data of a fresh cluster, by initdb."""
        # PostgreSQL sorts texts by bytes, and upper() works for all of Unicode. macOS may lack
        # C.UTF-8.
        locales = [["--locale=C.UTF-8"], ["--locale=C"]]
        if programs.major >= _BUILTIN_LOCALES:
            locales = [
                ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
            ]
        command = [
            str(programs.folder / "initdb"),
            "-D",
            str(folder.data),
            f"--username={wire.USER}",
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
                run_as(folder.account, [*command, *locale], cwd=folder.data)
            except subprocess.CalledProcessError as error:
                lines = error.stderr.decode(errors="replace").strip().splitlines()
                reason = lines[-1] if lines else "initdb gave no reason"
            except (OSError, subprocess.SubprocessError) as error:
                reason = str(error)
            else:
                return
        raise Unavailable(f"initdb of {programs.shown} failed: {reason}")

    def reachable(
        self, programs: PostgreSQLPrograms, folder: ServerFolder
    ) -> PostgreSQLPrograms:
        """Return the programs, or a copy of them that the server's user can run."""
        if not folder.account.is_other or self.runs(programs, folder.account):
            return programs
        home = home_of_programs(folder)
        copied = replace(programs, folder=_copy(programs.folder, home, folder.account))
        try:
            return super().reachable(copied, folder)
        except Unavailable as error:
            shutil.rmtree(home, ignore_errors=True)
            raise Unavailable(
                f"the user that runs private servers cannot enter {programs.folder}"
            ) from error

    def other_folders(self, folder: ServerFolder) -> tuple[Path, ...]:
        """Return the folder of a copy of the programs."""
        return (home_of_programs(folder),)


CLUSTERS = Clusters()


def home_of_programs(folder: ServerFolder) -> Path:
    """Return the folder for a copy of the programs. Docker allows no programs in /dev/shm."""
    return Path("/var/tmp", *folder.path.parts[-2:], "programs")  # noqa: S108 - no other user enters the folder in it


def _copy(programs: Path, home: Path, account: Account) -> Path:
    """Copy a wheel's ``package/pginstall``, and the libraries in ``package.libs``."""
    installed = programs.parent
    package = installed.parent
    target = home / package.name / installed.name
    libraries = package.with_name(f"{package.name}.libs")
    CLUSTERS.folder(home.parent).ensure()
    shutil.copytree(installed, target, dirs_exist_ok=True, symlinks=True)
    if libraries.is_dir():
        shutil.copytree(libraries, home / libraries.name, dirs_exist_ok=True)
    for path in (home, *home.rglob("*")):
        os.chown(path, account.uid, account.gid, follow_symlinks=False)
    return target / programs.name

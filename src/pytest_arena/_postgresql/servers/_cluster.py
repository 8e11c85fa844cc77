"""The private clusters of PostgreSQL."""

from __future__ import annotations

import shutil
import signal
from typing import TYPE_CHECKING, ClassVar

from pytest_arena._postgresql._control import ControlFailure, open_control
from pytest_arena._postgresql.servers._programs import PostgreSQLPrograms
from pytest_arena._product.servers import Unavailable
from pytest_arena._product.servers._private_servers import PrivateServers
from pytest_arena._values import Address

if TYPE_CHECKING:
    from pytest_arena._product.servers._server_folder import ServerFolder

_BUILTIN_LOCALES = 17  # the first version with a builtin locale provider
_PORT = 5432
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
    users: ClassVar[tuple[str, ...]] = ("postgres", "nobody")
    form = "1"
    pid_file = "postmaster.pid"
    stop_signal: ClassVar[int] = signal.SIGINT  # without waiting for clients

    def address_of(self, folder: ServerFolder) -> Address:
        """Return the address of the cluster's maintenance database."""
        log = str(folder.beside("log"))
        return Address(
            "postgresql", str(folder.path), _PORT, _USER, "postgres", log=log
        )

    def title(self, folder: ServerFolder) -> str:
        """Return the server's product and version."""
        version, _, _ = folder.path.name.partition("-")
        return f"PostgreSQL {version}"

    def answers(self, folder: ServerFolder) -> bool:
        """Return whether the server has started. It may have no free connection."""
        try:
            open_control(self.address_of(folder)).close()
        except ControlFailure as error:
            return error.is_crowded
        return True

    def command(self, folder: ServerFolder, programs: PostgreSQLPrograms) -> list[str]:
        """Return the command that runs the server."""
        command = [str(programs.server), "-D", str(folder.data)]
        for name, text in _SETTINGS.items():
            command += ["-c", f"{name}={text}"]
        # The folder is in quotes, because a comma would begin another folder.
        command += ["-c", f'unix_socket_directories="{folder.path}"']
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
            f"--username={_USER}",
            "--auth=trust",  # only this user can enter the socket's folder
            "--encoding=UTF8",
            "--no-sync",
            "--wal-segsize=1",  # an empty cluster has 30 MB instead of 45
        ]
        *others, last = locales
        for locale in others:
            try:
                return self.run_installer(folder, [*command, *locale])
            except Unavailable:
                shutil.rmtree(folder.data, ignore_errors=True)
        return self.run_installer(folder, [*command, *last])


CLUSTERS = Clusters()

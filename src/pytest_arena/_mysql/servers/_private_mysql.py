"""The private servers of MySQL and MariaDB."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pytest_arena._mysql._control import MySQLFailure, open_control
from pytest_arena._mysql.servers._mysql_programs import MySQLPrograms
from pytest_arena._product.servers import Unavailable
from pytest_arena._product.servers._private_servers import PrivateServers
from pytest_arena._values import Address

if TYPE_CHECKING:
    from pytest_arena._product.servers._server_folder import ServerFolder

# Ubuntu's package allows its server only one folder for data.
_APPARMOR = Path("/etc/apparmor.d/usr.sbin.mysqld")

# Words of errors that follow the error with the reason.
_ENDINGS = ("Aborting", "is unusable")

# A server does not have to survive a crash of the machine.
_SETTINGS = (
    "--no-defaults",  # must be the first option
    "--character-set-server=utf8mb4",
    "--skip-networking",
    "--skip-name-resolve",
    "--skip-log-bin",
    "--innodb-flush-method=nosync",
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-doublewrite=OFF",
    "--innodb-stats-persistent=OFF",  # each ALTER TABLE would write the statistics
    "--innodb-buffer-pool-size=64M",
    "--innodb-buffer-pool-dump-at-shutdown=OFF",
    "--innodb-buffer-pool-load-at-startup=OFF",
    "--key-buffer-size=1M",
    "--max-connections=200",
    "--performance-schema=OFF",  # 200 MB of memory in MySQL
    # An event would change databases of tests at any time.
    "--event-scheduler=OFF",
)
# A server ignores an option that begins with "loose" if its version does not know it.
_OF_PRODUCT = {
    "MariaDB": ("--innodb-log-file-size=16M", "--aria-pagecache-buffer-size=8M"),
    "MySQL": (
        "--mysqlx=OFF",
        "--auto-generate-certs=OFF",  # no connection is encrypted
        "--loose-innodb-redo-log-capacity=64M",
        "--loose-innodb-log-writer-threads=OFF",
    ),
}


class PrivateMySQLServers(PrivateServers[MySQLPrograms]):
    """A private server for each user and version of MySQL or MariaDB."""

    shown = "MySQL and MariaDB"
    label = "mysql"
    users: ClassVar[tuple[str, ...]] = ("mysql", "nobody")
    form = "1"
    pid_file = "server.pid"
    stop_signal: ClassVar[int] = signal.SIGTERM

    def address_of(self, folder: ServerFolder) -> Address:
        """Return the address of the server, without a database."""
        socket = str(folder.path / "mysql.sock")
        return Address("mysql", socket, 3306, "root", "", log=str(folder.beside("log")))

    def title(self, folder: ServerFolder) -> str:
        """Return the server's product and version."""
        product, _, version = folder.path.name.partition("-")
        return f"{product} {version.partition('-')[0]}"

    def answers(self, folder: ServerFolder) -> bool:
        """Return whether the server has started. It may have no free connection."""
        try:
            open_control(self.address_of(folder)).close()
        except MySQLFailure as error:
            return error.is_crowded
        return True

    def command(self, folder: ServerFolder, programs: MySQLPrograms) -> list[str]:
        """Return the command that runs the server."""
        return [
            str(programs.server),
            *_settings(folder, programs),
            f"--socket={self.address_of(folder).host}",
            f"--pid-file={folder.data / self.pid_file}",
        ]

    def is_last_word(self, line: str) -> bool:
        """Return whether a line of the log names the reason why the server ended."""
        return "[ERROR]" in line and not any(words in line for words in _ENDINGS)

    def make_data(self, folder: ServerFolder, programs: MySQLPrograms) -> None:
        """Fill the folder with the data of a fresh server, whose user has no password."""
        _temporary(folder).mkdir(mode=0o700, exist_ok=True)
        os.chown(_temporary(folder), folder.account.uid, folder.account.gid)
        program = programs.server
        options = ["--initialize-insecure"]
        if programs.product == "MariaDB":
            program = programs.installer
            options = ["--auth-root-authentication-method=normal", "--skip-test-db"]
        command = [str(program), *_settings(folder, programs), *options]
        try:
            self.run_installer(folder, command)
        except Unavailable as reason:
            if programs.product == "MySQL" and _APPARMOR.exists():
                raise Unavailable(
                    f"{reason} ({_APPARMOR} may forbid other folders than /var/lib/mysql)"
                ) from reason
            raise


PRIVATE_SERVERS = PrivateMySQLServers()


def _settings(folder: ServerFolder, programs: MySQLPrograms) -> list[str]:
    arguments = [
        *_SETTINGS,
        *_OF_PRODUCT[programs.product],
        f"--basedir={programs.folder.parent}",
        f"--datadir={folder.data}",
        # At its start a server deletes temporary tables in the folder, also of other servers, which
        # then crash.
        f"--tmpdir={_temporary(folder)}",
    ]
    if programs.product == "MySQL":
        # A package may have a default that does not exist.
        arguments.append(f"--secure-file-priv={_temporary(folder)}")
    return arguments


def _temporary(folder: ServerFolder) -> Path:
    return folder.path / "temporary"

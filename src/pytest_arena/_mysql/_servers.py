"""Where MySQL and MariaDB are found: a running server, or a private one."""

from __future__ import annotations

import os
import re
import signal
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pytest_arena._mysql._arguments import PORT
from pytest_arena._mysql._control import MySQLFailure, open_control
from pytest_arena._mysql._server_registry import GRANT
from pytest_arena._product._private_servers import PrivateServers
from pytest_arena._product._server_search import (
    CreatesNone,
    Programs,
    Server,
    ServerSearch,
    Unavailable,
    parse_url,
    port_of,
    usual_users,
    version_text,
)
from pytest_arena._product._server_targets import is_here, os_user
from pytest_arena._values import TURN_SECONDS, Address
from pytest_arena.errors import redact

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_arena._config._read import Config
    from pytest_arena._mysql._control import MySQLControl
    from pytest_arena._product._private_servers import ServerFolder


OLDEST = {"MariaDB": (10, 6), "MySQL": (8, 0)}
_SERVERS = ("mariadbd", "mysqld")
_INSTALLER = "mariadb-install-db"
# Folders of packages of operating systems. PATH often has no sbin.
_USUAL = (
    "/usr/sbin",
    "/usr/libexec",
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/local/mysql/bin",
    "/opt/homebrew/opt/m*/bin",
    "/usr/local/opt/m*/bin",
)


@dataclass(frozen=True, slots=True)
class MySQLPrograms(Programs):
    """A server's program, and for MariaDB the program that creates its data."""

    product: str  # MySQL or MariaDB
    name: str  # the name of the server's file

    @property
    def server(self) -> Path:
        """The server's program."""
        return self.folder / self.name

    @property
    def installer(self) -> Path:
        """The program that creates MariaDB's data.

        Raises:
            Unavailable: the program is not installed.
        """
        for folder in (self.folder, self.folder.parent / "bin"):
            if os.access(folder / _INSTALLER, os.X_OK):
                return folder / _INSTALLER
        raise Unavailable(f"{self.server} has no {_INSTALLER} beside it")


def installed() -> list[Path]:
    """Return the servers' programs on this machine. Programs on PATH are first."""
    programs: dict[Path, None] = {}
    for folder in _folders():
        for name in _SERVERS:
            if os.access(folder / name, os.X_OK):
                programs[(folder / name).resolve()] = None
    return list(programs)


def _folders() -> Iterator[Path]:
    yield from map(Path, os.get_exec_path())
    for pattern in _USUAL:
        yield from sorted(Path("/").glob(pattern[1:]))


def read_programs(server: Path) -> MySQLPrograms:
    """Read the product and the version of a server's program.

    Raises:
        Unavailable: the program does not run here, or is too old.
    """
    output = version_text(server, "--no-defaults")
    text = output.partition(" Ver ")[2].strip()
    product, version = read_version(text)
    check_version(product, version, str(server))
    shown = f"{product}-{version}"
    return MySQLPrograms(server.parent, shown, str(server), product, server.name)


def read_version(text: str) -> tuple[str, str]:
    """Return the product and the version in a server's text: ``10.11.19-MariaDB-0+deb12u1``."""
    product = "MariaDB" if "mariadb" in text.lower() else "MySQL"
    version = re.match(r"(?:5\.5\.5-)?(\d+\.\d+[.\d]*)", text)
    return product, version[1] if version else "0.0"


def check_version(product: str, version: str, where: str) -> None:
    """Check that pytest-arena can use a server.

    Raises:
        Unavailable: the server is too old.
    """
    major, minor, *_ = version.split(".")
    oldest = OLDEST[product]
    if (int(major), int(minor)) < oldest:
        wanted = ".".join(map(str, oldest))
        raise Unavailable(
            f"{where} is {product} {version}, and pytest-arena needs {wanted} or newer",
            fix="use a newer server, for example: docker run -p 3307:3306 -e "
            "MARIADB_ALLOW_EMPTY_ROOT_PASSWORD=1 mariadb:11",
        )


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


_SOCKETS = (
    "/run/mysqld/mysqld.sock",
    "/var/lib/mysql/mysql.sock",
    "/tmp/mysql.sock",  # noqa: S108 - the servers' default files
)
_MAY_CREATE = """
SELECT COUNT(*) FROM (
    SELECT grantee FROM information_schema.user_privileges WHERE privilege_type = 'CREATE'
    UNION ALL SELECT grantee FROM information_schema.schema_privileges
    WHERE privilege_type = 'CREATE' AND 'arena_live' LIKE table_schema) AS rights
"""


class MySQLSearch(ServerSearch):
    """The sources of MySQL's and MariaDB's servers."""

    shown = "MySQL or MariaDB"
    private = PRIVATE_SERVERS
    form = "ARENA_DATABASE=mysql://user@host:3306/ pytest …"
    fix = "apt install mariadb-server   # or mysql-server"
    host_variable = "MYSQL_HOST"

    def local_places(self) -> Iterator[tuple[str, int]]:
        """Yield the usual sockets and the loopback port."""
        port = port_of("MYSQL_TCP_PORT", PORT)
        if port == PORT:
            files = {Path(file).resolve(): file for file in reversed(_SOCKETS)}
            for path, file in reversed(files.items()):
                if path.exists():
                    yield file, port
        yield "127.0.0.1", port

    def users(self) -> Sequence[str]:
        """Return the user of the system, and ``root``."""
        return usual_users("root")

    def login(self, host: str, port: int, user: str) -> Address:
        """Return the address of a local server for a user."""
        password = os.environ.get("MYSQL_PWD", "")
        return Address("mysql", host, port, user, "", password, TURN_SECONDS)

    def read_url(self, text: str) -> Address:
        """Read a URL of one server."""
        url = parse_url(text, {"mysql", "mariadb"}, "MySQL's")
        socket = url.query.get("unix_socket", "")
        host = socket if isinstance(socket, str) and socket else url.host or "127.0.0.1"
        user = url.username or os_user()
        password = str(url.password or os.environ.get("MYSQL_PWD", ""))
        if any(name.startswith("ssl") for name in url.query):
            raise Unavailable(
                "the URL has options for TLS, and pytest-arena verifies no certificate",
                fix="remove them: a server that requires TLS or is elsewhere is encrypted",
            )
        return Address(
            "mysql", host, url.port or PORT, user, "", password, TURN_SECONDS
        )

    def enter(self, address: Address, where: str, *, seconds: int = 10) -> Server:
        """Log in and check the server, without changing it. ``where`` follows its version."""
        try:
            return _entered(address, where, seconds)
        except MySQLFailure as error:
            failure = error
        if failure.may_need_tls and not address.is_socket:
            with suppress(MySQLFailure):
                return _entered(replace(address, is_encrypted=True), where, seconds)
        raise Unavailable(_reason(address, failure)) from failure

    def installed(self, config: Config) -> list[Path]:
        """Return the servers' programs, those that ``arena_database`` names first."""
        wanted = {"mariadb": "mariadbd", "mysql": "mysqld"}.get(config.database)
        return sorted(installed(), key=lambda file: file.name != wanted)

    def programs_at(self, place: Path) -> MySQLPrograms:
        """Read the version of installed programs."""
        return read_programs(place)


SEARCH = MySQLSearch()


def _entered(address: Address, where: str, seconds: int) -> Server:
    control = open_control(address, timeout=seconds, patience=address.patience)
    with closing(control):
        shown = f"{_checked(control, address)}{where}"
        if control.offers_tls and not is_here(address.host):
            address = replace(
                address, is_encrypted=True
            )  # the drivers of the app encrypt, too
        server = Server(address, shown)
        if control.rows(_MAY_CREATE) == [(0,)]:
            raise CreatesNone(server, fix=GRANT.format(user=address.user))
        return server


def _checked(control: MySQLControl, address: Address) -> str:
    """Return the server's product and version."""
    [(text,)] = control.rows("SELECT VERSION()")
    product, version = read_version(text)
    check_version(product, version, f"the server on {address.server}")
    return f"{product} {version}"


def _reason(address: Address, error: MySQLFailure) -> str:
    text = redact(str(error).splitlines()[0])
    if error.is_lost:
        return f"nothing answers on {address.server} ({text})"
    if error.is_crowded:
        return f"the server on {address.server} has no free connection: {text}"
    return f"{address.server} refuses {address.user}: {text}"

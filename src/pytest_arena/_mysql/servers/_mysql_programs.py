"""Finds the programs of MySQL and MariaDB."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pytest_arena._product.servers import Programs, Unavailable, version_text

OLDEST = {"MariaDB": (10, 6), "MySQL": (8, 0)}
_SERVERS = ("mariadbd", "mysqld")
_INSTALLERS = ("mariadb-install-db", "mysql_install_db")
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
        for name in _INSTALLERS:
            for folder in (self.folder, self.folder.parent / "bin"):
                if os.access(folder / name, os.X_OK):
                    return folder / name
        raise Unavailable(f"{self.server} has no {_INSTALLERS[0]} beside it")

    def key(self, form: str) -> str:
        """Return the name of these programs' server, which begins with the product."""
        return f"{self.product}-{Programs.key(self, form)}"


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
    return MySQLPrograms(server.parent, version, str(server), product, server.name)


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

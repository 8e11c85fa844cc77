"""A database on a server of PostgreSQL's, as the arguments of a connect call name it."""

from __future__ import annotations

import configparser
import getpass
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_arena._values import Address

__all__ = ["DEFAULT_PORT", "Led", "Target", "is_here", "os_user", "service_settings"]

DEFAULT_PORT = "5432"


@dataclass(frozen=True, slots=True)
class Target:
    """The servers that are tried in turn, and the name of the database on them."""

    hosts: tuple[tuple[str, str], ...]  # name, number or folder of the socket; port
    database: str

    @property
    def names(self) -> tuple[str, ...]:
        """One name for each server, as ``arena_allow`` has them."""
        return tuple(f"postgresql://{host}:{port}/{self.database}" for host, port in self.hosts)

    @property
    def name(self) -> str:
        """All servers in one name, for a message."""
        servers = ",".join(f"{host}:{port}" for host, port in self.hosts)
        return f"postgresql://{servers}/{self.database}"


class Led(str):
    """The host in arguments that were led to the arena: whoever sees them again can tell.

    Drivers take it for the text that it is.
    """

    __slots__ = ("address",)
    address: Address

    @classmethod
    def to(cls, address: Address) -> Led:
        """The host of an address."""
        led = cls(address.host)
        led.address = address
        return led

    @property
    def target(self) -> Target:
        """What the arguments mean, as long as nobody changed them."""
        address = self.address
        return Target(((address.host, str(address.port)),), address.database)


def is_here(address: Address) -> bool:
    """Whether the server is on this machine: encrypting the way there would only cost time."""
    return address.is_socket or address.host in {"localhost", "::1"} or _is_loopback(address.host)


def _is_loopback(host: str) -> bool:
    return host.startswith("127.") and host.replace(".", "").isdigit()


def os_user() -> str:
    """Who runs this process: a database without a name has this one."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without an entry
        return ""


def service_settings(given: Mapping[str, Any]) -> dict[str, str]:
    """What a connection service file says of the service that is asked for.

    https://www.postgresql.org/docs/current/libpq-pgservice.html
    """
    service = given.get("service") or os.environ.get("PGSERVICE", "")
    named = given.get("servicefile") or os.environ.get("PGSERVICEFILE")
    files = [Path(named) if named else Path("~/.pg_service.conf").expanduser()]
    if system := os.environ.get("PGSYSCONFDIR"):
        files.append(Path(system) / "pg_service.conf")
    return next((found for file in files if (found := _section(file, service))), {})


def _section(file: Path, service: str) -> dict[str, str]:
    # libpq's files have no escapes, no values over several lines and no defaults.
    parser = configparser.RawConfigParser(
        delimiters=("=",), comment_prefixes=("#",), default_section="", strict=False
    )
    try:
        parser.read(file)
    except (configparser.Error, UnicodeDecodeError, OSError):
        return {}  # the driver will say what is wrong with it
    return dict(parser[service]) if service in parser else {}

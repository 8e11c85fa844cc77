"""The server and the database in a driver's arguments, and their replacement."""

from __future__ import annotations

import getpass
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from pytest_arena._product import RequestedDatabase

if TYPE_CHECKING:
    from sqlalchemy.engine import Dialect

    from pytest_arena._product import ConnectTarget
    from pytest_arena._values import Address, ServerLogin


@dataclass(frozen=True, slots=True)
class ServerTarget:
    """A server, and the name of a database on it."""

    product: str
    server: str  # host name, IP address or socket, and port. Or several that a driver tries in turn
    database: str
    login: ServerLogin | None = field(default=None, compare=False)

    @property
    def name(self) -> str:
        """The server and the database, in the form of ``arena_allow``."""
        return f"{self.product}://{self.server}/{self.database}"

    def requested(self, dialect: Dialect) -> RequestedDatabase:
        """Return the requested database for the core."""
        return RequestedDatabase(
            dialect,
            self.product,
            self.name,
            database=self.database,
            login=self.login,
        )


class RedirectedHost(str):
    """The host in redirected arguments. It marks the arguments as redirected.

    A driver uses it as a plain ``str``.
    """

    __slots__ = ("address",)
    address: Address

    @classmethod
    def to(cls, address: Address, shown: str) -> RedirectedHost:
        """Return the host of an address in the driver's form ``shown``."""
        host = cls(shown)
        host.address = address
        return host


def is_here(host: str) -> bool:
    """Return whether the server is on this machine, so that a connection needs no encryption."""
    is_loopback = host.startswith("127.") and host.replace(".", "").isdigit()
    return host.startswith("/") or host in {"localhost", "::1"} or is_loopback


def os_user() -> str:
    """Return the user of this process, which is the default login."""
    with suppress(KeyError, OSError):  # a container's user may have no name
        return getpass.getuser()
    return ""


def address_for(target: ConnectTarget, login: ServerLogin | None) -> Address:
    """Return the address of a target with the user that replaces a login of the app."""
    address = cast("Address", target.address)
    if target.database is None:
        return address
    product: Any = target.database.product  # a `ServerProduct`
    user: ServerLogin | None = product.users.login_of(target.database, login, address)
    return address.as_(user) if user is not None else address

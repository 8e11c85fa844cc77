"""The server's users for the app's connections, and their grants."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from pytest_arena._mysql._control import MySQLControlLine
    from pytest_arena._values import Address, ServerLogin

ACCOUNT_PREFIX = (
    "arena_user_"  # the names of users that pytest-arena creates begin with this
)


class AccountRegistry(Protocol):
    """The methods of a server's registry for users."""

    control: MySQLControlLine

    def address_of(self, name: str = "") -> Address:
        """Return the address of a database."""

    def reporting(self, what: str) -> AbstractContextManager[None]:
        """Turn a refusal of the server into an ``ArenaError`` that begins with ``what``."""

    def create_account(self) -> tuple[ServerLogin, str]:
        """Create a user without rights. Return its login and its account."""

    def drop(self, *names: str) -> None:
        """Drop databases and users."""

    def grants_of(self, name: str) -> dict[str, list[str]]:
        """Return the grants of the schema of a database, by users."""

    def hosts_of(self, user: str) -> list[str]:
        """Return the hosts of the accounts that have a user's name."""

    def client_host(self) -> str:
        """Return this machine's name for the server."""

"""The socket by which all connections of the tests reach the shared transaction."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from pytest_arena._mysql.rollback._served_client import MySQLClient
from pytest_arena._mysql.rollback._shared_mysql import SharedMySQL
from pytest_arena._product.sharing._sockets import ProxySocket

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_arena._values import Address


class MySQLProxy(SharedMySQL):
    """A proxy between the app and one database.

    Raises:
        MySQLFailure: the server does not answer, or refuses the login.
    """

    def __init__(
        self,
        address: Address,
        names_that_write: Callable[[], tuple[str, ...]],
        *,
        note: Callable[[str], None],
        lock_timeout: float = 0.0,
    ) -> None:
        super().__init__(
            address, names_that_write, note=note, lock_timeout=lock_timeout
        )
        self._entrance = ProxySocket(
            "mysqld.sock",
            partial(MySQLClient, self),
        )
        self.address = replace(
            address, host=str(self._entrance.path), password="", patience=0.0
        )
        self._entrance.start()

    def close(self) -> None:
        """End all connections. The server rolls back."""
        super().close()
        self._entrance.close()

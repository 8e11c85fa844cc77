"""The socket by which all connections of the tests reach the shared transaction."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from pytest_arena._postgresql.drivers._interrupts import cancelling, interrupts
from pytest_arena._postgresql.rollback._client_protocol import Client
from pytest_arena._postgresql.rollback._shared_transaction import SharedTransaction
from pytest_arena._postgresql.rollback._sockets import ProxySocket

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_arena._values import Address

_PORT = 5432  # only a part of the socket's file name


@cache
def _cancel_without_a_connection() -> None:
    """Make psycopg's ``cancel`` call the proxy directly."""
    from psycopg._connection_base import BaseConnection  # noqa: PLC0415 - an extra

    connection_class: Any = BaseConnection
    connection_class.cancel = cancelling(BaseConnection.cancel)


class Proxy(SharedTransaction):
    """A proxy between the app and one database.

    Example::

        proxy = Proxy(address, note=print)
        psycopg.connect(host=proxy.address.host, port=proxy.address.port, user="postgres")
        proxy.enter()
        ...  # apps write and commit
        proxy.leave()
        proxy.close()

    Raises:
        ControlFailure: the server does not answer, or refuses the login.
    """

    def __init__(
        self,
        address: Address,
        *,
        note: Callable[[str], None],
        lock_timeout: float = 0.0,
    ) -> None:
        super().__init__(address, note=note, lock_timeout=lock_timeout)
        self._entrance = ProxySocket(
            f".s.PGSQL.{_PORT}",
            partial(Client, self),
        )
        folder = str(self._entrance.folder)
        self.address = replace(
            address, host=folder, port=_PORT, password="", patience=0.0
        )
        interrupts[folder] = self.interrupt
        _cancel_without_a_connection()
        self._entrance.start()

    def close(self) -> None:
        """End all connections. The server rolls back."""
        interrupts.pop(str(self._entrance.folder), None)
        super().close()
        self._entrance.close()

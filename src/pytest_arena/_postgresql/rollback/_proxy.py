"""The socket by which all connections of the tests reach the shared transaction."""

from __future__ import annotations

import socket
import tempfile
from contextlib import suppress
from dataclasses import replace
from functools import cache, wraps
from itertools import count
from pathlib import Path
from shutil import rmtree
from threading import Thread
from typing import TYPE_CHECKING, Any

from pytest_arena._postgresql.rollback._client_protocol import Client
from pytest_arena._postgresql.rollback._shared_transaction import SharedTransaction
from pytest_arena._values import PROXY_FOLDER

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_arena._values import Address

_PORT = 5432  # only the name of the socket's file has it
_SOCKET = f".s.PGSQL.{_PORT}"
_CONNECTIONS = 128  # that may wait at once


def _listen(folder: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(folder / "new"))
    listener.listen(_CONNECTIONS)
    # Another run removes a socket of this name on which no process listens.
    (folder / "new").rename(folder / _SOCKET)
    return listener


def _remove_folders_of_killed_runs() -> None:
    for place in Path(tempfile.gettempdir()).glob(f"{PROXY_FOLDER}*/{_SOCKET}"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            try:
                probe.connect(str(place))
            except ConnectionRefusedError:
                rmtree(place.parent, ignore_errors=True)
            except OSError:
                continue  # of another user


# The proxies of this process, by the folder of their sockets.
_proxies: dict[str, Proxy] = {}


@cache
def _cancel_without_a_connection() -> None:
    """Have psycopg's ``cancel`` call the proxy directly.

    psycopg's C code holds the GIL while it waits for the server, which is a thread here.
    """
    from psycopg._connection_base import BaseConnection  # noqa: PLC0415 - an extra

    cancel = BaseConnection.cancel

    @wraps(cancel)
    def asking(connection: Any) -> None:
        proxy = None
        if not connection.closed:
            proxy = _proxies.get(connection.info.host)
        if proxy is None:
            cancel(connection)
        else:
            proxy.interrupt(connection.info.backend_pid)

    connection_class: Any = BaseConnection
    connection_class.cancel = asking


class Proxy(SharedTransaction):
    """A proxy before one database.

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
        _remove_folders_of_killed_runs()
        self._folder = Path(tempfile.mkdtemp(prefix=PROXY_FOLDER))
        self._listener = _listen(self._folder)
        self.address = replace(
            address, host=str(self._folder), port=_PORT, password="", patience=0.0
        )
        _proxies[str(self._folder)] = self
        _cancel_without_a_connection()
        Thread(target=self._accept, name="pytest-arena-proxy", daemon=True).start()

    def _accept(self) -> None:
        for number in count(1):
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            Client(self, connection, number).start_thread()

    def close(self) -> None:
        """End all connections. The server rolls back."""
        _proxies.pop(str(self._folder), None)
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        super().close()
        rmtree(self._folder, ignore_errors=True)

"""The Unix socket of a proxy in this process, and the connections to it."""

import socket
import tempfile
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path
from shutil import rmtree
from threading import Thread

from pytest_arena._values import PROXY_FOLDER
from pytest_arena.errors import ConfigError

_CONNECTIONS = 128  # the most connections that wait to be accepted


class Disconnected(Exception):
    """The other side has closed the connection."""


def check_for_sockets(place: str) -> None:
    """Raise an error if the operating system lacks Unix sockets. ``place`` names the option."""
    if hasattr(socket, "AF_UNIX"):
        return
    raise ConfigError(
        "arena_isolation = rollback: this operating system has no Unix sockets",
        why="all connections to the database use such a socket",
        cause=place,
        fix="arena_isolation = auto",
    )


class ProxySocket:
    """A socket in a folder that only this user can enter.

    ``client`` returns the object that serves a connection, by its number.
    """

    def __init__(
        self, name: str, client: Callable[[socket.socket, int], "ServedConnection"]
    ) -> None:
        _remove_folders_of_killed_runs(name)
        self.folder = Path(tempfile.mkdtemp(prefix=PROXY_FOLDER))
        self.path = self.folder / name
        self._client = client
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(self.folder / "new"))
        self._listener.listen(_CONNECTIONS)
        # Rename it last: another run removes a socket of this name on which no process listens.
        (self.folder / "new").rename(self.path)

    def start(self) -> None:
        """Accept connections in a thread."""
        Thread(target=self._accept, name="pytest-arena-proxy", daemon=True).start()

    def _accept(self) -> None:
        for number in count(1):
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            try:
                self._client(connection, number).start_thread(number)
            except RuntimeError:
                # No thread can start now. The client gets an error, and later ones are served.
                traceback.print_exc()
                connection.close()

    def close(self) -> None:
        """Accept no more connections."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        rmtree(self.folder, ignore_errors=True)


def _remove_folders_of_killed_runs(name: str) -> None:
    for place in Path(tempfile.gettempdir()).glob(f"{PROXY_FOLDER}*/{name}"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            try:
                probe.connect(str(place))
            except ConnectionRefusedError:
                rmtree(place.parent, ignore_errors=True)
            except OSError:
                continue  # another user's socket


class ServedConnection(ABC):
    """A connection to the proxy. A separate thread serves it."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection

    def start_thread(self, number: int) -> None:
        """Start the thread that serves the connection."""
        name = f"pytest-arena-client-{number}"
        Thread(target=self._serve, name=name, daemon=True).start()

    def _serve(self) -> None:
        """Answer messages until the client or the server ends the connection."""
        try:
            if self._start():
                while self._answer_next():
                    pass
        except (Disconnected, OSError):
            pass
        finally:
            with suppress(Disconnected, OSError):
                self._forget()
            self._close_socket()

    def _close_socket(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    @abstractmethod
    def _start(self) -> bool:
        """Log in. Return whether messages follow."""

    @abstractmethod
    def _answer_next(self) -> bool:
        """Answer the next message. Return whether more messages follow."""

    @abstractmethod
    def _forget(self) -> None:
        """Roll back the client's open transaction."""

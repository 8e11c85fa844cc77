"""Servers that are none: one that claims an old version, and one of another protocol."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

_SSL, _GSS = 80877103, 80877104
_TEXT = 25


class StandIn:
    """Listens on a port, and does the same with each who comes."""

    def __init__(self, talk: Callable[[socket.socket], None]) -> None:
        self._talk = talk
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        # A close alone does not wake up who waits in accept.
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._socket.accept()
                with client, suppress(OSError, struct.error):
                    client.settimeout(10)
                    self._talk(client)


def greets(words: bytes) -> Callable[[socket.socket], None]:
    """A server that speaks first, in a protocol of its own."""

    def talk(client: socket.socket) -> None:
        client.sendall(words)
        client.recv(1024)

    return talk


def says(product: str, number: str, version: str) -> Callable[[socket.socket], None]:
    """A server of PostgreSQL's protocol that answers each question with its version."""
    row = (product, number, version, "t", "f")

    def talk(client: socket.socket) -> None:
        _let_in(client, version)
        while kind := client.recv(1):
            (length,) = struct.unpack("!i", _exactly(client, 4))
            _exactly(client, length - 4)
            if kind == b"Q":
                client.sendall(_described(row) + _filled(row) + _message(b"C", b"SELECT 1\0"))
                client.sendall(_message(b"Z", b"I"))

    return talk


def _let_in(client: socket.socket, version: str) -> None:
    while True:
        length, code = struct.unpack("!ii", _exactly(client, 8))
        _exactly(client, length - 8)
        if code not in {_SSL, _GSS}:
            break
        client.sendall(b"N")
    told = {"server_version": version, "client_encoding": "UTF8", "server_encoding": "UTF8"}
    client.sendall(_message(b"R", struct.pack("!i", 0)))
    for name, value in {**told, "standard_conforming_strings": "on"}.items():
        client.sendall(_message(b"S", f"{name}\0{value}\0".encode()))
    client.sendall(_message(b"K", struct.pack("!ii", 1, 1)) + _message(b"Z", b"I"))


def _described(row: tuple[str, ...]) -> bytes:
    columns = (b"c\0" + struct.pack("!ihihih", 0, 0, _type(value), -1, -1, 0) for value in row)
    return _message(b"T", struct.pack("!h", len(row)) + b"".join(columns))


def _type(value: str) -> int:
    return 16 if value in {"t", "f"} else _TEXT


def _filled(row: tuple[str, ...]) -> bytes:
    values = (struct.pack("!i", len(value)) + value.encode() for value in row)
    return _message(b"D", struct.pack("!h", len(row)) + b"".join(values))


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body


def _exactly(client: socket.socket, count: int) -> bytes:
    read = b""
    while len(read) < count:
        if not (part := client.recv(count - len(read))):
            raise ConnectionError
        read += part
    return read

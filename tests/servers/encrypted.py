"""A server that demands TLS: it stands in front of the suite's server."""

from __future__ import annotations

import itertools
import select
import shutil
import socket
import ssl
import struct
import subprocess
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["answering", "tls_in_front"]

_REQUEST = struct.pack("!i", 80877103)  # of a client that asks for TLS


@contextmanager
def answering(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """Listen on a port, and answer whoever connects, each in a thread."""
    threads: list[threading.Thread] = []

    def accept() -> None:
        with suppress(OSError):
            for _ in itertools.count():
                accepted, _ = listener.accept()
                thread = threading.Thread(target=answer, args=(accepted,))
                threads.append(thread)
                thread.start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
    for thread in threads:
        thread.join()


@contextmanager
def tls_in_front(folder: Path, port: int) -> Iterator[int]:
    """Demand TLS, with a new certificate, and pass everything on to the server at a port.

    Yields the port of the relay.
    """
    openssl = shutil.which("openssl") or pytest.skip("no openssl to make a certificate")
    command = "req -x509 -newkey rsa:2048 -nodes -subj /CN=localhost -keyout key.pem -out cert.pem"
    subprocess.run([openssl, *command.split()], cwd=folder, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")

    def answer(accepted: socket.socket) -> None:
        if accepted.recv(8)[4:] != _REQUEST:
            fields = b"SFATAL\0C28000\0Mno pg_hba.conf entry for this host, no encryption\0\0"
            with accepted:
                accepted.recv(65_536)
                accepted.sendall(b"E" + struct.pack("!i", len(fields) + 4) + fields)
            return
        accepted.sendall(b"S")
        with (
            suppress(OSError),
            context.wrap_socket(accepted, server_side=True) as client,
            socket.create_connection(("127.0.0.1", port)) as server,
        ):
            other: dict[socket.socket, socket.socket] = {client: server, server: client}
            while True:
                for one in select.select(list(other), [], [])[0]:
                    if not (data := one.recv(65_536)):
                        return
                    other[one].sendall(data)

    with answering(answer) as front:
        yield front

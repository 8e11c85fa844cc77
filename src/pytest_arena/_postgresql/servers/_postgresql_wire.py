"""The few messages of PostgreSQL's protocol that pytest-arena needs without a driver.

The keeper process of a private server loads this file, which needs only the standard library.
"""

import contextlib
import socket
import struct
from collections.abc import Iterator
from typing import Any

_PROTOCOL = 3 << 16
_SHORTEST = 4  # a message's length counts its own four bytes
_LONGEST = 30_000  # a longer first message is of another protocol
WELCOME = (b"R", b"\0\0\0\0")
_ANSWER_SECONDS = 5.0
USER = "postgres"
DATABASE = "postgres"
_OTHER_CLIENTS = """
SELECT count(*) FROM pg_catalog.pg_stat_activity
WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
"""

# The class at import, because a plugin may replace `socket.socket` by a class that refuses to
# connect.
_Socket = socket.socket


class NotPostgreSQL(Exception):
    """The received bytes are no message of PostgreSQL's protocol."""


class Wire:
    """A connection to a PostgreSQL server, without a driver."""

    def __init__(self, family: int, address: Any, *, seconds: float) -> None:
        self._is_inside = False
        self._socket = _Socket(family, socket.SOCK_STREAM)
        self._socket.settimeout(seconds)
        try:
            self._socket.connect(address)
        except BaseException:
            self._socket.close()
            raise

    def log_in(self, user: str, database: str) -> None:
        """Send the first message. ``receive`` then returns the server's answer."""
        text = f"user\0{user}\0database\0{database}\0application_name\0pytest-arena\0\0"
        body = text.encode()
        head = struct.pack("!ii", len(body) + 8, _PROTOCOL)
        self._socket.sendall(head + body)

    def receive(self) -> tuple[bytes, bytes]:
        """Return the kind (a letter) and the body of the next message.

        Raises:
            NotPostgreSQL: the bytes are no message of the protocol.
            OSError: no message arrived in time.
        """
        head = self._exactly(5)
        kind = head[:1]
        (length,) = struct.unpack("!i", head[1:])
        if not kind.isalpha() or not _SHORTEST <= length <= _LONGEST:
            raise NotPostgreSQL(head)
        body = self._exactly(length - _SHORTEST)
        self._is_inside = self._is_inside or (kind, body) == WELCOME
        return kind, body

    def first_value(self, question: str) -> str:
        """Return the first column of the last row of a statement, "" without a row."""
        body = question.encode() + b"\0"
        length = struct.pack("!i", len(body) + 4)
        self._socket.sendall(b"Q" + length + body)
        value = ""
        for kind, answer in self.until(b"Z"):
            if kind == b"D":
                (size,) = struct.unpack("!i", answer[2:6])
                value = answer[6 : 6 + size].decode()
        return value

    def until(self, last: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield all messages up to the first of this kind."""
        while True:
            kind, body = self.receive()
            yield kind, body
            if kind == last:
                return

    def close(self) -> None:
        """Disconnect properly, so that the server logs nothing."""
        if self._is_inside:
            with contextlib.suppress(OSError):
                self._socket.sendall(b"X\0\0\0\4")
        self._socket.close()

    def _exactly(self, count: int) -> bytes:
        read = b""
        while len(read) < count:
            part = self._socket.recv(count - len(read))
            if not part:
                raise NotPostgreSQL(read)
            read += part
        return read


def clients(path: str) -> int:
    """Return how many clients are connected to a private server, by the path of its socket.

    Return 1 if the server is full or too busy to answer.

    Raises:
        ConnectionError: the server does not run.
    """
    try:
        wire = Wire(socket.AF_UNIX, path, seconds=_ANSWER_SECONDS)
    except (FileNotFoundError, ConnectionError) as error:
        raise ConnectionError from error
    except OSError:
        return 1
    try:
        wire.log_in(USER, DATABASE)
        for kind, _ in wire.until(b"Z"):
            if kind == b"E":
                return 1
        return int(wire.first_value(_OTHER_CLIENTS))
    except (OSError, NotPostgreSQL, ValueError):
        return 1
    finally:
        wire.close()

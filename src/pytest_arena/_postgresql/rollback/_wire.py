"""Messages of PostgreSQL's wire protocol, version 3.

https://www.postgresql.org/docs/current/protocol-message-formats.html
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from pytest_arena._postgresql.rollback._sockets import Disconnected

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable, Mapping

SSL_REQUEST = 80877103
GSS_REQUEST = 80877104
CANCEL_REQUEST = 80877102
_HEADER = struct.Struct("!cI")
_LENGTH = struct.Struct("!I")
_KEY = struct.Struct("!II")
_CHUNK = 65536


class Message(NamedTuple):
    """A message: its type, and all its bytes."""

    kind: bytes
    data: bytes

    @property
    def body(self) -> bytes:
        """The bytes after the type and the length."""
        return self.data[_HEADER.size :]


def message(kind: bytes, body: bytes = b"") -> Message:
    """Return a message with this body."""
    return Message(kind, _HEADER.pack(kind, len(body) + 4) + body)


class Reader:
    """Reads messages from a socket.

    Raises:
        Disconnected: the other side has closed the connection.
    """

    def __init__(self, source: socket.socket) -> None:
        self._source = source
        self._buffer = bytearray()
        self._position = 0  # the start of the next message

    def message(self) -> Message:
        """Wait for the next message."""
        received = self.buffered_message()
        while received is None:
            self.feed()
            received = self.buffered_message()
        return received

    def buffered_message(self) -> Message | None:
        """Return the next message, None if it is incomplete."""
        start = self._position
        if len(self._buffer) < start + _HEADER.size:
            return None
        kind, length = _HEADER.unpack_from(self._buffer, start)
        end = start + length + 1  # the length does not count the kind
        if len(self._buffer) < end:
            return None
        self._position = end
        return Message(kind, bytes(self._buffer[start:end]))

    def startup(self) -> tuple[int, bytes]:
        """Wait for a startup packet. Return its code and the rest of its body."""
        self._wait_for(8)
        (length,) = _LENGTH.unpack_from(self._buffer)
        self._wait_for(length)
        (code,) = _LENGTH.unpack_from(self._buffer, 4)
        body = bytes(self._buffer[8:length])
        del self._buffer[:length]
        return code, body

    def _wait_for(self, size: int) -> None:
        while len(self._buffer) < size:
            self.feed()

    def feed(self) -> None:
        """Wait for bytes, and read them into the buffer."""
        try:
            chunk = self._source.recv(_CHUNK)
        except OSError as error:
            raise Disconnected from error
        if not chunk:
            raise Disconnected
        del self._buffer[: self._position]
        self._position = 0
        self._buffer += chunk


def data_of(messages: Iterable[Message]) -> bytes:
    """Return the bytes of messages."""
    return b"".join([message.data for message in messages])


def strings(body: bytes) -> list[str]:
    """Return the texts of a body that consists of texts, such as a startup packet's."""
    return [text.decode(errors="surrogateescape") for text in body.split(b"\0")]


def first_string(body: bytes, start: int = 0) -> tuple[str, int]:
    """Return the text at a position, and the position after it."""
    end = body.index(b"\0", start)
    return body[start:end].decode(errors="surrogateescape"), end + 1


def packed(text: str) -> bytes:
    """Encode a text for a message."""
    return text.encode(errors="surrogateescape") + b"\0"


# Messages of a client


def query(sql: str) -> Message:
    """Return a simple query."""
    return message(b"Q", packed(sql))


SYNC = message(b"S")


def close_statement(name: str) -> Message:
    """Return the message that closes a prepared statement. The server ignores unknown names."""
    return message(b"C", b"S" + packed(name))


def close_portal(name: str) -> Message:
    """Return the message that closes a portal or a cursor. The server ignores unknown names."""
    return message(b"C", b"P" + packed(name))


# Messages of a server

AUTHENTICATED = message(b"R", b"\0\0\0\0")
BOUND = message(b"2")
NO_ROWS = message(b"n")


def ready(state: str) -> Message:
    """Return ReadyForQuery. ``state`` is I, T or E."""
    return message(b"Z", state.encode())


def complete(tag: str) -> Message:
    """Return CommandComplete."""
    return message(b"C", packed(tag))


def backend_key(pid: int) -> Message:
    """Return BackendKeyData. The socket is private, so a client needs no secret."""
    return message(b"K", _KEY.pack(pid, 0))


def pid_of(body: bytes) -> int:
    """Return the pid of a CancelRequest."""
    pid, _ = _KEY.unpack_from(body)
    return int(pid)


def parameter_status(name: str, value: str) -> Message:
    """Return ParameterStatus."""
    return message(b"S", packed(name) + packed(value))


def error(
    sqlstate: str, text: str, *, severity: str = "ERROR", hint: str = ""
) -> Message:
    """Return ErrorResponse."""
    fields = {"S": severity, "V": severity, "C": sqlstate, "M": text, "H": hint}
    if not hint:
        del fields["H"]
    return message(b"E", pack_fields(fields))


def warning(sqlstate: str, text: str) -> Message:
    """Return NoticeResponse with a warning."""
    return message(b"N", error(sqlstate, text, severity="WARNING").body)


def pack_fields(fields: Mapping[str, str]) -> bytes:
    """Return the body of an ErrorResponse."""
    texts = (name.encode() + packed(text) for name, text in fields.items())
    return b"".join(texts) + b"\0"


def fields_of(body: bytes) -> dict[str, str]:
    """Return the fields of an ErrorResponse by their letters."""
    return {text[0]: text[1:] for text in strings(body) if text}


def row_of(body: bytes) -> list[str | None]:
    """Return the values of a DataRow in text format."""
    (number,) = struct.unpack_from("!H", body)
    position = 2
    values: list[str | None] = []
    for _ in range(number):
        (length,) = struct.unpack_from("!i", body, position)
        position += 4
        if length < 0:
            values.append(None)
            continue
        values.append(body[position : position + length].decode())
        position += length
    return values

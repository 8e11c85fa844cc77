"""Packets of the protocol of MySQL and MariaDB.

https://mariadb.com/kb/en/clientserver-protocol/
"""

import socket
import struct
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from pytest_arena._product.sharing._sockets import Disconnected

_LARGEST = 0xFFFFFF  # bytes in one part of a packet
_CHUNK = 65536
_ERROR = 0xFF
_END = 0xFE
_NULL = 0xFB

IN_TRANSACTION = 1
AUTOCOMMIT = 2
MORE_RESULTS = 8
_SETTINGS_CHANGED = 0x4000

QUIT = 1
INIT_DB = 2
QUERY = 3
PING = 14
RESET = 31

# Capabilities of a client or a server.
FOUND_ROWS = 1 << 1
WITH_DATABASE = 1 << 3
MULTI_STATEMENTS = 1 << 16
_LENGTH_ENCODED_PASSWORD = 1 << 21
SESSION_TRACK = 1 << 23
# Without TLS, compression, files of the client, and OK packets in place of EOF.
_OFFERED = 0x1FA20F | _LENGTH_ENCODED_PASSWORD
_LATIN1 = 8
_SCRAMBLE = b"pytest-arena--------"  # the proxy accepts each password


class PacketStream:
    """Reads and writes the packets of a socket.

    Raises:
        Disconnected: the other side has closed the connection.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._buffer = bytearray()
        self._last = 0  # the number of the last received part

    def read(self) -> bytes:
        """Wait for the next packet."""
        parts = []
        length = _LARGEST
        while length == _LARGEST:
            header = self._exactly(4)
            length = int.from_bytes(header[:3], "little")
            self._last = header[3]
            parts.append(self._exactly(length))
        return b"".join(parts)

    def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            try:
                chunk = self._socket.recv(max(_CHUNK, size - len(self._buffer)))
            except (
                OSError,
                ValueError,
            ) as error:  # another thread has closed the socket
                raise Disconnected from error
            if not chunk:
                raise Disconnected
            self._buffer += chunk
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    def command(self, kind: int, argument: bytes = b"") -> None:
        """Send a command."""
        self._write([bytes([kind]) + argument], 0)

    def answer(self, bodies: Iterable[bytes]) -> None:
        """Send packets that answer the last received packet."""
        self._write(bodies, self._last + 1)

    def greet(self, body: bytes) -> None:
        """Send the first packet."""
        self._write([body], 0)

    def _write(self, bodies: Iterable[bytes], number: int) -> None:
        parts = []
        for body in bodies:
            for start in range(0, len(body) + 1, _LARGEST):
                part = body[start : start + _LARGEST]
                parts.append(len(part).to_bytes(3, "little") + bytes([number % 256]))
                parts.append(part)
                number += 1
        try:
            self._socket.sendall(b"".join(parts))
        except (OSError, ValueError) as error:
            raise Disconnected from error

    def close(self) -> None:
        """End the connection. A thread that reads from it gets Disconnected."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)


@dataclass(frozen=True, slots=True)
class OkPacket:
    """The end of a statement without rows. ``settings`` are the settings that it has changed."""

    affected_rows: int = 0
    insert_id: int = 0
    status: int = 0
    warnings: int = 0
    info: bytes = b""
    settings: dict[str, str] = field(default_factory=dict)

    def data(self) -> bytes:
        """Return the packet for a client that does not track settings."""
        numbers = _length_encoded(self.affected_rows) + _length_encoded(self.insert_id)
        status = struct.pack("<HH", self.status & ~_SETTINGS_CHANGED, self.warnings)
        info = _length_encoded(len(self.info)) + self.info if self.info else b""
        return b"\0" + numbers + status + info


@dataclass(frozen=True, slots=True)
class EofPacket:
    """The end of columns or rows."""

    status: int
    warnings: int

    def data(self) -> bytes:
        """Return the packet."""
        return struct.pack(
            "<BHH", _END, self.warnings, self.status & ~_SETTINGS_CHANGED
        )


Packet: TypeAlias = bytes | OkPacket | EofPacket


@dataclass(frozen=True, slots=True)
class ServerAnswer:
    """The packets with which the server answers a statement."""

    packets: Sequence[Packet]

    @property
    def error(self) -> int:
        """The number of the error at the end, 0 without an error."""
        last = self.packets[-1]
        if not isinstance(last, bytes) or last[0] != _ERROR:
            return 0
        return int.from_bytes(last[1:3], "little")

    @property
    def error_text(self) -> str:
        """The text of the error."""
        last = self.packets[-1]
        if isinstance(last, bytes):
            return last[9:].decode(errors="replace")
        return ""

    @property
    def status(self) -> int:
        """The server's last status, 0 after an error."""
        last = self.packets[-1]
        return 0 if isinstance(last, bytes) else last.status

    @property
    def ends(self) -> list[OkPacket]:
        """The ends of statements without rows."""
        return [packet for packet in self.packets if isinstance(packet, OkPacket)]

    @property
    def affected_rows(self) -> int:
        """The number of changed rows that the server has reported."""
        return sum(end.affected_rows for end in self.ends)

    @property
    def settings(self) -> dict[str, str]:
        """The settings that were changed."""
        settings: dict[str, str] = {}
        for end in self.ends:
            settings |= end.settings
        return settings

    def data(self, status: int, *, is_last: bool) -> list[bytes]:
        """Return the packets for a client whose session has this status."""
        of_session = IN_TRANSACTION | AUTOCOMMIT
        packets: list[bytes] = []
        for number, packet in enumerate(self.packets, 1):
            if isinstance(packet, bytes):
                packets.append(packet)
                continue
            new = packet.status & ~of_session | status
            if number == len(self.packets) and not is_last:
                new |= MORE_RESULTS
            packets.append(replace(packet, status=new).data())
        return packets


def read_answer(stream: PacketStream) -> ServerAnswer:
    """Read the answer to a statement, with all its results."""
    packets: list[Packet] = []
    while True:
        first = stream.read()
        if first[0] == _ERROR:
            return ServerAnswer([*packets, first])
        if first[0] == 0:
            end = _read_ok(first)
            packets.append(end)
            if not end.status & MORE_RESULTS:
                return ServerAnswer(packets)
            continue
        packets.append(first)
        for _ in ("columns", "rows"):
            body = stream.read()
            while not _is_end(body):
                packets.append(body)
                body = stream.read()
            if body[0] == _ERROR:
                return ServerAnswer([*packets, body])
            warnings, status = struct.unpack_from("<HH", body, 1)
            packets.append(EofPacket(status, warnings))
        if not status & MORE_RESULTS:
            return ServerAnswer(packets)


def _is_end(body: bytes) -> bool:
    return body[:1] == bytes([_ERROR]) or (body[:1] == bytes([_END]) and len(body) < 9)  # noqa: PLR2004 - a longer one is a row


def _read_ok(body: bytes) -> OkPacket:
    affected_rows, position = _read_number(body, 1)
    insert_id, position = _read_number(body, position)
    status, warnings = struct.unpack_from("<HH", body, position)
    info = b""
    position += 4
    if position < len(body):
        info, position = _read_text(body, position)
    settings: dict[str, str] = {}
    if status & _SETTINGS_CHANGED:
        changes, _ = _read_text(body, position)
        settings = dict(_read_settings(changes))
    return OkPacket(affected_rows, insert_id, status, warnings, info, settings)


def _read_settings(changes: bytes) -> Iterable[tuple[str, str]]:
    position = 0
    while position < len(changes):
        kind = changes[position]
        change, position = _read_text(changes, position + 1)
        if kind != 0:
            continue  # another database, or the state of the transaction
        inside = 0
        while inside < len(change):
            name, inside = _read_text(change, inside)
            value, inside = _read_text(change, inside)
            yield name.decode(), value.decode(errors="surrogateescape")


def _read_number(data: bytes, position: int) -> tuple[int, int]:
    first = data[position]
    if first < _NULL:
        return first, position + 1
    size = {0xFC: 2, 0xFD: 3, 0xFE: 8}[first]
    end = position + 1 + size
    return int.from_bytes(data[position + 1 : end], "little"), end


def _read_text(data: bytes, position: int) -> tuple[bytes, int]:
    size, start = _read_number(data, position)
    return data[start : start + size], start + size


def _length_encoded(number: int) -> bytes:
    if number < _NULL:
        return bytes([number])
    if number < 1 << 16:
        return b"\xfc" + number.to_bytes(2, "little")
    if number < 1 << 24:
        return b"\xfd" + number.to_bytes(3, "little")
    return b"\xfe" + number.to_bytes(8, "little")


# Packets of a server


def error(number: int, sqlstate: str, text: str) -> bytes:
    """Return an error."""
    begin = struct.pack("<BH", _ERROR, number)
    return begin + f"#{sqlstate}{text}".encode(errors="surrogateescape")


def greeting(version: str, pid: int) -> bytes:
    """Return the server's first packet to a client."""
    low = _OFFERED & 0xFFFF
    high = _OFFERED >> 16
    return b"".join(
        [
            b"\x0a",
            version.encode("latin1") + b"\0",
            struct.pack("<I", pid),
            _SCRAMBLE[:8] + b"\0",
            struct.pack("<HBHHB", low, _LATIN1, AUTOCOMMIT, high, len(_SCRAMBLE) + 1),
            bytes(10),
            _SCRAMBLE[8:] + b"\0",
            b"mysql_native_password\0",
        ]
    )


@dataclass(frozen=True, slots=True)
class ClientLogin:
    """A client's packet for the login."""

    abilities: int
    collation: int
    database: str
    body: bytes

    @classmethod
    def read(cls, body: bytes) -> "ClientLogin":
        """Read the packet."""
        (abilities,) = struct.unpack_from("<I", body)
        position = body.index(b"\0", 32) + 1
        if abilities & _LENGTH_ENCODED_PASSWORD:
            _, position = _read_text(body, position)
        else:
            position += 1 + body[position]
        database = b""
        if abilities & WITH_DATABASE:
            database = body[position:].partition(b"\0")[0]
        return cls(abilities, body[8], database.decode(), body)

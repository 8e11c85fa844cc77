"""The few messages of MySQL's protocol that pytest-arena needs without a driver.

The keeper process of a private server loads this file, which needs only the standard library.
https://dev.mysql.com/doc/dev/mysql-server/latest/PAGE_PROTOCOL.html
"""

import contextlib
import socket
import struct

USER = "root"
_ANSWER_SECONDS = 5.0
# Capabilities: the 4.1 protocol, and a named method of authentication.
_ABILITIES = 0x200 | 0x8000 | 0x80000
_LONGEST = 1 << 24
_CHARACTER_SET = 45  # utf8mb4
_QUERY = b"\x03"
_QUIT = b"\x01"
_OK = 0x00
_SWITCH = 0xFE  # to another method of authentication
_ERROR = 0xFF
_TOO_MANY_CONNECTIONS = (1040).to_bytes(2, "little")
_CONNECTED = b"SHOW GLOBAL STATUS LIKE 'Threads_connected'"

# The class at import, because a plugin may replace `socket.socket` by a class that refuses to
# connect.
_Socket = socket.socket


class Crowded(Exception):
    """The server has started, and has no free connection."""


class NotMySQL(Exception):
    """The server refuses the login, or the bytes are no message of MySQL's protocol."""


class MySQLWire:
    """A connection to a private server, whose login has no password."""

    def __init__(self, path: str) -> None:
        self._socket = _Socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(_ANSWER_SECONDS)
        self._number = 0
        try:
            self._socket.connect(path)
        except BaseException:
            self._socket.close()
            raise

    def log_in(self) -> None:
        """Log in without a database.

        Raises:
            Crowded: the server has no free connection.
            NotMySQL: the server refuses the login.
            OSError: the server does not answer in time.
        """
        self._checked(self._receive())
        head = struct.pack("<IIB23x", _ABILITIES, _LONGEST, _CHARACTER_SET)
        no_password = b"\0"
        method = b"mysql_native_password\0"
        self._send(head + USER.encode() + b"\0" + no_password + method)
        answer = self._checked(self._receive())
        if answer[0] == _SWITCH:
            self._send(b"")
            answer = self._checked(self._receive())
        if answer[0] != _OK:
            raise NotMySQL(answer)

    def clients(self) -> int:
        """Return how many other clients are connected. Raises as ``log_in`` does."""
        self._number = 0
        self._send(_QUERY + _CONNECTED)
        self._checked(self._receive())  # the number of columns
        for _ in range(3):  # both columns, and the end of the columns
            self._receive()
        row = self._checked(self._receive())
        # Each value begins with its length.
        value = row[row[0] + 2 :]
        return int(value) - 1

    def close(self) -> None:
        """Disconnect properly, so that the server logs nothing."""
        self._number = 0
        with contextlib.suppress(OSError):
            self._send(_QUIT)
        self._socket.close()

    def _checked(self, answer: bytes) -> bytes:
        if answer[:1] == bytes([_ERROR]):
            if answer[1:3] == _TOO_MANY_CONNECTIONS:
                raise Crowded
            raise NotMySQL(answer)
        return answer

    def _send(self, body: bytes) -> None:
        head = len(body).to_bytes(3, "little") + bytes([self._number])
        self._socket.sendall(head + body)

    def _receive(self) -> bytes:
        head = self._exactly(4)
        self._number = head[3] + 1
        body = self._exactly(int.from_bytes(head[:3], "little"))
        if not body:
            raise NotMySQL(head)
        return body

    def _exactly(self, count: int) -> bytes:
        read = b""
        while len(read) < count:
            part = self._socket.recv(count - len(read))
            if not part:
                raise NotMySQL(read)
            read += part
        return read


def answers(path: str) -> bool:
    """Return whether a private server has started. It may have no free connection."""
    try:
        wire = MySQLWire(path)
    except OSError:
        return False
    try:
        wire.log_in()
    except Crowded:
        return True
    except (OSError, NotMySQL):
        return False
    finally:
        wire.close()
    return True


def clients(path: str) -> int:
    """Return how many clients are connected to a private server, by the path of its socket.

    Return 1 if the server is full or too busy to answer.

    Raises:
        ConnectionError: the server does not run.
    """
    try:
        wire = MySQLWire(path)
    except (FileNotFoundError, ConnectionError) as error:
        raise ConnectionError from error
    except OSError:
        return 1
    try:
        wire.log_in()
        return wire.clients()
    except (OSError, NotMySQL, Crowded, ValueError, IndexError):
        return 1
    finally:
        wire.close()

"""The process that starts and stops a private cluster.

It runs as a script and imports only Python's standard library, so that it starts in 20 ms and
stays small. Therefore this file has the few messages of PostgreSQL's protocol that it needs.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


_PROTOCOL = 3 << 16
_SHORTEST = 4  # a message's length counts its own four bytes
_LONGEST = 30_000  # a longer first message is of another protocol
WELCOME = (b"R", b"\0\0\0\0")
_STOP_SECONDS = 30.0
_ANSWER_SECONDS = 5.0

# Kept at import: a plugin may replace `socket.socket` by a class that refuses to connect.
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
        """Send the first message. ``receive`` returns the server's answer next."""
        text = f"user\0{user}\0database\0{database}\0application_name\0pytest-arena\0\0"
        body = text.encode()
        head = struct.pack("!ii", len(body) + 8, _PROTOCOL)
        self._socket.sendall(head + body)

    def receive(self) -> tuple[bytes, bytes]:
        """Return the kind (a letter) and the body of the next message.

        Raises:
            NotPostgreSQL: the bytes have another form.
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
        """Return the first column of the last row of a statement, "" for no row."""
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


def main() -> None:
    """Read the task as JSON from stdin, and fork a process that starts and keeps the server."""
    task = json.load(sys.stdin)
    lock = os.open(task["keeper"], os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    # Locked before the fork: other processes see by the lock whether the keeper lives.
    if not locked(lock):
        sys.exit("another keeper lives")
    if child := os.fork():
        os.write(lock, str(child).encode())
        os._exit(0)
    os.setsid()
    os.chdir("/")
    with open(task["log"], "ab") as log:  # noqa: PTH123 - the rest of this file needs no pathlib
        server = subprocess.Popen(  # noqa: S603 - the command of pytest-arena's process
            task["command"],
            cwd=task["folder"],
            env=task["environment"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            **task["account"],
        )
    _keep(task, server)


def _keep(task: dict[str, Any], server: subprocess.Popen[bytes]) -> None:
    idle = float(task["idle"])
    used = time.monotonic()
    while _lives_after(min(idle / 4, 15.0), server):
        if not os.path.exists(task["folder"]):  # noqa: PTH110 - this file needs no pathlib
            return _stop(server)
        if _is_used(task):
            used = time.monotonic()
        elif time.monotonic() - used >= idle and _stopped(task, server):
            return None
    return None


def _lives_after(seconds: float, server: subprocess.Popen[bytes]) -> bool:
    """Wait until the server ends, for so many seconds. Return whether it still runs."""
    try:
        server.wait(seconds)
    except subprocess.TimeoutExpired:
        return True
    return False


def _stopped(task: dict[str, Any], server: subprocess.Popen[bytes]) -> bool:
    """Stop the server if no process uses it. The lock keeps new processes out meanwhile."""
    with attempt(task["lock"]) as is_ours:
        if not is_ours or _is_used(task):
            return False
        _stop(server)
        return True


def _stop(server: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
        server.send_signal(number)
        if not _lives_after(_STOP_SECONDS, server):
            return


def _is_used(task: dict[str, Any]) -> bool:
    try:
        return is_held(task["used"]) or _clients(task) > 0
    except ConnectionError:  # the server starts or has ended, which `_keep` notices
        return True


@contextlib.contextmanager
def attempt(path: str | os.PathLike[str]) -> Iterator[bool]:
    """Try to lock a file for this block. Yield whether it is locked."""
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        yield locked(file)
    finally:
        os.close(file)


def is_held(path: str | os.PathLike[str]) -> bool:
    """Whether any process has locked a file."""
    with attempt(path) as is_ours:
        return not is_ours


def locked(file: int) -> bool:
    """Try to lock an open file for this process alone. Return whether it is locked."""
    import fcntl  # noqa: PLC0415 - not on Windows, which uses the protocol above

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _clients(task: dict[str, Any]) -> int:
    """Return how many clients are connected, or 1 if the server is full or too busy to answer.

    Raises:
        ConnectionError: the server does not run.
    """
    try:
        wire = Wire(socket.AF_UNIX, task["socket"], seconds=_ANSWER_SECONDS)
    except (FileNotFoundError, ConnectionError) as error:
        raise ConnectionError from error
    except OSError:
        return 1
    try:
        wire.log_in(task["user"], "postgres")
        for kind, _ in wire.until(b"Z"):
            if kind == b"E":
                return 1
        return int(wire.first_value(task["question"]))
    except (OSError, NotPostgreSQL, ValueError):
        return 1
    finally:
        wire.close()


if __name__ == "__main__":
    main()

"""The process beside a private cluster: starts it, and stops it when nobody needs it any more.

It runs as a script, alone, with Python's standard library only: started in some 20 ms, and small
for the time that it stays. That is why the few messages of PostgreSQL's protocol that it needs
stand here.
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
_SHORTEST = 4  # a length counts itself
_LONGEST = (
    30_000  # no message before the first row is longer; what is, is of another protocol
)
WELCOME = (b"R", b"\0\0\0\0")
_STOP_SECONDS = 30.0
_ANSWER_SECONDS = 5.0

# As it was when this was imported: a plugin may put a socket in its place that refuses to connect.
_Socket = socket.socket


class NotPostgreSQL(Exception):
    """What came over the wire is no message of PostgreSQL's."""


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
        """Send the first message. What ``receive`` returns next is the server's answer."""
        words = ("user", user, "database", database, "application_name", "pytest-arena")
        body = b"\0".join(word.encode() for word in words) + b"\0\0"
        self._socket.sendall(struct.pack("!ii", len(body) + 8, _PROTOCOL) + body)

    def receive(self) -> tuple[bytes, bytes]:
        """Return the next message: its kind, a letter, and its body.

        Raises:
            NotPostgreSQL: it has another form.
            OSError: nothing came in time.
        """
        head = self._exactly(5)
        kind, length = head[:1], struct.unpack("!i", head[1:])[0]
        if not (kind.isalpha() and _SHORTEST <= length <= _LONGEST):
            raise NotPostgreSQL(head)
        body = self._exactly(length - _SHORTEST)
        self._is_inside = self._is_inside or (kind, body) == WELCOME
        return kind, body

    def first_value(self, question: str) -> str:
        """Return the first column of the last row that a statement gives, "" for none."""
        body = question.encode() + b"\0"
        self._socket.sendall(b"Q" + struct.pack("!i", len(body) + 4) + body)
        value = ""
        for kind, answer in self.until(b"Z"):
            if kind == b"D":
                length = struct.unpack("!i", answer[2:6])[0]
                value = answer[6 : 6 + length].decode()
        return value

    def until(self, last: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Give all messages up to one of this kind."""
        while True:
            kind, body = self.receive()
            yield kind, body
            if kind == last:
                return

    def close(self) -> None:
        """Leave so that nothing is written to the server's log."""
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
    """Begin, and go on in the background. The task comes as JSON over stdin."""
    task = json.load(sys.stdin)
    lock = os.open(task["keeper"], os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    # Locked before the fork: whoever started us sees by the lock whether the keeper lives.
    if not locked(lock):
        sys.exit("another keeper lives")
    if child := os.fork():
        os.write(lock, str(child).encode())
        os._exit(0)
    os.setsid()
    os.chdir("/")
    with open(task["log"], "ab") as log:  # noqa: PTH123 - the rest of this file needs no pathlib
        server = subprocess.Popen(  # noqa: S603 - the command of the arena that began
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
    """Whether it still lives after this time; at once where it has ended."""
    try:
        server.wait(seconds)
    except subprocess.TimeoutExpired:
        return True
    return False


def _stopped(task: dict[str, Any], server: subprocess.Popen[bytes]) -> bool:
    """Stop it, unless somebody has come in the meantime. Nobody is let in while it stops."""
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
    except ConnectionError:  # not there yet, or not any more: its end is seen elsewhere
        return True


@contextlib.contextmanager
def attempt(path: str | os.PathLike[str]) -> Iterator[bool]:
    """Hold a file alone, if nobody else does: it says whether."""
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        yield locked(file)
    finally:
        os.close(file)


def is_held(path: str | os.PathLike[str]) -> bool:
    """Whether a process holds a file now."""
    with attempt(path) as is_ours:
        return not is_ours


def locked(file: int) -> bool:
    """Lock an open file for this process alone, if nobody else has it. Returns whether it did."""
    import fcntl  # noqa: PLC0415 - not on Windows, where the protocol above is needed all the same

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _clients(task: dict[str, Any]) -> int:
    """How many clients are connected. One where that cannot be had: full, or too busy to say.

    Raises:
        ConnectionError: there is no server any more.
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

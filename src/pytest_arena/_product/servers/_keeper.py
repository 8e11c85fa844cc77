"""The process that starts and stops a private server.

It runs as a script and imports only Python's standard library, so that it starts in 20 ms and
stays small. The module with the product's protocol does the same.
"""

import contextlib
import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

_STOP_SECONDS = 30.0


def main() -> None:
    """Read the task as JSON from stdin, and fork a process that starts and keeps the server."""
    task = json.load(sys.stdin)
    # Import it now: a later upgrade may remove the file.
    sys.path.append(task["protocol_folder"])
    clients = importlib.import_module(task["protocol_module"]).clients
    lock = os.open(task["keeper"], os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    # Lock before the fork: the lock shows other processes whether the keeper runs.
    if not locked(lock):
        sys.exit("another keeper runs")
    child = os.fork()
    if child:
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
    Keeper(task, server, clients).keep()


class Keeper:
    """Waits until the server ends, and stops it when no process has used it for a while."""

    def __init__(
        self,
        task: dict[str, Any],
        server: subprocess.Popen[bytes],
        clients: Callable[[str], int],
    ) -> None:
        self._task = task
        self._server = server
        self._clients = clients

    def keep(self) -> None:
        """Wait until the server has ended. Stop it if no process uses it, or its folder is gone."""
        idle = float(self._task["idle"])
        used = time.monotonic()
        while self._lives_after(min(idle / 4, 15.0)):
            if not os.path.exists(self._task["folder"]):  # noqa: PTH110 - as above
                return self._stop()
            if self._is_used():
                used = time.monotonic()
            elif time.monotonic() - used >= idle and self._has_stopped():
                return None
        return None

    def _lives_after(self, seconds: float) -> bool:
        """Wait until the server ends, for so many seconds. Return whether it still runs."""
        try:
            self._server.wait(seconds)
        except subprocess.TimeoutExpired:
            return True
        return False

    def _has_stopped(self) -> bool:
        """Stop the server if no process uses it, and return whether it was stopped.

        The lock keeps new processes from using the server meanwhile.
        """
        with attempt(self._task["lock"]) as is_ours:
            if not is_ours or self._is_used():
                return False
            self._stop()
            return True

    def _stop(self) -> None:
        for number in self._task["signals"]:
            self._server.send_signal(number)
            if not self._lives_after(_STOP_SECONDS):
                return

    def _is_used(self) -> bool:
        try:
            return (
                is_held(self._task["used"]) or self._clients(self._task["socket"]) > 0
            )
        except ConnectionError:  # the server starts or has ended, which `keep` notices
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
    """Return whether any process has locked a file."""
    with attempt(path) as is_ours:
        return not is_ours


def locked(file: int) -> bool:
    """Try to lock an open file for this process alone. Return whether it is locked."""
    import fcntl  # noqa: PLC0415 - not on Windows

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


if __name__ == "__main__":
    main()

"""Runs of Python, forked from a process that has imported the libraries already.

Most of a small run's time is the import of pytest, SQLAlchemy and FastAPI. A server for each
process of the suite imports them once, with pytest_arena and the installed plugins, and forks for
each run. It has one thread and no event loop: a fork is safe.

A run that needs what only the start of an interpreter reads (options, ``PYTHON…`` variables) is a
whole process, and so is every run where there is no ``pidfd`` (macOS, Windows).
"""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from tests.example import Example

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SERVER = Path(__file__).with_name("fork_server.py")
whole_process = Example.execute
READ_AT_START = ("PYTHON", "LD_", "LC_", "LANG", "SQLALCHEMY_", "DISABLE_SQLALCHEMY")
# What the forked process sets itself, and what means nothing where output goes to a pipe.
SET_LATER = {"PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED"}


def run(
    command: Sequence[str], folder: Path, env: Mapping[str, str], seconds: float
) -> tuple[int, str]:
    """Run Python in a folder: its exit status, and what it printed on both streams."""
    server = _server() if hasattr(os, "pidfd_open") else None
    if server is None or command[1] in {"-I", "-X"} or _start(env) != server.start:
        return whole_process(command, folder, env, seconds)
    return server.run(command, folder, env, seconds)


def _start(env: Mapping[str, str]) -> dict[str, str]:
    read = (name for name in env if name.startswith(READ_AT_START) and name not in SET_LATER)
    return {name: env[name] for name in read}


class Server:
    """The process that forks, seen from the suite; it ends when this process does."""

    def __init__(self) -> None:
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        self.start = _start(env)  # what it reads of the environment at its start
        self._process = subprocess.Popen(
            [sys.executable, str(SERVER), str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            cwd="/",
            env=env,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        theirs.close()
        atexit.register(self._end)

    def _end(self) -> None:
        self._requests.close()
        self._process.wait()

    def run(
        self, command: Sequence[str], folder: Path, env: Mapping[str, str], seconds: float
    ) -> tuple[int, str]:
        """Fork, and return the exit status and what was printed."""
        request = json.dumps([command[1:], str(folder), dict(env)]).encode()
        output, their_output = os.pipe()
        status, their_status = os.pipe()
        socket.send_fds(self._requests, [request], [their_output, their_status])
        os.close(their_output)
        os.close(their_status)
        end = time.monotonic() + seconds
        with os.fdopen(status) as told, os.fdopen(output, "rb", 0) as printed:
            pid = int(told.readline())
            text = b""
            while select.select([printed], [], [], max(0, end - time.monotonic()))[0]:
                if not (part := printed.read(65536)):
                    return int(told.readline()), text.decode().replace("\r\n", "\n")
                text += part
            os.killpg(pid, signal.SIGKILL)
            raise subprocess.TimeoutExpired(list(command), seconds, text)


@cache
def _server() -> Server:
    return Server()

"""Runs of Python, forked from a process that has imported the libraries already.

Most of a small run's time is the import of pytest, SQLAlchemy and FastAPI. A server for each
process of the suite imports them once and forks for each run. A second one, forked from it, has
imported our plugin as well, for `python -m pytest`: its modules do nothing when they are imported.
A third has all plugins that are installed, for the commands `pytest` and `arena`. A fourth, forked
from the second, has the drivers and our package for MySQL. Others import ours themselves.
A server has one thread and no event loop: a fork is safe.

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
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from tests.example import Example

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["run"]

SERVER = Path(__file__).with_name("fork_server.py")
whole_process = Example.execute


def _own_modules() -> Iterator[str]:
    """All our modules, but those for MySQL."""
    package = find_spec("pytest_arena")
    assert package
    assert package.origin
    folder = Path(package.origin).parent
    for path in folder.rglob("*.py"):
        name = path.relative_to(folder.parent).with_suffix("").as_posix().replace("/", ".")
        if "_mysql" not in name and "__" not in name:
            yield name


# With the libraries that read specifications; a run without any goes by them.
OURS = (*_own_modules(), "xdist.plugin", "xdist.remote")
OF_MYSQL = (
    "aiomysql",
    "asyncmy",
    "pymysql",
    "sqlalchemy.dialects.mysql.aiomysql",
    "sqlalchemy.dialects.mysql.asyncmy",
    "pytest_arena._mysql._connections",
    "pytest_arena._mysql._product",
)
READ_AT_START = ("PYTHON", "LD_", "LC_", "LANG", "SQLALCHEMY_", "DISABLE_SQLALCHEMY")
# What the forked process sets itself, and what means nothing where output goes to a pipe.
SET_LATER = {"PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED"}


def run(
    command: Sequence[str], folder: Path, env: Mapping[str, str], seconds: float
) -> tuple[int, str]:
    """Run Python in a folder: its exit status, and what it printed on both streams.

    Raises:
        subprocess.TimeoutExpired: it did not end in time; it and its children are killed.
    """
    server = _server(*_wanted(command, folder, env)) if hasattr(os, "pidfd_open") else None
    if server is None or command[1] in {"-I", "-X"} or _start(env) != server.start:
        return whole_process(command, folder, env, seconds)
    return server.run(command, folder, env, seconds)


def _wanted(command: Sequence[str], folder: Path, env: Mapping[str, str]) -> Sequence[str]:
    """What its server has to have imported, beside the libraries."""
    is_command = Path(command[1]).name in {"arena", "pytest"}
    is_pytest = {"-m", "pytest"} <= set(command)
    if is_command or (is_pytest and "PYTEST_DISABLE_PLUGIN_AUTOLOAD" not in env):
        return *OURS, *(entry.module for entry in entry_points(group="pytest11"))
    if not is_pytest:
        return ()
    options = folder / "pytest.ini"
    named = options.read_text(encoding="utf-8") if options.exists() else ""
    is_on_mysql = "= mysql://" in named or env.get("ARENA_DATABASE", "").startswith("mysql")
    return (*OURS, *OF_MYSQL) if is_on_mysql else OURS


def _start(env: Mapping[str, str]) -> dict[str, str]:
    read = (name for name in env if name.startswith(READ_AT_START) and name not in SET_LATER)
    return {name: env[name] for name in read}


class Server:
    """The process that forks, seen from the suite; it ends when this process does."""

    start: dict[str, str]  # what was read of the environment at its start

    def __init__(self, *more: str) -> None:
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._process: subprocess.Popen[bytes] | None = None
        if more:
            first = _server(*OURS) if OF_MYSQL[0] in more else _server()
            self.start = first.start
            socket.send_fds(first._requests, [json.dumps(more).encode()], [theirs.fileno()])
        else:
            env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
            self.start = _start(env)
            self._process = subprocess.Popen(
                [sys.executable, str(SERVER), str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                cwd="/",
                env=env,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        theirs.close()
        atexit.register(self._end)  # the last one first: the first waits for the others

    def _end(self) -> None:
        self._requests.close()
        if self._process:
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
def _server(*more: str) -> Server:
    return Server(*more)

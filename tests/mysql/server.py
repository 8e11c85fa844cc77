"""A private MariaDB server for the tests of this process, and connections to it."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import pymysql
import pytest

from pytest_arena._values import Address

_START_SECONDS = 60
_FAST = (
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-flush-method=nosync",
    "--innodb-doublewrite=0",
    "--skip-log-bin",
    "--loose-innodb-snapshot-isolation=0",  # on by default, MariaDB 11.8 refuses lost updates
    "--skip-networking",
    "--character-set-server=utf8mb4",
)


def program(name: str) -> str:
    """Return the path of a program, or skip the test that needs it."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


class PrivateServer:
    """A server whose data ends with it."""

    def __init__(self, *options: str) -> None:
        installer = program("mariadb-install-db")
        memory = Path("/dev/shm")  # noqa: S108 - the folder below it is private
        self.folder = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
        self.socket = str(self.folder / "socket")
        user = "mysql" if os.geteuid() == 0 else getpass.getuser()
        if os.geteuid() == 0:
            shutil.chown(self.folder, user)
        # A server that starts deletes the temporary tables of others in its folder. They crash.
        place = (f"--datadir={self.folder / 'data'}", f"--tmpdir={self.folder}")
        common = ("--no-defaults", f"--user={user}", *place)
        subprocess.run(
            [installer, *common, "--auth-root-authentication-method=normal", "--skip-test-db"],
            check=True,
            capture_output=True,
        )
        # Its input ends with this process, also where that is killed.
        end = 'read line; kill -9 $(cat "$0"/data/*.pid); rm -rf "$0"'
        self._watcher = subprocess.Popen(
            [program("sh"), "-c", end, str(self.folder)],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.command = [program("mariadbd"), *common, *_FAST, f"--socket={self.socket}", *options]
        self.start()

    def start(self) -> None:
        Path(self.socket).unlink(missing_ok=True)
        self.process = subprocess.Popen(
            self.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + _START_SECONDS
        while not Path(self.socket).exists():
            assert time.monotonic() < deadline
            assert self.process.poll() is None
            time.sleep(0.02)

    def end(self, pid: int) -> None:
        """End a process that a test has started in the place of this one."""
        self.process.wait()
        os.kill(pid, signal.SIGTERM)
        while Path(f"/proc/{pid}").exists():
            time.sleep(0.02)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        self._watcher.communicate()


def address_of(login: dict[str, Any]) -> Address:
    return Address(login["host"], login["port"], login["user"], "", login["password"])


def connect(socket: str, database: str | None = None, **options: Any) -> pymysql.Connection[Any]:
    return pymysql.connect(
        unix_socket=socket,
        user="root",
        database=database,
        charset="utf8mb4",
        autocommit=True,
        **options,
    )

"""Real servers on a port: one for the suite, and one with passwords and few connections."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_arena._postgresql import _clusters as clusters
from pytest_arena._postgresql._clusters import environment, folders, read_programs
from pytest_arena._postgresql._control import ControlFailure, open_control
from pytest_arena._values import Address
from tests.servers.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Self

    from pytest_arena._postgresql._clusters import Programs
    from pytest_arena._postgresql._control import PostgreSQLControl

PASSWORD = "sEcret-4711"  # noqa: S105 - of a server that lives for some seconds
CONNECTIONS = 5

ROLES = f"""
SET password_encryption = 'scram-sha-256';
CREATE ROLE humble LOGIN;
CREATE ROLE maker LOGIN CREATEDB PASSWORD '{PASSWORD}';
CREATE ROLE boss LOGIN SUPERUSER;
"""

# `local` is the socket. By TCP, `maker` needs a password and `stranger` is refused.
RULES = """
local all all trust
host all maker 127.0.0.1/32 scram-sha-256
host all stranger 127.0.0.1/32 reject
host all all 127.0.0.1/32 trust
host all all ::1/128 trust
"""
FAST = {
    "listen_addresses": "localhost",
    "fsync": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "shared_buffers": "32MB",
    "max_wal_size": "128MB",
    "dynamic_shared_memory_type": "mmap",
}


def newest_programs() -> Programs:
    """Return the programs of the newest PostgreSQL of this machine, else of a wheel."""
    return read_programs(folders()[0])


def folder_in_memory() -> Path:
    """Make a folder with a short name, which the servers' user may pass through."""
    memory = Path("/dev/shm")  # noqa: S108 - a folder with a new name is made in it
    path = Path(tempfile.mkdtemp(prefix="arena-", dir=memory if memory.exists() else None))
    path.chmod(0o711)
    return path


class RealServer:
    """PostgreSQL on a port of this machine. Its data ends with it."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        self.port = free_port()
        self._settings = {**FAST, **settings, "port": str(self.port)}

    def start(self) -> None:
        self._path = folder_in_memory()
        programs = newest_programs()
        self._folder = clusters.ServerFolder(self._path / "server")
        self._folder.ensure()
        clusters.make_data(self._folder, programs)
        (self._folder.data / "pg_hba.conf").write_text(RULES, encoding="ascii")
        self.command = [str(programs.folder / "postgres"), "-D", str(self._folder.data)]
        for name, value in {
            **self._settings,
            "unix_socket_directories": str(self._folder.path),
        }.items():
            self.command += ["-c", f"{name}={value}"]
        with (self._path / "log").open("wb") as log:
            self._process = subprocess.Popen(
                self.command,
                cwd=self._folder.path,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stderr=log,
                **clusters.account(),
            )
        until(self._answers, "the server starts")

    def _answers(self) -> bool:
        with suppress(ControlFailure):
            open_control(self.by_socket).close()
            return True
        return False

    def stop(self) -> None:
        # A test may have started it again.
        os.kill(int((self._folder.data / "postmaster.pid").read_text().split()[0]), 2)
        self._process.wait()
        shutil.rmtree(self._path, ignore_errors=True)

    @property
    def by_socket(self) -> Address:
        return Address(str(self._folder.path), self.port, "postgres", "postgres")


class ServerBeside(RealServer):
    """The server of the suite."""

    def __init__(self) -> None:
        super().__init__(
            {
                "max_connections": "300",
                "max_prepared_transactions": "5",
                "synchronous_commit": "off",
            }
        )

    @property
    def url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"


class Crowded(RealServer):
    """A server with passwords and few connections."""

    def __init__(self, connections: int = CONNECTIONS, *, locks: int = 64) -> None:
        super().__init__(
            {
                "max_connections": str(connections),
                "superuser_reserved_connections": "1",
                "max_locks_per_transaction": str(locks),
            }
        )
        self._connections = connections

    def __enter__(self) -> Self:
        self.start()
        with closing(open_control(self.by_socket)) as control:
            control.run(ROLES)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def address(self) -> Address:
        """By TCP, as `maker` with the password."""
        return replace(self.by_socket, host="127.0.0.1", user="maker", password=PASSWORD)

    def url(self, login: str, database: str = "postgres") -> str:
        return f"postgresql+asyncpg://{login}@127.0.0.1:{self.port}/{database}"

    @contextmanager
    def filled(self, *, free: int = 0) -> Iterator[None]:
        boss = replace(self.address, user="boss", password="")
        with ExitStack() as taken:
            for _ in range(self._connections - free):
                taken.enter_context(closing(open_control(boss)))
            yield

    def databases(self) -> list[str]:
        with closing(self._opened()) as control:
            return [str(name) for (name,) in control.rows("SELECT datname FROM pg_database")]

    def contents(self) -> object:
        with closing(self._opened()) as control:
            databases = control.rows("SELECT datname FROM pg_database ORDER BY 1")
            return databases, control.rows("SELECT rolname FROM pg_roles ORDER BY 1")

    def _opened(self) -> PostgreSQLControl:
        """A connection of the superuser. Closed connections may still end on the server."""
        opened: list[PostgreSQLControl] = []

        def connect() -> bool:
            with suppress(ControlFailure):
                opened.append(open_control(self.by_socket))
            return bool(opened)

        until(connect, "a connection is free")
        return opened[0]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

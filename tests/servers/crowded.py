"""A real server on a port, with passwords and few connections: much can go wrong on it."""

from __future__ import annotations

import socket
import subprocess
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_arena._postgresql._control import open_control
from pytest_arena._postgresql.servers._cluster import CLUSTERS
from pytest_arena._postgresql.servers._entrance import Answer, knock
from pytest_arena._product.servers._server_programs import environment
from pytest_arena._values import Address
from tests.servers.waiting import until

if TYPE_CHECKING:
    from pathlib import Path
    from typing import BinaryIO, Self

    from pytest_arena._postgresql._control import Control
    from pytest_arena._postgresql.servers._programs import PostgreSQLPrograms

PASSWORD = "sEcret-4711"  # noqa: S105 - of a server that lives for some seconds
CONNECTIONS = 5

ROLES = f"""
SET password_encryption = 'scram-sha-256';
CREATE ROLE humble LOGIN;
CREATE ROLE maker LOGIN CREATEDB PASSWORD '{PASSWORD}';
CREATE ROLE boss LOGIN SUPERUSER;
"""

# `local` is the socket. By TCP, `maker` needs a password and `stranger` is not let in.
RULES = """
local all all trust
host all maker 127.0.0.1/32 scram-sha-256
host all stranger 127.0.0.1/32 reject
host all all 127.0.0.1/32 trust
"""


class Crowded:
    """Starts it, and stops it."""

    def __init__(
        self,
        path: Path,
        programs: PostgreSQLPrograms,
        connections: int = CONNECTIONS,
        *,
        locks: int = 64,
    ) -> None:
        self._connections = connections
        self._locks = locks
        self._folder = CLUSTERS.folder(path / programs.key("crowded"))
        self._programs = programs
        self.port = free_port()

    def __enter__(self) -> Self:
        self._folder.ensure()
        CLUSTERS.make_data(self._folder, self._programs)
        (self._folder.data / "pg_hba.conf").write_text(RULES, encoding="ascii")
        self._log = self._folder.path / "log"
        with self._log.open("wb") as log:
            self._process = self._started(log)
        until(lambda: knock(self.by_socket, seconds=5).answer is Answer.OPEN, "it starts")
        with closing(open_control(self.by_socket)) as control:
            control.run(ROLES)
        return self

    def _started(self, log: BinaryIO) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [str(self._programs.folder / "postgres"), "-D", str(self._folder.data), *self._said()],
            cwd=self._folder.path,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stderr=log,
            **CLUSTERS.account().as_arguments(),
        )

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.send_signal(2)  # SIGINT: without waiting for its clients
        self._process.wait()

    def _said(self) -> list[str]:
        return [
            *("-c", "listen_addresses=127.0.0.1", "-c", f"port={self.port}", "-c", "fsync=off"),
            *("-c", f'unix_socket_directories="{self._folder.path}"'),
            *(
                "-c",
                f"max_connections={self._connections}",
                "-c",
                "superuser_reserved_connections=1",
            ),
            *("-c", f"max_locks_per_transaction={self._locks}"),
            *("-c", "log_line_prefix=%e "),
            *("-c", "max_wal_senders=0", "-c", "wal_level=minimal", "-c", "autovacuum=off"),
        ]

    def has_refused(self) -> bool:
        """Whether somebody has asked for a connection while there was none."""
        return b"53300 " in self._log.read_bytes()

    @property
    def by_socket(self) -> Address:
        """Its superuser's way in."""
        return Address("postgresql", str(self._folder.path), self.port, "postgres", "postgres")

    @property
    def address(self) -> Address:
        """By TCP, as `maker` with the password."""
        return replace(self.by_socket, host="127.0.0.1", user="maker", password=PASSWORD)

    def url(self, login: str, database: str = "postgres") -> str:
        """A URL by TCP."""
        return f"postgresql+asyncpg://{login}@127.0.0.1:{self.port}/{database}"

    def fill(self) -> list[Control]:
        """Take all connections."""
        boss = replace(self.address, user="boss", password="")
        return [open_control(boss) for _ in range(self._connections)]

    def databases(self) -> list[str]:
        """The names of all that are there."""
        with closing(open_control(self._in_a_while)) as control:
            return [str(name) for (name,) in control.rows("SELECT datname FROM pg_database")]

    def contents(self) -> object:
        """What could have been changed on it."""
        with closing(open_control(self._in_a_while)) as control:
            databases = control.rows("SELECT datname FROM pg_database ORDER BY 1")
            return databases, control.rows("SELECT rolname FROM pg_roles ORDER BY 1")

    @property
    def _in_a_while(self) -> Address:
        """Who had all connections may have closed them: the server ends them some time later."""
        return replace(self.by_socket, patience=10.0)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

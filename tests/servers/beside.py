"""The PostgreSQL that the suite runs on: started beside it, on a port, and gone with it.

It is the newest that is installed, or the wheel's. It is a developer's own server as well: on a
port, so that each way to write an address can be tried, and nothing of anybody's is on it.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_arena._postgresql.servers._cluster import CLUSTERS
from pytest_arena._postgresql.servers._entrance import Answer, knock
from pytest_arena._postgresql.servers._programs import (
    folders,
    programs_of_wheel,
    read_programs,
)
from pytest_arena._product.servers._server_programs import environment
from pytest_arena._values import Address
from tests.servers.crowded import free_port
from tests.servers.waiting import until

if TYPE_CHECKING:
    from pytest_arena._postgresql.servers._programs import PostgreSQLPrograms
    from pytest_arena._product.servers._places import ServerFolder

__all__ = ["ServerBeside", "newest_programs"]

RULES = "local all all trust\nhost all all 127.0.0.1/32 trust\nhost all all ::1/128 trust\n"


def newest_programs() -> PostgreSQLPrograms:
    """PostgreSQL of this machine, else of a wheel.

    Raises:
        Unavailable: there is neither. A suite that went on without would prove nothing.
    """
    found = folders()
    return read_programs(found[0], str(found[0])) if found else programs_of_wheel()


class ServerBeside:
    """Starts it, and stops it."""

    def __init__(self) -> None:
        self.port = free_port()

    def start(self) -> None:
        """Return when it answers."""
        memory = Path("/dev/shm")  # noqa: S108 - a folder of its own is made in it
        beside = memory if memory.exists() else None
        self._path = Path(tempfile.mkdtemp(prefix="arena-", dir=beside))
        self._path.chmod(0o711)
        programs = newest_programs()
        folder = CLUSTERS.folder(self._path / programs.key("beside"))
        folder.ensure()
        CLUSTERS.make_data(folder, programs)
        (folder.data / "pg_hba.conf").write_text(RULES, encoding="ascii")
        self._process = subprocess.Popen(
            [str(programs.folder / "postgres"), "-D", str(folder.data), *self._settings(folder)],
            cwd=folder.path,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **CLUSTERS.account().as_arguments(),
        )
        address = Address("postgresql", "127.0.0.1", self.port, "postgres", "postgres")
        until(lambda: knock(address, seconds=5).answer is Answer.OPEN, "the server starts")

    def _settings(self, folder: ServerFolder) -> list[str]:
        settings = {
            "listen_addresses": "localhost",
            "port": str(self.port),
            "unix_socket_directories": str(folder.path),
            "fsync": "off",
            "full_page_writes": "off",
            "synchronous_commit": "off",
            "autovacuum": "off",
            "max_connections": "300",
            "max_prepared_transactions": "5",
            "wal_level": "minimal",
            "max_wal_senders": "0",
            "shared_buffers": "32MB",
            "max_wal_size": "128MB",
            "dynamic_shared_memory_type": "mmap",
        }
        return [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]

    @property
    def url(self) -> str:
        """How one logs in."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def stop(self) -> None:
        """End it, whoever is connected, and remove all that it had."""
        self._process.send_signal(2)  # SIGINT: without waiting for its clients
        self._process.wait()
        shutil.rmtree(self._path, ignore_errors=True)

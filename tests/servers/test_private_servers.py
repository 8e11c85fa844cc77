"""The first run starts a private server, the last run stops it, and its data stays."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_arena._mysql import _control as mysql_control
from pytest_arena._mysql._servers import PRIVATE_SERVERS, installed
from pytest_arena._mysql._servers import read_programs as read_mysql_programs
from pytest_arena._postgresql import _control as postgresql_control
from pytest_arena._postgresql._servers import CLUSTERS
from pytest_arena._product._server_search import Unavailable
from tests.servers.crowded import folder_in_memory, newest_programs
from tests.servers.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_arena._product._private_servers import PrivateServer

ROOT = Path(__file__).parent.parent.parent


class Servers:
    """A product's private servers in a folder of one test."""

    def __init__(self, product: str, place: Path) -> None:
        self.place = place
        self.product = product
        self.kind: Any = CLUSTERS
        self.open_control: Any = postgresql_control.open_control
        self.programs: Any = None
        if product == "postgresql":
            self.programs = newest_programs()
            return
        self.kind = PRIVATE_SERVERS
        self.open_control = mysql_control.open_control
        for program in installed():
            with suppress(Unavailable):
                self.programs = read_mysql_programs(program)
                return
        pytest.skip("neither mariadbd nor mysqld is installed")

    def find(self) -> PrivateServer:
        """Find the server, or start it."""
        found: PrivateServer = self.kind.find(self.programs, cache=self.place)
        return found

    def pid(self, server: PrivateServer) -> int:
        """The server's process id."""
        return int((server.folder.data / self.kind.pid_file).read_text().split()[0])

    def run(self, server: PrivateServer, statement: str) -> list[tuple[Any, ...]]:
        """Execute a statement on the server."""
        with closing(self.open_control(server.address)) as control:
            return list(control.rows(statement))

    def databases(self, server: PrivateServer) -> str:
        """The names of all databases, in one text."""
        statement = "SHOW DATABASES"
        if self.product == "postgresql":
            statement = "SELECT datname::text FROM pg_database"
        return " ".join(name for (name,) in self.run(server, statement))

    def wait_until_stopped(self, server: PrivateServer) -> None:
        """Wait for the server's end."""
        until(lambda: not self.kind.is_running(server.folder), "the server stops")


@pytest.fixture(params=["postgresql", "mysql"])
def servers(
    request: pytest.FixtureRequest, clean_environment: None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Servers]:
    """A folder for the servers of one test."""
    place = folder_in_memory()
    monkeypatch.setenv("ARENA_CLUSTERS", str(place))
    made = Servers(request.param, place)
    yield made
    for path in place.glob("*/*/"):
        made.kind.remove(made.kind.folder(path))
    shutil.rmtree(place)


def create(servers: Servers, server: PrivateServer, name: str) -> None:
    """Create a database. Flush it, because a server that flushes nothing may lose it."""
    with closing(servers.open_control(server.address)) as control:
        control.run(f"CREATE DATABASE {name}")


def test_runs_share_a_server_that_the_last_one_stops(servers: Servers) -> None:
    """The next run starts it again, with its data. Other users of the machine cannot enter."""
    with closing(servers.find()) as first:
        pid = servers.pid(first)
        with closing(servers.find()) as second:
            assert servers.pid(second) == pid
        create(servers, first, "stays")
        assert servers.kind.answers(first.folder)
        assert first.is_private
        assert "a private server from /" in first.shown
        assert first.folder.path.stat().st_mode & 0o077 == 0
        process = Path(f"/proc/{pid}")
        if os.geteuid() == 0 and process.exists():
            assert process.stat().st_uid == servers.kind.account().uid != 0
            assert "Groups:\t \n" in (process / "status").read_text()
    servers.wait_until_stopped(first)
    with closing(servers.find()) as again:
        assert "stays" in servers.databases(again)


STARTS = """
import sys
from pathlib import Path
from tests.servers.test_private_servers import Servers

found = Servers(sys.argv[1], Path(sys.argv[2])).find()
print(found.folder.path, flush=True)
sys.stdin.read()
"""


def test_two_runs_that_start_at_once_and_are_killed(servers: Servers) -> None:
    """One server is started. It outlives both, and the next run stops it."""
    command = [sys.executable, "-c", STARTS, servers.product, str(servers.place)]
    pipe = subprocess.PIPE
    runs = [
        subprocess.Popen(command, cwd=ROOT, text=True, stdin=pipe, stdout=pipe) for _ in range(2)
    ]
    folders = [run.stdout.readline().strip() for run in runs if run.stdout]
    for run in runs:
        run.kill()
        run.communicate()
    folder = servers.kind.folder(Path(folders[0]))
    assert folders[0] == folders[1]
    assert servers.kind.is_running(folder)
    assert not servers.kind.is_in_use(folder)
    with closing(servers.find()) as found:
        pass
    servers.wait_until_stopped(found)


def test_a_server_that_was_killed_gets_new_data(servers: Servers) -> None:
    """It flushes nothing, so its data may be broken. So may data that does not start."""
    with closing(servers.find()) as found:
        create(servers, found, "lost")
        os.kill(servers.pid(found), signal.SIGKILL)
        servers.wait_until_stopped(found)
    with closing(servers.find()) as again:
        assert "lost" not in servers.databases(again)
        create(servers, again, "lost")
    servers.wait_until_stopped(again)
    for file in ("global/pg_control", "ibdata1"):
        if (again.folder.data / file).exists():
            (again.folder.data / file).write_bytes(b"broken")
    with closing(servers.find()) as last:
        assert "lost" not in servers.databases(last)


def test_a_server_with_a_kept_database_stays_until_the_next_run_ends(servers: Servers) -> None:
    """A user may look at the database."""
    with closing(servers.find()) as found:
        found.stay()
    assert servers.kind.answers(found.folder)
    with closing(servers.find()) as again:
        pass
    servers.wait_until_stopped(again)


def test_a_forked_child_ends_no_use_of_the_server(servers: Servers) -> None:
    """Its parent still uses the server."""
    with closing(servers.find()) as found:
        child = os.fork()
        if not child:
            found.close()
            os._exit(0)
        os.waitpid(child, 0)
        assert servers.kind.is_in_use(found.folder)
        assert servers.kind.answers(found.folder)


def test_programs_that_fail_say_why(servers: Servers, tmp_path: Path) -> None:
    """A program that creates data, or a folder of another user."""
    tmp_path.chmod(0o755)
    for name in ("initdb", "postgres", "mariadbd", "mariadb-install-db", "mysqld"):
        (tmp_path / name).write_text("#!/bin/sh\necho 'no way' >&2; exit 1\n")
        (tmp_path / name).chmod(0o755)
    programs = replace(servers.programs, folder=tmp_path)
    with pytest.raises(Unavailable, match=r"failed: no way|does not run"):
        servers.kind.find(programs, cache=tmp_path)
    parent = next(servers.place.iterdir())
    shutil.rmtree(parent)
    parent.symlink_to(tmp_path)
    with pytest.raises(Unavailable, match="belongs to another user"):
        servers.find()
    parent.unlink()

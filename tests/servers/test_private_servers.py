"""The first run starts a private server, the last run stops it, and its data stays."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_arena._postgresql import _clusters as clusters
from pytest_arena._postgresql._control import open_control
from pytest_arena._product._server_search import Unavailable
from tests.servers.crowded import folder_in_memory, newest_programs
from tests.servers.waiting import end_cluster, server_pid, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_arena._postgresql._clusters import PrivateServer

ROOT = Path(__file__).parent.parent.parent


class Servers:
    """Private servers in a folder of these tests."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.programs = newest_programs()

    def find(self) -> PrivateServer:
        return clusters.find(self.programs, cache=self.place)

    def databases(self, server: PrivateServer) -> str:
        with closing(open_control(server.address)) as control:
            rows = control.rows("SELECT datname::text FROM pg_database")
        return " ".join(name for (name,) in rows)

    def wait_until_stopped(self, server: PrivateServer) -> None:
        until(lambda: not clusters.is_running(server.folder), "the server stops")


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder for the server, whose first data take most of the time."""
    place = folder_in_memory()
    yield place
    for path in place.glob("*/*/"):
        folder = clusters.ServerFolder(path)
        end_cluster(folder)  # at once, also while it stops by itself or after a red test
        clusters.remove(folder)
    shutil.rmtree(place)


@pytest.fixture
def servers(clean_environment: None, place: Path, monkeypatch: pytest.MonkeyPatch) -> Servers:
    monkeypatch.setenv("ARENA_CLUSTERS", str(place))
    return Servers(place)


def create(server: PrivateServer, name: str) -> None:
    with closing(open_control(server.address)) as control:
        control.run(f"CREATE DATABASE {name}")


def test_runs_share_a_server_that_the_last_one_stops(servers: Servers) -> None:
    with closing(servers.find()) as first:
        pid = server_pid(first.folder)
        with closing(servers.find()) as second:
            assert server_pid(second.folder) == pid
        create(first, "stays")
        assert clusters.answers(first.folder)
        assert first.is_private
        assert "a private server from /" in first.shown
        assert first.folder.path.stat().st_mode & 0o077 == 0
        process = Path(f"/proc/{pid}")
        if os.geteuid() == 0 and process.exists():
            assert process.stat().st_uid == clusters.account()["user"] != 0
            assert "Groups:\t \n" in (process / "status").read_text()
    servers.wait_until_stopped(first)
    with closing(servers.find()) as again:
        assert "stays" in servers.databases(again)


STARTS = """
import sys
from pathlib import Path
from tests.servers.test_private_servers import Servers

found = Servers(Path(sys.argv[1])).find()
print(found.folder.path, flush=True)
sys.stdin.read()
"""


def test_two_runs_that_start_at_once_and_are_killed(servers: Servers) -> None:
    command = [sys.executable, "-c", STARTS, str(servers.place)]
    pipe = subprocess.PIPE
    runs = [
        subprocess.Popen(command, cwd=ROOT, text=True, stdin=pipe, stdout=pipe) for _ in range(2)
    ]
    folders = [run.stdout.readline().strip() for run in runs if run.stdout]
    for run in runs:
        run.kill()
        run.communicate()
    folder = clusters.ServerFolder(Path(folders[0]))
    assert folders[0] == folders[1]
    assert clusters.is_running(folder)
    assert not clusters.is_in_use(folder)
    with closing(servers.find()) as found:
        pass
    servers.wait_until_stopped(found)


def test_a_server_that_was_killed_gets_new_data(servers: Servers) -> None:
    """It flushes nothing, so its data may be broken. So may data that does not start."""
    with closing(servers.find()) as found:
        create(found, "lost")
        os.kill(server_pid(found.folder), signal.SIGKILL)
        servers.wait_until_stopped(found)
    with closing(servers.find()) as again:
        assert "lost" not in servers.databases(again)
        create(again, "lost")
    servers.wait_until_stopped(again)
    (again.folder.data / "global/pg_control").write_bytes(b"broken")
    with closing(servers.find()) as last:
        assert "lost" not in servers.databases(last)


def test_a_server_with_a_kept_database_stays_until_the_next_run_ends(servers: Servers) -> None:
    """A user may look at the database."""
    with closing(servers.find()) as found:
        found.stay()
    assert clusters.answers(found.folder)
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
        assert clusters.is_in_use(found.folder)
        assert clusters.answers(found.folder)


def test_programs_that_fail_say_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that creates data, or a folder of another user."""
    servers = Servers(folder_in_memory())
    monkeypatch.setenv("ARENA_CLUSTERS", str(servers.place))
    tmp_path.chmod(0o755)
    for name in ("initdb", "postgres"):
        (tmp_path / name).write_text("#!/bin/sh\necho 'no way' >&2; exit 1\n")
        (tmp_path / name).chmod(0o755)
    with pytest.raises(Unavailable, match=r"failed: no way|does not run"):
        clusters.find(replace(servers.programs, folder=tmp_path), cache=tmp_path)
    parent = next(servers.place.iterdir())
    shutil.rmtree(parent)
    parent.symlink_to(tmp_path)
    with pytest.raises(Unavailable, match="belongs to another user"):
        servers.find()
    parent.unlink()
    shutil.rmtree(servers.place)

"""One private server for all runs of a user: it survives killed runs, and stops unused."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_arena._config._read import load_config
from pytest_arena._mysql._control import MySQLFailure, open_control
from pytest_arena._mysql._errors import failed
from pytest_arena._mysql.servers import _mysql_programs
from pytest_arena._mysql.servers._mysql_programs import OLDEST, read_programs
from pytest_arena._mysql.servers._private_mysql import PRIVATE_SERVERS
from pytest_arena._mysql.servers._search import find_server, private_server
from pytest_arena._product.servers import Unavailable, _private_servers
from pytest_arena._product.servers._keeper import is_held
from pytest_arena.errors import ServerError
from tests.mysql.private_servers import newest_of_each, place_for_servers, rows, until
from tests.mysql.shop import shop
from tests.servers.waiting import keeper_pid, lives

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_arena._config._read import Config
    from pytest_arena._mysql.servers._mysql_programs import MySQLPrograms
    from pytest_arena._product.servers._private_servers import PrivateServer
    from tests.conformance.story_mysql_server import StoryMySQLServer

_COMMAND = "import sys; from pytest_arena._cli import main; sys.exit(main(sys.argv[1:]))"
QUICK = 0.2  # seconds
# A server that flushes nothing may lose the last second.
KEPT = (
    "CREATE DATABASE kept; CREATE TABLE kept.t (a INT); INSERT INTO kept.t VALUES (1); "
    "FLUSH ENGINE LOGS"
)


@pytest.fixture(scope="module", params=newest_of_each(), ids=lambda programs: programs.product)
def programs(request: pytest.FixtureRequest) -> MySQLPrograms:
    """MariaDB, and MySQL where it is installed."""
    found: MySQLPrograms = request.param
    return found


@pytest.fixture
def place(clean_environment: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for the servers of one test."""
    with place_for_servers() as path:
        monkeypatch.setenv("ARENA_CLUSTERS", str(path))
        yield path


@pytest.fixture
def find(
    place: Path, programs: MySQLPrograms, tmp_path: Path
) -> Iterator[Callable[[], PrivateServer]]:
    """Find the server of the programs, or start it."""
    found: list[PrivateServer] = []

    def find() -> PrivateServer:
        found.append(PRIVATE_SERVERS.find(programs, cache=tmp_path))
        return found[-1]

    yield find
    for server in found:
        server.close()


def pid_of(server: PrivateServer) -> int:
    """Return the server's process id."""
    return PRIVATE_SERVERS.server_pid(server.folder)


def has_no_keeper(server: PrivateServer) -> bool:
    """Return whether the process beside the server has ended."""
    return not is_held(server.folder.beside("keeper"))


def config_of(place: Path, **flags: str) -> Config:
    """Return the options of a run."""
    environ = {"ARENA_CACHE": str(place / "cache")}
    return load_config(flags=flags, environ=environ, ini=lambda _: "", root=Path("/nowhere"))


TEST = """
async def test_the_first(client):
    assert (await client.post("/items/pear")).json() == 2


async def test_the_second(client, arena):
    assert (await client.get("/items")).json() == ["seeded"]
    print(arena.url)
"""


@pytest.mark.slow
def test_runs_share_a_server_that_the_command_lists_and_removes(
    server: StoryMySQLServer, place: Path, tmp_path: Path
) -> None:
    """`own` uses no running service. The server listens on no port."""
    if not newest_of_each():
        pytest.skip("neither mariadbd nor mysqld is installed")
    variables = {"ARENA_DATABASE": "own", "ARENA_CLUSTERS": str(place)}
    example = shop(server, tmp_path).with_files(test_one=TEST)
    example = replace(example, env={**example.env, **variables})
    example.run("-rP").expect(passed=2).says("a private server from /", "unix_socket=")
    [folder] = PRIVATE_SERVERS.in_parent(next(place.iterdir()))
    pid = PRIVATE_SERVERS.server_pid(folder)
    example.run().expect(passed=2)
    assert PRIVATE_SERVERS.server_pid(folder) == pid

    def arena(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", _COMMAND, "databases", *words],
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    def states() -> dict[str, str]:
        places = json.loads(arena("list", "--json"))["places"]
        return {thing["what"]: thing["state"] for place in places for thing in place["things"]}

    until(lambda: states().get("server") == "idle")
    assert "template" in states()
    assert f"removed  server {folder.path.name}" in arena("sweep", "--all", "--yes")
    assert not lives(pid)
    assert not list(place.iterdir())


@pytest.mark.usefixtures("place")
def test_without_a_running_server_a_private_one_is_started(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server of the named product is preferred."""
    monkeypatch.setenv("MYSQL_TCP_PORT", "1")  # no server listens there
    for programs in newest_of_each():
        config = config_of(place, database=programs.product.lower())
        with closing(find_server(config)) as found:
            assert found.is_private
            assert found.shown.startswith(f"{programs.product} {programs.version}, a private")


@pytest.mark.slow
def test_a_private_server_is_quick_small_and_private(find: Callable[[], PrivateServer]) -> None:
    """It flushes nothing, listens on no port, and another user cannot enter its folder."""
    found = find()
    settings = (
        "@@innodb_flush_log_at_trx_commit, @@skip_networking, @@log_bin, @@event_scheduler, "
        "@@character_set_server, USER()"
    )
    expected = [(0, 1, 0, "OFF", "utf8mb4", "root@localhost")]
    assert rows(found, f"SELECT {settings}") == expected
    assert found.folder.path.stat().st_mode & 0o077 == 0
    assert found.folder.socket.is_socket()
    process = Path(f"/proc/{pid_of(found)}")
    if os.geteuid() == 0 and process.exists():
        assert process.stat().st_uid == PRIVATE_SERVERS.account().uid != 0


@pytest.mark.slow
def test_a_killed_server_is_started_again_with_its_data(find: Callable[[], PrivateServer]) -> None:
    """The file of the old process is no hindrance."""
    found = find()
    rows(found, KEPT)
    pid = pid_of(found)
    os.kill(pid, signal.SIGKILL)
    until(lambda: has_no_keeper(found))
    again = find()
    assert pid_of(again) != pid
    assert rows(again, "SELECT * FROM kept.t") == [(1,)]


@pytest.mark.slow
def test_broken_data_is_made_again(find: Callable[[], PrivateServer]) -> None:
    """All databases in it can be made again."""
    found = find()
    rows(found, KEPT)
    assert PRIVATE_SERVERS.stop(found.folder) or has_no_keeper(found)
    (found.folder.data / "ibdata1").write_bytes(b"broken")
    assert ("kept",) not in rows(find(), "SHOW DATABASES")


@pytest.mark.slow
def test_an_unused_server_stops(
    find: Callable[[], PrivateServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs while a process holds it, and while a client is connected."""
    monkeypatch.setattr(_private_servers, "_IDLE_SECONDS", QUICK)
    found = find()
    pid = pid_of(found)
    keeper = keeper_pid(found.folder)
    time.sleep(0.8)  # four times as long as it waits for a user: nothing may happen
    assert lives(pid)
    with closing(open_control(found.address)) as control:
        found.close()
        time.sleep(0.8)
        assert control.rows("SELECT 1") == [(1,)]
    until(lambda: not lives(pid))
    until(lambda: not lives(keeper))
    assert not found.folder.socket.exists()


@pytest.mark.slow
def test_a_server_whose_keeper_was_killed_gets_another(find: Callable[[], PrivateServer]) -> None:
    """It is restarted as soon as no process uses it."""
    found = find()
    rows(found, KEPT)
    pid = pid_of(found)
    os.kill(keeper_pid(found.folder), signal.SIGKILL)
    until(lambda: has_no_keeper(found))
    used = find()
    assert pid_of(used) == pid
    used.close()
    found.close()
    again = find()
    assert pid_of(again) != pid
    assert not has_no_keeper(again)
    assert rows(again, "SELECT * FROM kept.t") == [(1,)]


@pytest.mark.slow
def test_a_server_whose_folder_was_removed_ends(
    find: Callable[[], PrivateServer], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next run begins again."""
    monkeypatch.setattr(_private_servers, "_IDLE_SECONDS", QUICK)
    found = find()
    pid = pid_of(found)
    # In one step: the server still writes into it.
    removed = found.folder.path.rename(place / "removed")
    until(lambda: not lives(pid))
    until(lambda: has_no_keeper(found))
    shutil.rmtree(removed)
    found.close()
    assert rows(find(), "SELECT 1") == [(1,)]


def program(folder: Path, name: str, script: str) -> Path:
    """Write a program that stands for a server's."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    file.write_text(f"#!/bin/sh\n{script}\n", encoding="ascii")
    file.chmod(0o755)
    return file


@pytest.mark.parametrize(
    "version, shown",
    [
        ("10.5.29-MariaDB-0+deb11u1 for debian-linux-gnu", "MariaDB 10.5.29"),
        ("5.7.44 for Linux on x86_64 (MySQL Community Server (GPL))", "MySQL 5.7.44"),
    ],
)
def test_old_programs_are_refused(
    place: Path, monkeypatch: pytest.MonkeyPatch, version: str, shown: str
) -> None:
    """The error names the programs, the version that is needed, and the next step."""
    file = program(place / "bin", "mysqld", f"echo 'mysqld  Ver {version}'")
    monkeypatch.setattr(_mysql_programs, "_USUAL", ())
    monkeypatch.setenv("PATH", str(file.parent))
    oldest = ".".join(map(str, OLDEST[shown.partition(" ")[0]]))
    with pytest.raises(ServerError) as error:
        find_server(config_of(place, database="own"))
    assert f"{file} is {shown}, and pytest-arena needs {oldest} or newer" in error.value.cause
    assert error.value.why
    assert "ARENA_DATABASE=" in error.value.fix


def test_data_that_cannot_be_made(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason is the program's. Without any program the reason says so."""
    version = "case $* in *--version) echo 'mysqld  Ver 8.0.40 for Linux';; "
    words = "*) echo '0 [ERROR] no way' >&2; exit 1;; esac"
    program(place / "bin", "mysqld", version + words)
    monkeypatch.setattr(_mysql_programs, "_USUAL", ())
    monkeypatch.setenv("PATH", f"{place / 'bin'}:/bin")
    monkeypatch.setattr(_mysql_programs, "_folders", lambda: iter([place / "bin"]))
    with pytest.raises(Unavailable, match=r"mysqld of .* failed: 0 \[ERROR\] no way"):
        private_server(config_of(place))
    monkeypatch.setattr(_mysql_programs, "_folders", lambda: iter([]))
    with pytest.raises(Unavailable, match="neither mariadbd nor mysqld is installed"):
        private_server(config_of(place))


def test_a_program_that_does_not_run_is_named(tmp_path: Path) -> None:
    """In one line."""
    file = program(tmp_path, "mysqld", "exit 3")
    with pytest.raises(Unavailable, match=f"{file} does not run"):
        read_programs(file)


def test_the_end_of_a_private_server_names_its_log(tmp_path: Path) -> None:
    """The next run starts it again."""
    folder = PRIVATE_SERVERS.folder(tmp_path / "MariaDB-10.11.1-x")
    address = PRIVATE_SERVERS.address_of(folder)
    error: Any = failed("no database", MySQLFailure("gone", 2013), address)
    assert "private server of pytest-arena was killed" in error.why
    assert f"read {folder.beside('log')}" in error.fix

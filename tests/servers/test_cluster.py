"""Is there one private server for all, does it survive what kills a run, and does it end?"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_arena._postgresql._control import ControlFailure, open_control
from pytest_arena._postgresql.servers import _cluster
from pytest_arena._postgresql.servers._cluster import CLUSTERS
from pytest_arena._product._server_errors import server_is_down
from pytest_arena._product.servers import Unavailable, _places, _private_servers
from pytest_arena._product.servers._keeper import is_held
from pytest_arena._product.servers._server_programs import Account
from tests.servers.waiting import keeper_pid, lives, server_pid, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_arena._postgresql.servers._programs import PostgreSQLPrograms
    from pytest_arena._product.servers._private_servers import PrivateServer

ROOT = Path(__file__).parent.parent.parent
QUICK = 0.2  # seconds


@pytest.fixture
def alone(
    clusters_alone: Path, installed: PostgreSQLPrograms, cache: Path
) -> Iterator[PrivateServer]:
    """A cluster that a test may harm."""
    with closing(CLUSTERS.find(installed, cache=cache)) as found:
        yield found


@pytest.fixture
def starter(
    installed: PostgreSQLPrograms, cache: Path
) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Start a process that finds the cluster as soon as it is told to."""
    command = [sys.executable, "-m", "tests.servers.starter", str(installed.folder), str(cache)]
    processes: list[subprocess.Popen[str]] = []

    def start() -> subprocess.Popen[str]:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def again(installed: PostgreSQLPrograms, cache: Path) -> Callable[[], PrivateServer]:
    """Find the cluster once more."""
    return lambda: CLUSTERS.find(installed, cache=cache)


def begin(process: subprocess.Popen[str]) -> None:
    """Tell a process to find it."""
    assert process.stdin
    process.stdin.write("\n")
    process.stdin.flush()


def said(process: subprocess.Popen[str]) -> Path:
    """Which folder it found."""
    assert process.stdout
    return Path(process.stdout.readline().strip())


def asked(cluster: PrivateServer, question: str) -> list[tuple[object, ...]]:
    """What the server answers."""
    with closing(open_control(cluster.address)) as control:
        return control.rows(question)


def settings(cluster: PrivateServer, *names: str) -> dict[str, object]:
    """How the server is set."""
    listed = ", ".join(f"'{name}'" for name in names)
    rows = asked(cluster, f"SELECT name, setting FROM pg_settings WHERE name IN ({listed})")
    return {str(name): value for name, value in rows}


@pytest.mark.slow
def test_a_private_server_listens_on_no_port_and_syncs_nothing(cluster: PrivateServer) -> None:
    """It is set for databases that live for a test."""
    expected = {
        "listen_addresses": "",
        "fsync": "off",
        "dynamic_shared_memory_type": "mmap",
        "jit": "off",
        "autovacuum": "off",
        "wal_level": "minimal",
    }
    assert settings(cluster, *expected) == expected
    assert cluster.is_private
    assert cluster.shown.startswith("PostgreSQL 1")
    assert "a private server from /" in cluster.shown


@pytest.mark.slow
def test_a_private_server_knows_all_of_unicode(cluster: PrivateServer) -> None:
    """Bytes decide the order, on every machine."""
    assert asked(cluster, "SELECT upper('ä'), 'Z' < 'a', getdatabaseencoding()") == [
        ("Ä", True, "UTF8")
    ]


def test_nobody_else_may_enter(cluster: PrivateServer) -> None:
    """Not the folder of the data, nor that of the socket."""
    for folder in (cluster.folder.path, cluster.folder.data, cluster.folder.socket_folder):
        assert folder.stat().st_mode & 0o077 == 0
    assert cluster.folder.path.parent.stat().st_mode & 0o066 == 0
    assert cluster.folder.socket.is_socket()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become somebody else")
def test_root_runs_it_as_somebody_else(cluster: PrivateServer) -> None:
    """PostgreSQL refuses root; its process, its data and its socket's folder belong to a user."""
    server = CLUSTERS.account()
    pid = server_pid(cluster.folder)
    assert Path(f"/proc/{pid}").stat().st_uid == server.uid != 0
    assert cluster.folder.data.stat().st_uid == server.uid
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    assert "Groups:\t \n" in status


def test_a_second_process_finds_the_same_server(
    cluster: PrivateServer, starter: Callable[[], subprocess.Popen[str]]
) -> None:
    """It is neither started again nor made again."""
    pid = server_pid(cluster.folder)
    process = starter()
    begin(process)
    assert said(process) == cluster.folder.path
    assert server_pid(cluster.folder) == pid


@pytest.mark.slow
def test_two_processes_that_start_at_once_start_one_server_pitfall_074(
    clusters_alone: Path, starter: Callable[[], subprocess.Popen[str]]
) -> None:
    """The second waits for the first."""
    both = [starter(), starter()]
    for process in both:
        begin(process)
    found = {said(process) for process in both}
    assert len(found) == 1
    folder = CLUSTERS.folder(found.pop())
    told = subprocess.run(["ps", "-eww", "-o", "args"], capture_output=True, text=True, check=True)  # noqa: S607 - wherever ps is
    assert len([line for line in told.stdout.splitlines() if f"-D {folder.data}" in line]) == 1


@pytest.mark.slow
def test_a_server_that_was_killed_is_started_again(
    alone: PrivateServer, again: Callable[[], PrivateServer]
) -> None:
    """With what was in it; the stale postmaster.pid is no hindrance."""
    asked(alone, "SELECT 1")
    with closing(open_control(alone.address)) as control:
        control.run("CREATE DATABASE still_there")
    pid = server_pid(alone.folder)
    os.kill(pid, signal.SIGKILL)
    until(lambda: not is_held(alone.folder.beside("keeper")), "the keeper sees its end")
    assert (alone.folder.data / "postmaster.pid").exists()
    with closing(again()) as found:
        assert server_pid(found.folder) != pid
        assert ("still_there",) in asked(found, "SELECT datname FROM pg_database")


@pytest.mark.slow
def test_data_that_do_not_start_are_made_again(
    alone: PrivateServer, again: Callable[[], PrivateServer]
) -> None:
    """Whatever is broken in them."""
    _stop(alone)
    (alone.folder.data / "global" / "pg_control").write_bytes(b"broken")
    with closing(again()) as found:
        assert asked(found, "SELECT 1") == [(1,)]


@pytest.mark.slow
def test_data_of_before_a_restart_of_the_machine_are_made_again(
    alone: PrivateServer, again: Callable[[], PrivateServer]
) -> None:
    """Nobody knows what of them has reached the disk."""
    with closing(open_control(alone.address)) as control:
        control.run("CREATE DATABASE before_the_restart")
    _stop(alone)
    alone.folder.beside("boot").write_text("another boot", encoding="ascii")
    with closing(again()) as found:
        assert ("before_the_restart",) not in asked(found, "SELECT datname FROM pg_database")


@pytest.mark.slow
def test_it_stops_when_nobody_has_used_it_for_a_while(
    clusters_alone: Path, again: Callable[[], PrivateServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not while a process holds it, not while a client is connected; then all of it is gone."""
    monkeypatch.setattr(_private_servers, "_IDLE_SECONDS", QUICK)
    found = again()
    pid, keeper = server_pid(found.folder), keeper_pid(found.folder)
    time.sleep(0.6)  # three times as long as it waits for anybody: nothing may happen
    assert lives(pid)
    with closing(open_control(found.address)) as control:
        found.close()
        time.sleep(0.6)
        assert control.rows("SELECT 1") == [(1,)]
    until(lambda: not lives(pid), "the server stops")
    until(lambda: not lives(keeper), "its keeper ends")
    assert not found.folder.socket.exists()
    assert not (found.folder.data / "postmaster.pid").exists()
    with closing(again()) as started:
        assert server_pid(started.folder) != pid


@pytest.mark.slow
def test_a_run_that_was_killed_holds_nothing_pitfall_071(
    clusters_alone: Path, starter: Callable[[], subprocess.Popen[str]]
) -> None:
    """The server outlives it, for the next run; and stops where none comes."""
    process = starter()
    begin(process)
    folder = CLUSTERS.folder(said(process))
    pid = server_pid(folder)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert lives(pid)
    assert lives(keeper_pid(folder))
    until(lambda: not lives(pid), "the server stops")


@pytest.mark.slow
def test_a_server_whose_keeper_was_killed_gets_another(
    clusters_alone: Path, again: Callable[[], PrivateServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As soon as nobody uses it: it is started anew, with what was in it, and stops as usual."""
    monkeypatch.setattr(_private_servers, "_IDLE_SECONDS", QUICK)
    found = again()
    pid, keeper = server_pid(found.folder), keeper_pid(found.folder)
    with closing(open_control(found.address)) as control:
        control.run("CREATE TABLE still_there AS SELECT 1")
    os.kill(keeper, signal.SIGKILL)
    until(lambda: not is_held(found.folder.beside("keeper")), "its lock is free")
    again().close()
    assert server_pid(found.folder) == pid  # somebody uses it
    found.close()
    with closing(again()) as found_again:
        assert server_pid(found_again.folder) != pid
        assert asked(found_again, "SELECT * FROM still_there") == [(1,)]
    until(lambda: not is_held(found.folder.beside("keeper")), "the keeper ends")
    assert not found.folder.socket.exists()


@pytest.mark.slow
def test_a_server_whose_folder_was_removed_ends(
    clusters_alone: Path, again: Callable[[], PrivateServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory may be tidied up by hand. The next run begins anew."""
    monkeypatch.setattr(_private_servers, "_IDLE_SECONDS", QUICK)
    with closing(again()) as found:
        pid, keeper = server_pid(found.folder), keeper_pid(found.folder)
        # In one step: the server goes on writing into it meanwhile.
        removed = found.folder.path.rename(clusters_alone / "removed")
        shutil.rmtree(removed, ignore_errors=True)
        until(lambda: not lives(pid), "the server ends")
        until(lambda: not lives(keeper), "the keeper ends")
    with closing(again()) as found:
        assert asked(found, "SELECT 1") == [(1,)]


@pytest.mark.slow
def test_a_fork_does_not_give_the_parents_hold_away(alone: PrivateServer) -> None:
    """A child that closes it closes its own share."""
    child = os.fork()
    if not child:
        alone.close()
        os._exit(0)
    os.waitpid(child, 0)
    assert is_held(alone.folder.beside("used"))
    alone.close()
    alone.close()
    assert not is_held(alone.folder.beside("used"))


def test_clusters_that_nobody_has_used_for_weeks_are_removed(
    clusters: Path, cluster: PrivateServer, installed: PostgreSQLPrograms, cache: Path
) -> None:
    """Those of programs that are gone; not the others, nor one that somebody holds."""
    parent = cluster.folder.path.parent
    for name in ("14.0-old", "14.0-new"):
        (parent / name / "data").mkdir(parents=True)
        (parent / f"{name}.used").touch()
    os.utime(parent / "14.0-old.used", (0, 0))
    os.utime(cluster.folder.beside("used"), (0, 0))
    CLUSTERS.find(installed, cache=cache).close()
    assert [path.name for path in parent.glob("14.0-old*")] == ["14.0-old.lock"]
    assert (parent / "14.0-new" / "data").exists()
    assert cluster.folder.data.exists()
    shutil.rmtree(parent / "14.0-new")
    for left in parent.glob("14.0-*"):
        left.unlink()


@pytest.mark.slow
def test_a_server_that_does_not_start_says_its_last_words(
    clusters_alone: Path,
    installed: PostgreSQLPrograms,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Those of the log."""
    monkeypatch.setitem(_cluster._SETTINGS, "max_connections", "many")
    with pytest.raises(Unavailable, match=r"did not start: .*max_connections"):
        CLUSTERS.find(installed, cache=cache)


def test_initdb_that_fails_says_why(
    clusters_alone: Path, installed: PostgreSQLPrograms, tmp_path: Path
) -> None:
    """Its last line."""
    folder = tmp_path / "bin"
    folder.mkdir()
    tmp_path.chmod(0o755)
    (folder / "initdb").write_text("#!/bin/sh\necho 'initdb: no way' >&2; exit 1\n")
    (folder / "initdb").chmod(0o755)
    (folder / "postgres").write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 15.0'\n")
    (folder / "postgres").chmod(0o755)
    with pytest.raises(Unavailable, match=r"initdb of .* failed: "):
        CLUSTERS.find(replace(installed, folder=folder), cache=tmp_path)


def test_a_folder_of_somebody_else_is_not_used(
    clusters_alone: Path, installed: PostgreSQLPrograms, cache: Path, tmp_path: Path
) -> None:
    """It may be a trap: in a place that is open to all."""
    (clusters_alone / _places._own_name("pg")).symlink_to(tmp_path)
    with pytest.raises(Unavailable, match="belongs to another user"):
        CLUSTERS.find(installed, cache=cache)


def test_a_long_path_has_its_socket_elsewhere(tmp_path: Path) -> None:
    """A socket's path has 103 bytes on macOS."""
    short, long = tmp_path / "a", tmp_path / ("ä" * 60) / "a"
    assert CLUSTERS.folder(short).socket_folder == short
    elsewhere = CLUSTERS.folder(long).socket
    assert len(os.fsencode(elsewhere)) <= 103
    assert elsewhere.parent.name == long.name


def test_a_server_with_its_socket_elsewhere_is_known_as_ours(tmp_path: Path) -> None:
    """Its end is told as that of a private server, with its log."""
    folder = CLUSTERS.folder(tmp_path / ("ä" * 60) / "a")
    address = CLUSTERS.address_of(folder)
    live = replace(address, database="x")
    error = server_is_down("no database", ControlFailure("gone"), live, "another server")
    assert "private server of pytest-arena was killed" in str(error)
    assert f"read {folder.beside('log')}" in str(error)


def test_small_memory_is_left_alone(
    clean_environment: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Containers often have 64 MB: then the cache, or what another user may enter."""
    monkeypatch.setattr(_places, "_ROOM_NEEDED", 1 << 60)
    ours = _places.parents("pg", tmp_path, Account(1, 1, is_other=False))
    assert ours[0].is_relative_to(tmp_path)
    roots = _places.parents("pg", tmp_path, Account(1, 1, is_other=True))
    assert roots[0].is_relative_to("/var/tmp")  # noqa: S108 - nothing is made there


def _stop(cluster: PrivateServer) -> None:
    os.kill(server_pid(cluster.folder), signal.SIGINT)
    until(lambda: not is_held(cluster.folder.beside("keeper")), "it stops")

"""WAL mode: an app that copies or overwrites its own files; all processes see one database."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_arena._sqlite._copy import Copy
from pytest_arena.errors import IsolationError
from tests.example import fastapi_example
from tests.isolation.conformance import PYTHON, World, new_world

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="locks of descriptors are Linux's")

COUNT = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
print(connection.execute("SELECT count(*) FROM plain").fetchone()[0])
connection.close()
"""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A database in WAL mode, after a level in which the app wrote."""
    with closing(new_world(Copy, tmp_path, "wal")) as world:
        world.isolation.enter()
        world.connect().execute("INSERT INTO plain VALUES (7)")
        assert world.isolation.leave()
        yield world


def rows_of_other_process(world: World) -> int:
    """Return how many rows a process counts that opens the database and closes it."""
    command = [*PYTHON, COUNT, str(world.live)]
    return int(subprocess.run(command, check=True, capture_output=True).stdout)


def copied(world: World) -> None:
    """As a backup endpoint does. Closing the copied file drops SQLite's locks on it."""
    shutil.copy(world.live, world.live.with_name("backup.db"))


def overwritten_by_a_copy(world: World) -> None:
    """As an endpoint that restores a backup."""
    copied(world)
    with closing(sqlite3.connect(world.live.with_name("backup.db"))) as backup:
        backup.execute("DELETE FROM plain")
        backup.commit()
    world.live.write_bytes(world.live.with_name("backup.db").read_bytes())


def overwritten_by_an_export(world: World) -> None:
    """By a database of another journal mode."""
    other = world.live.with_name("other.db")
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE plain (a)")
    world.live.write_bytes(other.read_bytes())


def emptied(world: World) -> None:
    """As ``open(path, "wb")`` does."""
    world.live.write_bytes(b"")


def removed(world: World) -> None:
    """The log alone, under the app's open connections."""
    for ending in ("-wal", "-shm"):
        Path(f"{world.live}{ending}").unlink()


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize(
    "lose", [overwritten_by_a_copy, overwritten_by_an_export, emptied, removed]
)
def test_the_next_level_begins_with_what_was_there(
    lose: Callable[[World], None], world: World, *, before: bool
) -> None:
    """Whether the app has written in the level or not."""
    content = world.dump()
    world.isolation.enter()
    if before:
        world.connect().execute("INSERT INTO plain VALUES (8)")
    lose(world)
    leave(world)
    assert world.dump() == content
    for _ in range(2):
        world.isolation.enter()
        world.connect().execute("INSERT INTO plain VALUES (8)")
        assert rows_of_other_process(world) == 4
        assert world.isolation.leave()
        assert world.dump() == content


def leave(world: World) -> None:
    """As levels are left: by force where the file is lost. Connections of engines are dropped."""
    try:
        world.isolation.leave()
    except IsolationError as error:
        if "its log (-wal, -shm) was removed" not in error.what:
            raise
        world.isolation.leave_by_force()
    world.disconnect()


def test_a_wider_fixture_that_removes_all_and_makes_it_anew(world: World) -> None:
    """Its database is there for its tests, as it is where the log stays."""
    world.isolation.enter()
    world.disconnect()
    for ending in ("", "-wal", "-shm"):
        Path(f"{world.live}{ending}").unlink()
    world.connect().execute("CREATE TABLE mine (a)")
    mine = world.dump()
    for _ in range(2):
        world.isolation.enter()
        world.connect().execute("INSERT INTO mine VALUES (1)")
        assert world.isolation.leave()
        assert world.dump() == mine


def test_a_level_that_turns_the_log_on_and_loses_it(tmp_path: Path) -> None:
    """Closing a copied file drops SQLite's locks. Then another process removes the log."""
    with closing(new_world(Copy, tmp_path, "delete")) as world:
        content = world.dump()
        world.isolation.enter()
        world.mode = "wal"
        world.disconnect()
        world.connect().execute("INSERT INTO plain VALUES (8)")
        copied(world)
        rows_of_other_process(world)
        leave(world)
        assert world.dump() == content


RESTORES = """
import shutil
import sqlite3

import app
import pytest
from app import Dancer, sync_engine
from sqlalchemy import event, insert, make_url, select

MODES = []


@event.listens_for(sync_engine, "connect")
def set_mode(connection, _):
    for mode in MODES:
        connection.execute(f"PRAGMA journal_mode = {mode}")


def add(name):
    with sync_engine.begin() as connection:
        connection.execute(insert(Dancer).values(name=name))


def names():
    with sync_engine.connect() as connection:
        return list(connection.scalars(select(Dancer.name)))


def restores_a_backup(file, folder):
    shutil.copyfile(folder / "backup.db", file)


def puts_another_database_there(file, folder):
    with sqlite3.connect(folder / "other.db") as connection:
        connection.execute("CREATE TABLE other (id INTEGER)")
    connection.close()
    shutil.copyfile(folder / "other.db", file)


def test_overwrites(arena, tmp_path):
    sync_engine.dispose()
    file = make_url(arena.url).database
    add("before")
    shutil.copyfile(file, tmp_path / "backup.db")
    add("after")
    OVERWRITE(file, tmp_path)


@pytest.mark.parametrize("turn", range(3))
def test_next(arena, turn):
    assert names() == ["Sand"]
    add("more")
    assert names() == ["Sand", "more"]
"""
SYNC = """
from sqlalchemy import create_engine

sync_engine = create_engine("sqlite:///dev.db")
"""


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["rollback journal", "wal"])
@pytest.mark.parametrize("how", ["restores_a_backup", "puts_another_database_there"])
def test_the_next_test_reads_the_restored_file_after_one_that_overwrites_it(
    tmp_path: Path, mode: str, how: str
) -> None:
    """A connection of the pool has pages in its cache, under a change counter that comes again."""
    tests = RESTORES.replace("OVERWRITE", how)
    if mode == "wal":
        tests = tests.replace("MODES = []", 'MODES = ["wal"]')
    example = fastapi_example(tmp_path)
    project = example.with_files(app=example.files["app.py"] + SYNC, test_it=tests)
    project.run("-p", "no:randomly").expect(passed=4)

"""A file that a test deletes, a disk that is full, a lock that stays: the next test is whole."""

from __future__ import annotations

import errno
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_arena._product import Held
from pytest_arena._sqlite import _copy
from pytest_arena._sqlite._copy import Copy
from pytest_arena.errors import IsolationError
from tests.example import fastapi_example
from tests.isolation.conformance import World, dump, new_world

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(params=["delete", "wal"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """A database with a level that has rows of its own."""
    world = new_world(Copy, tmp_path, request.param)
    world.isolation.enter()
    world.connect().execute("INSERT INTO plain VALUES (7)")
    yield world
    world.close()


def deleted(world: World) -> None:
    """As a fixture that closes all, and removes the file."""
    world.disconnect()
    world.live.unlink()


def made_anew(world: World) -> None:
    """As one that makes its tables again afterwards."""
    deleted(world)
    world.connect().execute("CREATE TABLE mine (a)")


@pytest.mark.parametrize("lose", [deleted, made_anew])
def test_a_file_that_a_test_loses_is_back_by_force(
    lose: Callable[[World], None], world: World
) -> None:
    """Isolation goes on with the new file, at the same path, and for all levels."""
    before = world.dump()
    world.isolation.enter()
    lose(world)
    assert not world.isolation.is_clean()
    assert not world.isolation.is_untouched()
    generation = world.isolation.generation
    with pytest.raises(IsolationError, match="'live' cannot be read or written"):
        world.isolation.leave()
    generation = world.isolation.generation
    world.isolation.leave_by_force()
    assert world.isolation.generation > generation
    assert world.dump() == before
    for _ in range(2):
        world.isolation.enter()
        world.connect().execute("DELETE FROM dancers")
        assert world.isolation.leave()
        assert world.dump() == before


def restored_from_a_backup(world: World) -> None:
    """By another database with the same change counter, as a restore of a backup does."""
    counter = world.live.read_bytes()[24:28]
    world.connect().execute("DELETE FROM dancers")
    world.disconnect()
    changed = world.live.read_bytes()
    world.isolation.leave()
    world.isolation.enter()
    world.disconnect()
    world.live.write_bytes(changed[:24] + counter + changed[28:92] + counter + changed[96:])


@pytest.mark.parametrize("world", ["delete"], indirect=True)
def test_bytes_that_a_fixture_writes_are_there_for_its_tests(world: World) -> None:
    """The levels above begin with the file that the fixture has written."""
    first = world.dump()
    world.isolation.enter()
    restored_from_a_backup(world)
    mine = world.dump()
    assert mine != first
    for _ in range(2):
        world.isolation.enter()
        world.connect().execute("INSERT INTO dancers (name) VALUES ('Grain')")
        assert world.isolation.leave()
        assert world.dump() == mine
    assert world.isolation.leave()
    assert world.dump() == first


def test_a_database_that_a_fixture_makes_anew_is_there_for_its_tests(world: World) -> None:
    """As a fixture of the session does that begins with an empty file."""
    first = world.dump()
    world.isolation.enter()
    made_anew(world)
    mine, generation = world.dump(), world.isolation.generation
    for _ in range(2):
        world.isolation.enter()
        world.connect().executescript("INSERT INTO mine VALUES (1); CREATE TABLE other (a)")
        assert world.isolation.leave()
        assert world.dump() == mine
    assert world.isolation.generation == generation + 1
    assert world.isolation.leave()
    assert world.dump() == first


class PathOnFullDisk(type(Path())):  # type: ignore[misc]  # of this system
    """A path whose disk is full."""

    def write_bytes(self, data: bytes) -> int:
        """Raise."""
        raise OSError(errno.ENOSPC, "No space left on device", data[:0])


def test_a_full_disk_is_said_and_mended_when_there_is_room(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each level that would start on the lost one refuses to; the stack stays in step."""
    before = world.dump()
    world.isolation.enter()
    made_anew(world)
    with monkeypatch.context() as patched:
        patched.setattr(_copy, "Path", PathOnFullDisk)
        with pytest.raises(IsolationError) as said:
            world.isolation.leave_by_force()
        assert "the disk is full" in said.value.cause
        for _ in range(2):
            with pytest.raises(IsolationError, match="No space left"):
                world.isolation.enter()
    world.isolation.enter()
    assert world.dump() == before
    world.connect().execute("DELETE FROM dancers")
    assert world.isolation.leave()
    assert world.dump() == before
    assert world.isolation.leave()
    with pytest.raises(IndexError):
        world.isolation.leave()


def test_who_could_write_now_is_known(world: World) -> None:
    """A reader keeps nobody from writing where there is a log."""
    reader = world.connect()
    assert world.isolation.is_free()
    reader.executescript("BEGIN; SELECT * FROM plain")
    half_read = reader.execute("SELECT * FROM plain")
    half_read.fetchone()
    assert world.isolation.is_free() == world.has_wal
    half_read.close()
    reader.rollback()
    assert world.isolation.is_free()
    with suppress(Held):
        world.isolation.enter()
    assert dump(reader) == world.dump()


CONFTEST = """
from pytest_arena import _process

KEPT = []
pauses = []

def rest(seconds):
    pauses.append(seconds)
    if KEPT:
        KEPT.pop().close()

_process.rest = rest
"""

STORY = """
import os, sqlite3
import conftest
import pytest
from sqlalchemy import NullPool, create_engine, text
from app import Base, Dancer

@pytest.fixture
def engine(arena):
    return create_engine(arena.url.replace("+aiosqlite", ""), connect_args={"timeout": 0})

def add(engine, name):
    with engine.begin() as connection:
        connection.execute(text("insert into dancers (name) values (:name)"), {"name": name})

def names(engine):
    with engine.connect() as connection:
        return connection.scalars(text("select name from dancers")).all()

@pytest.fixture(autouse=True)
def whole(engine):
    assert names(engine) == ["Sand"]

RAW = []

def test_01_a_reader_that_ends_soon(engine):
    add(engine, "Grain")
    raw = sqlite3.connect(engine.url.database)
    RAW.append(raw)
    conftest.KEPT.append(raw.execute("select 1 from dancers"))  # half read, closed at a pause

def test_02_after_it(engine):
    assert conftest.pauses == [0.002]
    assert RAW[0].execute("select name from dancers").fetchall() == [("Sand",)]
    RAW.pop().close()

def test_03_a_leaked_reader_that_wrote_nothing(engine):
    connection = engine.connect()
    cursor = connection.connection.cursor()
    cursor.execute("select 1 from dancers union all select 2")
    cursor.fetchone()
    RAW.append((connection, cursor))

def test_04_after_it(engine):
    add(engine, "Grain")

def test_05_a_file_that_is_deleted(engine):
    engine.dispose()
    os.remove(engine.url.database)
    Base.metadata.create_all(engine)
    add(engine, "Grain")

@pytest.mark.parametrize("turn", range(2))
def test_06_after_it(engine, turn):
    add(engine, "Grain")
"""


@pytest.mark.slow
def test_the_next_test_is_whole_and_the_run_ends_as_it_should(tmp_path: Path) -> None:
    """The summary says what had to be done, and pytest's own is there."""
    example = fastapi_example(tmp_path).with_files(conftest=CONFTEST, test_story=STORY)
    run = example.run("-rA", "-W", "ignore").expect(status=0, passed=7)
    run.says("dev: locked by a connection that pytest-arena does not know or cannot end")
    run.says("the file was deleted or replaced; a new file has replaced it.")
    run.says("Connections of sqlite3 itself and of other processes keep using the old file")

"""What only SQLite has: other processes with the same file, and files that a test loses."""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from typing import TYPE_CHECKING

import pytest

from pytest_arena._product import Held
from pytest_arena.errors import IsolationError
from tests.isolation.world_sqlite import MANY, OtherProcess, SQLiteWorld

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.isolation.makers import Makers


@pytest.fixture(params=["copy on sqlite", "copy on sqlite in wal"])
def world(makers: Makers, request: pytest.FixtureRequest) -> Iterator[SQLiteWorld]:
    with makers.world(request.param) as world:
        assert isinstance(world, SQLiteWorld)
        yield world


@pytest.fixture
def other(world: SQLiteWorld) -> Iterator[OtherProcess]:
    with closing(OtherProcess(world.live)) as other:
        yield other


def test_another_process_sees_each_test(world: SQLiteWorld, other: OtherProcess) -> None:
    """What it has committed is undone, too."""
    hand = world.connect()
    for number in range(3):
        world.isolation.enter()
        hand.execute(f"INSERT INTO plain VALUES ({number})")
        assert other.do(f"INSERT INTO plain VALUES ({number} + 10)") == []
        assert other.do("SELECT a FROM plain WHERE a >= 0") == [[1], [1], [number], [number + 10]]
        assert world.isolation.leave()
    assert other.do("PRAGMA integrity_check") == [["ok"]]


def test_a_large_changed_file_is_read_only_on_request(world: SQLiteWorld) -> None:
    """Else each request would cost its reading."""
    world.isolation.enter()
    hand = world.connect()
    hand.execute("CREATE TABLE large AS SELECT zeroblob(2000000)")
    hand.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert world.isolation.moment() is None
    assert world.isolation.moment(exact=True) is not None


@pytest.mark.parametrize("is_committed", [False, True])
def test_a_process_that_is_killed_in_a_transaction(
    world: SQLiteWorld, other: OtherProcess, *, is_committed: bool
) -> None:
    """Half of it is in the file."""
    before = world.content()
    world.isolation.enter()
    if is_committed:
        other.do("INSERT INTO plain VALUES (8)")
    other.do("PRAGMA cache_size = 2", "BEGIN", f"INSERT INTO plain {MANY} SELECT i FROM n")
    other.do("DELETE FROM dancers", "DELETE FROM scores")
    other.close()
    assert world.isolation.leave() or not is_committed
    assert world.content() == before


def test_locks_of_the_process_are_kept(world: SQLiteWorld) -> None:
    """No step of pytest-arena takes a lock from a connection of the app."""
    writer = world.connect()
    before = world.content()
    world.isolation.enter()
    writer.execute("BEGIN IMMEDIATE")
    world.isolation.moment()
    with suppress(Held):
        world.isolation.enter()
        world.isolation.forget()
    with pytest.raises(Held):
        world.isolation.leave()
    with closing(OtherProcess(world.live)) as other:
        assert other.do("INSERT INTO plain VALUES (1)") == "database is locked"
    writer.rollback()
    world.isolation.leave()
    assert world.content() == before


@pytest.mark.parametrize("is_known", [False, True])
def test_a_reader_keeps_what_it_reads(world: SQLiteWorld, *, is_known: bool) -> None:
    """It holds the level, or does not stop it."""
    world.usage.has_transaction = is_known
    reader, hand = world.connect(), world.connect()
    before = world.content()
    world.isolation.enter()
    hand.execute("INSERT INTO plain VALUES (4)")
    reader.execute("BEGIN")
    seen = reader.rows("SELECT a FROM plain")
    with suppress(Held):
        world.isolation.leave()
    assert reader.rows("SELECT a FROM plain") == seen
    reader.execute("COMMIT")
    if world.isolation.depth:
        world.isolation.leave()
    assert reader.content() == world.content() == before


def deleted(world: SQLiteWorld) -> None:
    """A fixture closes all connections and removes the file."""
    for hand in world.usage.hands:
        hand.close()
    world.live.unlink()


def created_again(world: SQLiteWorld) -> None:
    """Then it creates its tables again."""
    deleted(world)
    world.connect().execute("CREATE TABLE mine (a)")


@pytest.mark.parametrize("lose", [deleted, created_again])
def test_a_file_that_a_test_loses_is_restored_by_force(
    world: SQLiteWorld, lose: Callable[[SQLiteWorld], None]
) -> None:
    """At the same path, for all levels."""
    world.isolation.enter()
    world.connect().execute("INSERT INTO plain VALUES (7)")
    before = world.content()
    world.isolation.enter()
    lose(world)
    with pytest.raises(IsolationError, match="'live' cannot be read or written"):
        world.isolation.leave()
    world.isolation.leave_by_force()
    assert world.content() == before
    world.isolation.enter()
    world.connect().execute("DELETE FROM dancers")
    assert world.isolation.leave()
    assert world.content() == before


def test_a_saved_file_is_whole(world: SQLiteWorld) -> None:
    """It needs no log."""
    world.connect().execute("INSERT INTO plain VALUES (4)")
    file = world.live.with_name("saved.db")
    world.isolation.save(file)
    with closing(sqlite3.connect(f"file:{file}?mode=ro&immutable=1", uri=True)) as saved:
        assert world.content_of(saved) == world.content()
    world.close()
    assert not world.live.exists()


def test_a_writer_in_the_middle_of_a_commit(world: SQLiteWorld) -> None:
    """It prevents that the file is read. In WAL mode readers go on."""
    world.isolation.enter()
    hand = world.connect()
    hand.execute("BEGIN EXCLUSIVE")
    if world.mode == "wal":
        assert world.isolation.moment() is not None
        return
    with pytest.raises(Held):
        world.isolation.moment()
    with pytest.raises(Held, match="locked"):
        world.isolation.rows_changed()
    hand.execute("COMMIT")
    assert world.isolation.moment(exact=True) is not None


def test_rows_of_changed_tables(world: SQLiteWorld) -> None:
    """A table has its new columns."""
    hand = world.connect()
    world.isolation.enter()
    hand.run(
        "CREATE TABLE more (a PRIMARY KEY, b); INSERT INTO more VALUES (1, x'00'); "
        "DROP TABLE scores; ALTER TABLE plain ADD COLUMN b DEFAULT 'new'"
    )
    found = {rows.table: (rows.removed, rows.added) for rows in world.isolation.rows_changed()}
    assert found["more"] == ((), ((1, b"\x00"),))
    assert found["scores"] == ((("x", 1, 9.5),), ())
    assert {row[1] for row in found["plain"][1]} == {"new"}


def test_functions_and_extensions_of_the_app_are_not_needed(world: SQLiteWorld) -> None:
    """What they compute is left out."""
    hand = world.connect()
    hand.raw.create_function("shout", 1, str.upper, deterministic=True)
    hand.execute("CREATE TABLE loud (id INTEGER PRIMARY KEY, a, b AS (shout(a)))")
    world.isolation.enter()
    hand.execute("INSERT INTO loud (a) VALUES ('x')")
    [loud] = world.isolation.rows_changed()
    assert (loud.table, loud.added) == ("loud", ((1, "x"),))

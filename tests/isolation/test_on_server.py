"""What both isolations on a server must do."""

from __future__ import annotations

import secrets
import threading
from contextlib import closing
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from pytest_arena._product import Held
from tests.isolation.conformance import disposed_engines, nested_levels
from tests.isolation.server_world import ServerWorld
from tests.servers.postgresql import rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_arena._postgresql.registry import ServerRegistry

CHANGES = {
    "insert": "INSERT INTO plain VALUES (4)",
    "update": "UPDATE dancers SET style = NULL WHERE id = 1",
    "delete": "DELETE FROM scores",
    "truncate": "TRUNCATE plain",
    "unlogged": "INSERT INTO unlogged VALUES (2)",
    "rolled back": "BEGIN; INSERT INTO dancers (name) VALUES ('G'); ROLLBACK",
    "nextval": "SELECT nextval('tickets')",
    "setval": "SELECT setval('tickets', 7)",
    "ddl": "CREATE TABLE new (a int)",
    "column": "ALTER TABLE plain ADD COLUMN b int",
    "drop": "DROP VIEW named",
    "function": "CREATE OR REPLACE FUNCTION twice(int) RETURNS int LANGUAGE sql AS 'SELECT 3 * $1'",
    "comment": "COMMENT ON TABLE plain IS 'changed'",
    "grant": "GRANT SELECT ON plain TO PUBLIC",
    "large object": "SELECT lo_from_bytea(4242, 'c')",
    "schema": "CREATE SCHEMA tenant",
    "extended statistics": "CREATE STATISTICS s ON judge, round FROM scores",
    "materialized": "CREATE MATERIALIZED VIEW m AS SELECT 1 AS a",
}


_ROWS = ("insert", "update", "delete", "truncate", "unlogged")
_NUMBERS = ("rolled back", "nextval", "setval")  # they move without anything being committed


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for what another session does."""
    pause = threading.Event()
    for _ in range(1000):
        if condition():
            return
        pause.wait(0.005)
    pytest.fail("it does not come")


@pytest.fixture(params=["clone", "undo"])
def world(
    own: ServerRegistry, template: str, request: pytest.FixtureRequest
) -> Iterator[ServerWorld]:
    """A database of the test's own, dropped at its end."""
    with closing(ServerWorld.of(own, template, request.param)) as world:
        yield world


@pytest.mark.parametrize("check", [nested_levels, disposed_engines], ids=["nested", "disposed"])
def test_levels_are_as_on_sqlite(check: Callable[[Any], None], world: ServerWorld) -> None:
    """Nested levels, and engines that were disposed of."""
    check(world)


def test_whatever_is_written_is_taken_back(world: ServerWorld) -> None:
    """Rows, sequences, DDL, comments, grants, large objects, unlogged tables: none is missed."""
    hand = world.connect()
    before = hand.dump()
    world.isolation.enter()  # asked once: from here on nobody has a connection between levels
    for kind, script in CHANGES.items():
        world.isolation.enter()
        hand.executescript(script)
        assert not world.isolation.is_clean(), kind
        if kind in _ROWS or (kind not in _NUMBERS and world.isolation.has_journal):
            assert not world.isolation.is_untouched(), kind
        assert world.isolation.leave(), kind
    assert world.dump() == before
    world.isolation.leave()
    assert hand.dump() == before


def test_a_forgotten_level_belongs_to_the_one_below(world: ServerWorld) -> None:
    """What was written in a level that was forgotten belongs to the one below."""
    hand = world.connect()
    before = hand.dump()
    world.isolation.enter()
    world.isolation.enter()
    hand.execute("INSERT INTO plain VALUES (9)")
    world.isolation.forget()
    assert not world.isolation.is_clean()
    assert world.isolation.leave()
    assert hand.dump() == before


PREPARED = {
    "rows": "INSERT INTO plain VALUES (3)",
    "locks of rows": "SELECT * FROM plain FOR UPDATE",
    "an advisory lock": "SELECT pg_advisory_xact_lock(7)",
    "nothing": "SELECT 1",
}


@pytest.mark.parametrize("work", PREPARED.values(), ids=PREPARED)
@pytest.mark.slow
def test_a_prepared_transaction_ends_with_its_level(world: ServerWorld, work: str) -> None:
    """It has no session that could end, and holds its locks for all later tests."""
    name = f"left_{secrets.token_hex(6)}"
    hand = world.connect()
    before = hand.dump()
    for rows_of_test in ("", "; INSERT INTO plain VALUES (4)"):
        world.isolation.enter()
        hand.executescript(f"BEGIN; {work}; PREPARE TRANSACTION '{name}'{rows_of_test}")
        world.isolation.leave()
        here = "gid = '{name}' AND database = '{database}'"
        live = world.isolation.address.database
        where = here.format(name=name, database=live)
        assert rows(f"SELECT gid FROM pg_prepared_xacts WHERE {where}") == []
        assert world.own.rest()
        assert hand.dump() == before


def test_an_open_writer_holds_the_level_p88(world: ServerWorld) -> None:
    """A transaction that is still open holds the level, and never commits into the next."""
    writer, hand = world.connect(), world.connect()
    before = hand.dump()
    world.isolation.enter()
    writer.executescript("BEGIN; INSERT INTO plain VALUES (4)")
    old = writer.raw
    pid = old.info.backend_pid
    assert world.isolation.writers() == {pid}
    assert not world.isolation.is_clean()
    assert not world.isolation.is_free()
    with pytest.raises(Held, match=str(pid)):
        world.isolation.leave()
    hand.execute("SELECT 1")
    world.isolation.end(pid, world.isolation.live.name)
    wait_until(lambda: not world.isolation.writers())
    world.isolation.leave()
    assert world.dump() == before
    with pytest.raises(psycopg.OperationalError):
        old.execute("COMMIT")


def test_a_wider_transaction_goes_on(world: ServerWorld) -> None:
    """Nothing was committed, so that the level can be forgotten."""
    writer = world.connect()
    writer.executescript("BEGIN; INSERT INTO plain VALUES (4)")
    world.isolation.enter()
    assert world.isolation.is_untouched()
    assert not world.isolation.is_clean()
    with pytest.raises(Held):
        world.isolation.leave()
    world.isolation.forget()
    assert writer.execute("SELECT count(*) FROM plain").fetchone() == (4,)
    world.uses.number += 1
    writer.execute("COMMIT")
    world.isolation.enter()
    assert writer.execute("SELECT count(*) FROM plain").fetchone() == (4,)


def test_a_level_is_left_by_force(world: ServerWorld) -> None:
    """By force it is taken back whoever holds it; a reader holds nothing, and is cut off."""
    hand, before = world.connect(), world.dump()
    world.isolation.enter()
    holder, reader = world.connect(), world.connect()
    holder.executescript("BEGIN; LOCK TABLE plain; DELETE FROM dancers")
    reader.executescript("BEGIN; SELECT * FROM scores")
    generation, old = world.isolation.generation, holder.raw
    with pytest.raises(Held):
        world.isolation.leave()
    world.isolation.leave_by_force()
    assert world.isolation.generation > generation
    assert hand.dump() == before
    assert world.own.rest()
    with pytest.raises(psycopg.OperationalError):
        old.execute("COMMIT")


def test_threads_write_at_once_p95(world: ServerWorld) -> None:
    """Four threads that write at once, each on a connection of its own."""
    hands = [world.connect() for _ in range(4)]
    before = hands[0].dump()

    def work(connection: psycopg.Connection[object]) -> None:
        for number in range(5):
            with connection.transaction():
                connection.execute("INSERT INTO plain VALUES (%s)", [number])

    for _ in range(2):
        world.isolation.enter()
        threads = [threading.Thread(target=work, args=[hand.raw]) for hand in hands]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert hands[0].execute("SELECT count(*) FROM plain").fetchone() == (3 + 20,)
        assert world.isolation.leave()
    assert hands[1].dump() == before


def test_a_level_has_another_content(world: ServerWorld) -> None:
    """A level with another content, an empty one too; the level below stays what it was."""
    hand = world.connect()
    before = hand.dump()
    tables = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace"
    world.isolation.enter()
    world.isolation.replace(None)
    assert hand.execute(tables).fetchone() == (0,)
    world.isolation.enter()
    hand.execute("CREATE TABLE other (a int)")
    world.isolation.leave()
    assert hand.execute(tables).fetchone() == (0,)
    world.isolation.replace(world.template)
    assert hand.dump() == before
    world.isolation.leave()
    assert hand.dump() == before


@pytest.mark.slow
def test_a_database_is_kept_for_a_look(world: ServerWorld) -> None:
    """At once where nobody is inside a transaction; else when the level is left."""
    hand, reader = world.connect(), world.connect()
    world.isolation.enter()
    hand.execute("INSERT INTO plain VALUES (77)")
    now = world.isolation.save("first")
    assert rows("SELECT count(*) FROM plain WHERE a = 77", now) == [(1,)]
    reader.executescript("BEGIN; SELECT 1")
    then = world.isolation.save("second")
    assert world.isolation.save("second") == then
    assert reader.execute("SELECT count(*) FROM plain WHERE a = 77").fetchone() == (1,)
    assert not world.isolation.is_clean()
    assert world.isolation.leave()
    assert rows("SELECT count(*) FROM plain WHERE a = 77", then) == [(1,)]
    assert hand.execute("SELECT count(*) FROM plain WHERE a = 77").fetchone() == (0,)
    kept = {one.name: one.thing().title for one in world.own.listed() if one.kind == "kept"}
    assert kept.items() >= {now: "first", then: "second"}.items()

"""``clone`` keeps what the seam promises, on a real server; and it is never falsely clean."""

from __future__ import annotations

import secrets
import threading
from contextlib import closing, suppress
from typing import TYPE_CHECKING, cast

import psycopg
import pytest

from pytest_arena._isolation import Clone, Held
from pytest_arena.errors import IsolationError
from tests.isolation import conformance
from tests.isolation.clone_world import SCHEMA, ServerWorld
from tests.servers.postgresql import (
    connect,
    names_on_server,
    own_databases,
    own_registry,
    rows,
    run,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_arena._own import OwnDatabases


@pytest.fixture(scope="module")
def own() -> Iterator[OwnDatabases]:
    """One run for all tests of this module."""
    with own_registry() as registry, own_databases(registry) as own:
        yield own


@pytest.fixture(scope="module")
def template(own: OwnDatabases) -> str:
    """A database with something of everything."""
    name = own.create("building")
    run(*[part for part in SCHEMA.split(";") if part.strip()], database=name)
    own.freeze(name)
    return own.finish_template(name, shelf="dancers", manifest="")


@pytest.fixture
def world(own: OwnDatabases, template: str) -> Iterator[ServerWorld]:
    """A database of the test's own, dropped at its end."""
    world = ServerWorld.of(own, template)
    yield world
    world.close()


SHARED = (conformance.nested_levels, conformance.disposed_engines)


@pytest.mark.parametrize("check", SHARED, ids=lambda check: check.__name__)
def test_what_every_isolation_must_do(
    check: Callable[[conformance.World], None], world: ServerWorld
) -> None:
    """The stories that say the same to a file and to a server."""
    check(cast("conformance.World", world))


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
    "large object": "SELECT lo_put(4242, 0, 'c')",
    "schema": "CREATE SCHEMA tenant",
    "extended statistics": "CREATE STATISTICS s ON judge, round FROM scores",
    "materialized": "CREATE MATERIALIZED VIEW m AS SELECT 1 AS a",
}


def test_pitfall_088_whatever_is_written_is_seen_and_undone(world: ServerWorld) -> None:
    """Rows, sequences, DDL, comments, grants, large objects, unlogged tables: none is missed."""
    hand = world.connect()
    before = hand.dump()
    world.isolation.enter()  # asked once: from here on nobody has a connection between levels
    for kind, script in CHANGES.items():
        world.isolation.enter()
        hand.executescript(script)
        assert not world.isolation.is_clean(), kind
        assert not world.isolation.is_untouched(), kind
        assert world.isolation.leave(), kind
    assert world.dump() == before
    world.isolation.leave()
    assert hand.dump() == before


def test_a_number_taken_from_a_sequence_is_seen_without_a_record(world: ServerWorld) -> None:
    """One nextval of 32 takes a transaction id; each of them counts."""
    hand = world.connect()
    world.isolation.enter()
    for _ in range(3):
        world.isolation.enter()
        assert hand.execute("SELECT nextval('many_id_seq')").fetchone() == (1,)
        hand.execute("SELECT nextval('many_id_seq')")
        world.isolation._mark_at(world.isolation._facts())
        world.uses.number += 1
        with closing(connect(world.isolation.address.database)) as other:
            other.execute("SELECT nextval('many_id_seq')")
        assert not world.isolation.is_clean()
        assert world.isolation.leave()


def found_clean(world: ServerWorld, read: Callable[[], object]) -> bool:
    """Whether a level in which was only read is found clean at last: others write here as well."""
    for _ in range(60):
        world.isolation.enter()
        read()
        is_clean = world.isolation.is_clean()
        if is_clean and world.isolation.is_untouched() and not world.isolation.leave():
            return True
        if not is_clean:
            world.isolation.leave()
    return False


def test_a_level_that_was_only_read_is_clean(world: ServerWorld) -> None:
    """With sequences and without, and beside clones that are made at the same time."""
    hand = world.connect()
    live = world.isolation.address

    def read() -> None:
        hand.execute("SELECT * FROM dancers").fetchall()
        hand.executescript("BEGIN; SELECT * FROM plain; ROLLBACK")

    assert found_clean(world, read)
    world.isolation.enter()
    hand.execute("DELETE FROM plain")
    world.isolation.leave()
    assert world.isolation.address != live
    assert found_clean(world, read)


def test_a_level_that_nobody_touched_costs_nothing(
    world: ServerWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No round trip, however much others write."""
    world.isolation.enter()
    monkeypatch.setattr(Clone, "_read_facts", lambda _: pytest.fail("the server was asked"))
    for _ in range(3):
        world.isolation.enter()
        assert world.isolation.is_clean()
        assert world.isolation.is_untouched()
        assert not world.isolation.leave()


def test_nothing_is_taken_for_clean_that_arena_may_have_written(own: OwnDatabases) -> None:
    """Ids of arena's own are taken off; a test's among them is not."""
    world = ServerWorld.of(own, None)
    try:
        hand = world.connect()
        hand.execute("CREATE TABLE t (a int)")
        world.isolation.enter()
        for number in range(12):
            world.isolation.enter()
            later = own.create_later("live")
            hand.execute("INSERT INTO t VALUES (1)")
            if number % 2:
                later.result(timeout=60)
            assert not world.isolation.is_clean()
            assert world.isolation.leave()
            own.drop_later(later.result(timeout=60))
    finally:
        world.close()


def test_forgotten_levels(world: ServerWorld) -> None:
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


def test_open_writers(world: ServerWorld) -> None:
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
    world.isolation.end(pid)
    wait_until(lambda: not world.isolation.writers())
    world.isolation.leave()
    assert world.dump() == before
    with pytest.raises(psycopg.OperationalError):
        old.execute("COMMIT")


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for what another session does."""
    pause = threading.Event()
    for _ in range(1000):
        if condition():
            return
        pause.wait(0.005)
    pytest.fail("it does not come")


def test_a_wider_fixtures_open_transaction_is_left_in_place(world: ServerWorld) -> None:
    """Nothing was committed, so that the level can be forgotten."""
    writer = world.connect()
    for _ in range(60):  # others write here as well, and then there would be a picture to take
        writer.executescript("BEGIN; INSERT INTO plain VALUES (4)")
        with suppress(Held):
            world.isolation.enter()
            if world.isolation.is_untouched():
                break
        writer.rollback()
        world.isolation.enter()
    assert not world.isolation.is_clean()
    with pytest.raises(Held):
        world.isolation.leave()
    world.isolation.forget()
    assert writer.execute("SELECT count(*) FROM plain").fetchone() == (4,)
    world.uses.number += 1
    writer.execute("COMMIT")
    world.isolation.enter()
    assert writer.execute("SELECT count(*) FROM plain").fetchone() == (4,)


def test_a_commit_of_what_was_open_at_the_mark_is_seen(world: ServerWorld) -> None:
    """Its transaction id is below the mark's, so that no count of ids would tell."""
    writer, other = world.connect(), world.connect()
    world.isolation.enter()
    writer.executescript("BEGIN; INSERT INTO plain VALUES (4)")
    old = writer.raw
    other.execute("SELECT 1")
    run("SELECT pg_current_xact_id()")  # a later transaction that ends before it
    isolation = world.isolation
    isolation._mark_at(isolation._facts())
    old.execute("COMMIT")
    assert not isolation.is_untouched()
    assert isolation.leave()
    assert other.execute("SELECT count(*) FROM plain").fetchone() == (3,)


def test_force_and_open_readers(world: ServerWorld) -> None:
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
    world.isolation.enter()
    reader.executescript("BEGIN; SELECT * FROM scores")
    assert not world.isolation.is_free()
    hand.execute("DELETE FROM plain")
    assert world.isolation.leave()
    assert world.isolation.is_free()
    assert hand.dump() == before


def test_pitfall_067_131_locks_and_prepared_transactions(world: ServerWorld) -> None:
    """A session advisory lock on a pooled connection is gone with the database that it is in."""
    hand = world.connect()
    world.isolation.enter()
    hand.execute("SELECT pg_advisory_lock(7)")
    assert not world.isolation.is_clean()
    assert world.isolation.leave()
    world.isolation.enter()
    assert hand.execute("SELECT pg_try_advisory_lock(7)").fetchone() == (True,)
    world.isolation.leave()
    [(most,)] = rows("SELECT current_setting('max_prepared_transactions')::int")
    world.isolation.enter()
    live = world.isolation.address.database
    if most:
        hand.executescript("BEGIN; INSERT INTO plain VALUES (3); PREPARE TRANSACTION 'left'")
        assert not world.isolation.is_clean()
        assert world.isolation.leave()
        assert world.own.rest()
        assert live not in names_on_server(beginning=live)
        assert rows("SELECT gid FROM pg_prepared_xacts WHERE gid = 'left'") == []
    else:
        with pytest.raises(psycopg.Error, match="max_prepared_transactions"):
            hand.executescript("BEGIN; INSERT INTO plain VALUES (3); PREPARE TRANSACTION 'left'")


def test_writing_threads(world: ServerWorld) -> None:
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


def test_replaced_content(world: ServerWorld, template: str) -> None:
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
    world.isolation.replace(template)
    assert hand.dump() == before
    world.isolation.leave()
    assert hand.dump() == before


def test_pitfall_095_kept_for_a_look(world: ServerWorld) -> None:
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
    kept = {one.name: one.title for one in world.own.listed() if one.kind == "kept"}
    assert kept == {now: "first", then: "second"}


def test_copies_are_made_ahead_only_once_they_are_needed(own: OwnDatabases, template: str) -> None:
    """None before a test has written; then one, or two; none is left at the end."""

    def lives() -> int:
        return sum(one.kind == "live" for one in own.listed())

    assert own.rest()
    before = lives()
    world = ServerWorld.of(own, template)
    hand = world.connect()
    assert own.rest()
    assert lives() == before + 1
    for _ in range(5):
        world.isolation.enter()
        hand.execute("DELETE FROM plain")
        world.isolation.leave()
        assert lives() <= before + 8
    assert own.rest()
    assert before + 2 <= lives() <= before + 3
    world.isolation.enter()
    hand.execute("DELETE FROM plain")
    world.isolation.enter()  # a picture of its own
    hand.execute("DELETE FROM dancers")
    world.isolation.leave()
    world.isolation.leave()
    world.close()
    assert own.rest()
    assert lives() == before


def test_a_copy_that_cannot_be_made(own: OwnDatabases) -> None:
    """The level stays, can be left by force, and is brought back before the next one."""
    name = own.create("building")
    run("CREATE TABLE t (a int)", database=name)
    own.freeze(name)
    world = ServerWorld.of(own, name)
    hand = world.connect()
    hidden = f"arena_hidden_{secrets.token_hex(4)}"
    try:
        world.isolation.enter()
        hand.execute("INSERT INTO t VALUES (1)")
        own.rest()
        run(f"ALTER DATABASE {name} RENAME TO {hidden}")
        with pytest.raises(IsolationError, match="is gone"):
            world.isolation.leave()
        with pytest.raises(IsolationError, match="is gone"):
            world.isolation.leave_by_force()
        with pytest.raises(IsolationError, match="is gone"):
            world.isolation.enter()
        run(f"ALTER DATABASE {hidden} RENAME TO {name}")
        world.isolation.enter()
        assert hand.execute("SELECT count(*) FROM t").fetchone() == (0,)
        world.isolation.leave()
    finally:
        world.close()
        own.drop(name)


def test_a_server_that_lost_its_sessions(world: ServerWorld) -> None:
    """Crashed and started anew, maybe: unlogged tables are empty then, so nothing is clean."""
    world.isolation.enter()
    hand = world.connect()
    hand.execute("SELECT 1")
    run(f"SELECT pg_terminate_backend({world.own._registry.line.pid})")
    assert not world.isolation.is_clean()
    assert world.isolation.leave()
    assert hand.execute("SELECT count(*) FROM unlogged").fetchone() == (1,)

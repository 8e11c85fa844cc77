"""``clone`` keeps what the seam promises, on a real server; and it is never falsely clean."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import psycopg
import pytest

from pytest_arena._product._control_lines import Reconnecting
from pytest_arena.errors import IsolationError
from tests.isolation.server_world import ServerWorld
from tests.servers.postgresql import (
    names_on_server,
    rows,
    run,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_arena._postgresql.registry import ServerRegistry


@pytest.fixture
def world(own: ServerRegistry, template: str) -> Iterator[ServerWorld]:
    """A database of the test's own, dropped at its end."""
    world = ServerWorld.of(own, template, "clone")
    yield world
    world.close()


def test_a_level_that_nobody_touched_costs_nothing(
    world: ServerWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No round trip, however much others write."""
    world.isolation.enter()
    monkeypatch.setattr(Reconnecting, "call", lambda *_: pytest.fail("the server was asked"))
    for _ in range(3):
        world.isolation.enter()
        assert world.isolation.is_clean()
        assert world.isolation.is_untouched()
        assert not world.isolation.leave()


def test_open_readers(world: ServerWorld) -> None:
    """A reader holds nothing, and is cut off."""
    hand, reader, before = world.connect(), world.connect(), world.dump()
    world.isolation.enter()
    reader.executescript("BEGIN; SELECT * FROM scores")
    assert not world.isolation.is_free()
    hand.execute("DELETE FROM plain")
    assert world.isolation.leave()
    assert world.isolation.is_free()
    assert hand.dump() == before


def test_locks_and_prepared_transactions_pitfall_067_131(world: ServerWorld) -> None:
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


@pytest.mark.slow
def test_copies_are_made_ahead_only_once_they_are_needed(
    own: ServerRegistry, template: str
) -> None:
    """None before a test has written; then one, or two; none is left at the end."""

    def lives() -> int:
        return sum(one.kind == "live" for one in own.listed())

    assert own.rest()
    before = lives()
    world = ServerWorld.of(own, template, "clone")
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


def test_a_copy_that_cannot_be_made(own: ServerRegistry) -> None:
    """The level stays, can be left by force, and is brought back before the next one."""
    name = own.create("building")
    run("CREATE TABLE t (a int)", database=name)
    own.freeze(name)
    world = ServerWorld.of(own, name, "clone")
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

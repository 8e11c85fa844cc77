"""Levels of a rolled back database whose shared connection ends, or which has to be copied."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from pytest_arena._postgresql.isolation._rolled_back import Uncommitted
from pytest_arena._product import Held
from tests.isolation.conftest import _own as _own_fixture
from tests.isolation.conftest import _template as _template_fixture
from tests.isolation.server_world import ServerWorld
from tests.servers.postgresql import rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_arena._postgresql.registry import ServerRegistry

__all__ = ["_own_fixture", "_template_fixture"]

WRITE = "INSERT INTO plain VALUES (9)"


@pytest.fixture(name="world")
def _world(own: ServerRegistry, template: str) -> Iterator[ServerWorld]:
    with closing(ServerWorld.of(own, template, "rollback")) as world:
        yield world


def end_shared_connection(world: ServerWorld) -> None:
    """End it as an administrator of the server does."""
    name = world.isolation.live.address.database
    end = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = "
    rows(f"{end}'{name}'")


def test_the_connection_ends_in_a_test(world: ServerWorld) -> None:
    """A copy replaces the database, because a rollback restores no sequence."""
    hand = world.connect()
    before = hand.dump()
    world.isolation.enter()
    hand.execute("INSERT INTO dancers (name) VALUES ('Loess')")
    end_shared_connection(world)
    assert world.isolation.leave()
    assert hand.dump() == before
    assert any("its database was replaced" in line for line in world.told)


def test_the_connection_ends_between_two_tests(world: ServerWorld) -> None:
    """The next level opens another one, unless a wider fixture has written."""
    hand = world.connect()
    before = hand.dump()
    world.isolation.enter()
    world.isolation.leave()
    end_shared_connection(world)
    with pytest.raises(Exception, match=r"terminat|closed|ended"):
        hand.execute("SELECT 1")
    world.isolation.enter()
    assert hand.dump() == before
    hand.execute(WRITE)
    end_shared_connection(world)
    with pytest.raises(Exception, match=r"terminat|closed|ended"):
        hand.execute("SELECT 1")
    with pytest.raises(Uncommitted):
        world.isolation.enter()


def test_a_level_cannot_begin_inside_a_transaction_that_has_written(world: ServerWorld) -> None:
    """The level's savepoint would be inside of the transaction's."""
    hand = world.connect()
    hand.executescript(f"BEGIN; {WRITE}")
    with pytest.raises(Held):
        world.isolation.enter()
    hand.rollback()
    world.isolation.enter()
    world.isolation.leave()


def test_a_level_with_other_content_above_written_rows(world: ServerWorld) -> None:
    """It is in another database. The one below keeps what it has."""
    hand = world.connect()
    world.isolation.enter()
    hand.execute(WRITE)
    count = "SELECT count(*) FROM plain WHERE a = 9"
    world.isolation.enter()
    world.isolation.replace(world.template)
    assert hand.execute(count).fetchone() == (0,)
    hand.execute(WRITE)
    world.isolation.leave()
    assert hand.execute(count).fetchone() == (1,)
    world.isolation.leave()
    assert hand.execute(count).fetchone() == (0,)


def test_a_database_is_kept_when_its_level_ends(world: ServerWorld) -> None:
    """It is committed then."""
    hand = world.connect()
    world.isolation.enter()
    hand.execute(WRITE)
    kept = world.isolation.save("kept")
    assert world.isolation.leave()
    assert rows("SELECT count(*) FROM plain WHERE a = 9", kept) == [(1,)]
    world.isolation.enter()
    hand.execute(WRITE)
    world.isolation.enter()
    with pytest.raises(Uncommitted):
        world.isolation.save("with rows of a wider level")

"""Levels of a rolled back database whose shared connection ends, or which has to be copied."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pytest_arena._postgresql.isolation import _rolled_back
from pytest_arena._postgresql.isolation._rolled_back import RolledBackDatabase, Uncommitted
from pytest_arena._postgresql.rollback._backend import BackendFailure
from pytest_arena._postgresql.rollback._proxy import Proxy
from pytest_arena._product import Held
from pytest_arena.errors import ConfigError
from tests.isolation.conftest import _own as _own_fixture
from tests.isolation.conftest import _template as _template_fixture
from tests.isolation.server_world import ServerWorld
from tests.servers.encrypted import tls_in_front
from tests.servers.postgresql import rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pytest_arena._postgresql.registry import ServerRegistry
    from pytest_arena._postgresql.rollback._session import Session
    from pytest_arena._postgresql.rollback._wire import Message
    from pytest_arena._values import Address

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


@pytest.mark.slow
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


@pytest.mark.slow
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


def never_committed(world: ServerWorld) -> None:
    """The database itself never has what a transaction has committed."""
    hand = world.connect()
    for _ in range(2):
        world.isolation.enter()
        hand.executescript(f"BEGIN; {WRITE}; COMMIT")
        name = world.isolation.live.name
        assert rows("SELECT count(*) FROM plain WHERE a = 9", name) == [(0,)]
        world.isolation.leave()


def no_savepoint_left(world: ServerWorld) -> None:
    """A level's savepoint ends with the level."""
    hand = world.connect()
    for statement in (WRITE, "SELECT a FROM plain"):
        world.isolation.enter()
        hand.execute(statement)
        proxy = shared_transaction(world)
        name = proxy._levels[-1].savepoint
        world.isolation.leave()
        proxy._backend.query("SAVEPOINT probe")
        with pytest.raises(BackendFailure, match=f'"{name}" does not exist'):
            proxy._backend.query(f"RELEASE {name}")
        proxy._backend.query("ROLLBACK TO probe; RELEASE probe")


def all_restored(world: ServerWorld) -> None:
    """Rows and numbers are those of the level's start."""
    hand = world.connect()
    before = hand.dump()
    for script in (WRITE, "SELECT nextval('tickets')", "SELECT setval('tickets', 7)"):
        world.isolation.enter()
        hand.executescript(script)
        world.isolation.leave()
        assert hand.dump() == before, script


def shared_transaction(world: ServerWorld) -> Proxy:
    """Return the proxy of the live database."""
    live = world.isolation.live
    assert isinstance(live, RolledBackDatabase)
    return live.proxy


CHECKS = (never_committed, no_savepoint_left, all_restored)


@pytest.mark.parametrize("check", CHECKS)
def test_a_level_is_a_savepoint(check: Callable[[ServerWorld], None], world: ServerWorld) -> None:
    """Nothing is committed, no savepoint is left, and sequences are restored."""
    check(world)


# Planted defects: each does without one thing, and names the check that finds it.


class ForgetsToRollBack(Proxy):
    """Leaves a level, and keeps what was written in it."""

    def leave(self) -> bool:
        """Drop the level alone."""
        is_changed = self.is_changed()
        self.forget_level()
        return is_changed


class LeavesASavepoint(Proxy):
    """Rolls back to a savepoint, and does not release it."""

    def leave(self) -> bool:
        """Open a savepoint of the same name once more."""
        name = self._levels[-1].savepoint
        is_changed = super().leave()
        self._backend.query(f"SAVEPOINT {name}")
        return is_changed


class CommitsReally(Proxy):
    """Commits what the app commits."""

    def commit(self, session: Session) -> Message | None:
        """Commit the real transaction as well."""
        error = super().commit(session)
        self._backend.commit()
        return error


class RestoresNoSequence(Proxy):
    """Gives each test the numbers that follow those of the test before."""

    def leave(self) -> bool:
        """Have no number to restore."""
        self._levels[-1].restoring = ""
        return super().leave()


@pytest.mark.parametrize(
    "proxy, check",
    [
        (ForgetsToRollBack, all_restored),
        (LeavesASavepoint, no_savepoint_left),
        (CommitsReally, never_committed),
        (RestoresNoSequence, all_restored),
    ],
)
def test_the_suite_finds_a_planted_defect(
    proxy: type[Proxy],
    check: Callable[[ServerWorld], None],
    own: ServerRegistry,
    template: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each of these looks right for a while."""
    monkeypatch.setattr(_rolled_back, "Proxy", proxy)
    fails = pytest.raises((AssertionError, pytest.fail.Exception))
    with closing(ServerWorld.of(own, template, "rollback")) as world, fails:
        check(world)


@pytest.mark.slow
def test_a_server_that_demands_tls(
    own: ServerRegistry, template: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the line of pg_hba.conf."""
    server = own.address_of(template)
    with tls_in_front(tmp_path, server.port) as port:

        def address_of(name: str) -> Address:
            return replace(server, port=port, database=name)

        monkeypatch.setattr(own, "address_of", address_of)
        with pytest.raises(ConfigError, match="refuses a connection without TLS") as error:
            ServerWorld.of(own, template, "rollback")
    monkeypatch.undo()
    assert "no pg_hba.conf entry for this host, no encryption" in str(error.value)
    assert "host instead of hostssl" in str(error.value)


def test_a_rollback_of_the_app_frees_the_locks_at_once(world: ServerWorld) -> None:
    """Other connections of pytest-arena read the database."""
    locked = (
        "SELECT relation::regclass::text FROM pg_locks "
        "WHERE mode = 'AccessExclusiveLock' AND relation = ANY ('{plain,many}'::regclass[])"
    )
    hand = world.connect()
    world.isolation.enter()
    hand.executescript("BEGIN; LOCK TABLE plain; SAVEPOINT one; LOCK TABLE many")
    name = world.isolation.live.name
    assert len(rows(locked, name)) == 2
    hand.execute("ROLLBACK TO one")
    assert rows(locked, name) == [("plain",)]
    hand.rollback()
    assert rows(locked, name) == []
    world.isolation.leave()

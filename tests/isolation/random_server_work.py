"""Two connections at random work in up to three levels of a database on a server."""

from __future__ import annotations

import random
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psycopg

from pytest_arena._product import Held
from tests.isolation.server_world import Hand, ServerWorld

if TYPE_CHECKING:
    from pytest_arena._postgresql.registry import ServerRegistry

__all__ = ["work"]

WORK = (
    "INSERT INTO dancers (name) VALUES (random()::text)",
    "UPDATE dancers SET style = random()::text",
    "DELETE FROM dancers WHERE id % 2 = 0",
    "INSERT INTO plain SELECT generate_series(1, 500)",
    "TRUNCATE plain",
    "INSERT INTO unlogged VALUES (2)",
    "INSERT INTO many (a) VALUES ('x')",
    "SELECT nextval('tickets')",
    "SELECT setval('tickets', 1, false)",
    "ALTER SEQUENCE tickets RESTART",
    "CREATE TABLE IF NOT EXISTS extra (a int)",
    "DROP TABLE IF EXISTS extra",
    "ALTER TABLE plain ADD COLUMN IF NOT EXISTS b int DEFAULT 3",
    "ALTER TABLE plain DROP COLUMN IF EXISTS b",
    "COMMENT ON TABLE plain IS 'x'",
    "GRANT SELECT ON plain TO PUBLIC",
    "SELECT lo_put(4242, 0, 'c')",
    "CREATE TEMP TABLE IF NOT EXISTS dancers (a int)",
    "VACUUM plain",
    "ANALYZE",
    "BEGIN",
    "SAVEPOINT a",
    "ROLLBACK TO a",
    "COMMIT",
    "ROLLBACK",
    "SELECT * FROM many",
    "SELECT * FROM many",
    "SELECT pg_advisory_lock(1)",
    "DO $$ BEGIN INSERT INTO plain VALUES (5); EXCEPTION WHEN division_by_zero THEN END $$",
)


class RandomWork:
    """Two connections at work, and what stood at each enter."""

    def __init__(self, world: ServerWorld, chance: random.Random) -> None:
        self.world, self.chance = world, chance
        self.hands = [world.connect() for _ in range(2)]
        self.states: list[list[object]] = []
        self.work = list(world.seen_of({sql: sql for sql in WORK}))

    def step(self) -> None:
        """Do something, mostly a statement."""
        number = self.chance.random()
        if number < 0.07 and len(self.states) < 3:
            self.enter()
        elif number < 0.16 and self.states:
            self.leave()
        elif number < 0.18 and self.states:
            self.force()
        elif number < 0.19 and len(self.states) > 1:
            self.world.isolation.forget()
            self.states.pop()
        else:
            with suppress(psycopg.Error):  # a table that is not there, a lock: as it comes
                self.hand().execute("SET lock_timeout = '20ms'")
                self.hand().execute(self.chance.choice(self.work))

    def hand(self) -> Hand:
        """One of the connections."""
        return self.chance.choice(self.hands)

    def enter(self) -> None:
        """Enter a level, when no transaction is open."""
        self.end_transactions()
        self.states.append(self.world.dump())
        self.world.isolation.enter()

    def leave(self) -> None:
        """Leave a level, and compare."""
        state, is_clean = self.states.pop(), self.world.isolation.is_clean()
        stands = self.seen()
        if stands != state:
            assert not is_clean
        try:
            changed = self.world.isolation.leave()
        except Held:
            assert self.world.isolation.writers()
            self.end_transactions()
            changed = self.world.isolation.leave()
            stands = stands or state  # what was not committed is gone
        assert changed or stands == state
        assert self.world.dump() == state

    def seen(self) -> list[object] | None:
        """Return what a new connection sees, None where somebody's lock keeps it from that."""
        try:
            return self.world.dump()
        except psycopg.errors.LockNotAvailable:
            return None

    def force(self) -> None:
        """Leave a level, whoever is in it."""
        self.world.isolation.leave_by_force()
        assert self.world.dump() == self.states.pop()

    def end_transactions(self) -> None:
        """Roll back what is open."""
        for hand in self.hands:
            hand.rollback()


def work(own: ServerRegistry, template: str, kind: Any, *, seed: int, steps: int) -> None:
    """Work in a world of its own."""
    world: ServerWorld = ServerWorld.of(own, template, kind)
    try:
        walk = RandomWork(world, random.Random(seed))  # noqa: S311 - it is to be repeatable
        walk.enter()
        for _ in range(steps):
            walk.step()
        while walk.states:
            walk.leave()
    finally:
        world.close()

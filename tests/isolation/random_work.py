"""Random work of three connections in up to four levels: the clean check is never falsely clean."""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from typing import TYPE_CHECKING

from pytest_arena._product import Held
from tests.isolation.conformance import MANY, dump

if TYPE_CHECKING:
    from tests.isolation.conformance import World

__all__ = ["LAYOUTS", "LEVELS", "WORK", "RandomWork", "Step"]

Step = str | tuple[int, str]  # what is done to the levels, or by a connection

LEVELS = ("enter", "leave", "leave")
LAYOUTS = tuple(
    f"PRAGMA page_size = {size}; PRAGMA auto_vacuum = {vacuum}; "
    for size in (512, 4096, 16384)
    for vacuum in (0, 1, 2)
)
WORK = (
    "INSERT INTO dancers (name) VALUES (random())",
    "UPDATE dancers SET style = random()",
    "DELETE FROM dancers WHERE id % 2",
    "INSERT INTO scores VALUES (random(), 1, 1)",
    "INSERT INTO notes VALUES ('sand ' || random())",
    "INSERT INTO places VALUES (random(), 1, 1)",
    f"INSERT INTO plain (a) {MANY} SELECT i FROM n",
    "DELETE FROM plain",
    "CREATE TABLE IF NOT EXISTS extra (a)",
    "DROP TABLE IF EXISTS extra",
    "INSERT INTO extra VALUES (random())",
    "ALTER TABLE plain ADD COLUMN b",
    "ALTER TABLE plain DROP COLUMN b",
    "CREATE INDEX IF NOT EXISTS by_name ON dancers (name, style)",
    "REINDEX",
    "PRAGMA user_version = 3",
    "PRAGMA wal_checkpoint(PASSIVE)",
    "PRAGMA wal_checkpoint(FULL)",
    "PRAGMA wal_checkpoint(RESTART)",
    "PRAGMA wal_checkpoint(TRUNCATE)",
    "PRAGMA wal_autocheckpoint = 1",
    "PRAGMA wal_autocheckpoint = 0",
    "PRAGMA journal_mode = wal",
    "PRAGMA journal_mode = delete",
    "PRAGMA journal_mode = persist",
    "PRAGMA journal_mode = memory",
    "PRAGMA locking_mode = EXCLUSIVE",
    "PRAGMA locking_mode = NORMAL",
    "PRAGMA cache_size = 2",
    "PRAGMA page_size = 1024",
    "PRAGMA auto_vacuum = 1",
    "PRAGMA auto_vacuum = 2",
    "PRAGMA incremental_vacuum",
    "VACUUM",
    "BEGIN",
    "BEGIN IMMEDIATE",
    "SAVEPOINT a",
    "ROLLBACK TO a",
    "COMMIT",
    "ROLLBACK",
    "SELECT * FROM dancers",
    "SELECT * FROM plain",
    "(reconnect)",
)


class RandomWork:
    """Three connections at work, and what stood at each enter."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.hands = [world.connect() for _ in range(3)]
        self.states: list[list[object]] = []
        self.leaves = 0
        self.exclusive: set[int] = set()  # who has asked to have the database alone

    def do(self, step: Step) -> None:
        """Take one step."""
        if isinstance(step, tuple):
            self.work(*step)
        elif step == "enter" and len(self.states) < 4:
            self.enter()
        elif step == "leave" and self.states:
            self.leave()

    def work(self, number: int, statement: str) -> None:
        """Have one connection do something."""
        if statement == "(reconnect)":
            self.hands[number].close()
            self.hands[number] = self.world.connect()
            return
        if statement == "PRAGMA locking_mode = EXCLUSIVE":
            self.exclusive.add(number)
        with suppress(sqlite3.Error):  # a lock, a table that is not there: as it comes
            self.hands[number].execute(statement).fetchone()

    def enter(self) -> None:
        """Enter a level, when no transaction is open."""
        self.end_transactions()
        self.states.append(self.world.dump())
        self.world.isolation.enter()

    def leave(self) -> None:
        """Leave a level, whoever holds it, and compare on every connection."""
        try:
            self.world.isolation.leave()
        except Held:
            self.end_transactions()
            self.leave_somehow()
        self.end_transactions()
        state = self.states.pop()
        self.leaves += 1
        for hand in self.hands:
            assert dump(hand) == state
        assert self.world.dump() == state

    def leave_somehow(self) -> None:
        """Leave, by force if it must be."""
        try:
            self.world.isolation.leave()
        except Held:
            self.world.isolation.leave_by_force()
            for hand in self.hands:
                hand.close()
            self.hands = [self.world.connect() for _ in range(3)]

    def end_transactions(self) -> None:
        """Roll back what is open, and let go of what is held for good."""
        for hand in self.hands:
            hand.rollback()
        # With a log, one that has asked for it keeps a lock even after it was refused.
        for number in self.exclusive:
            self.hands[number].close()
        for number in self.exclusive:
            self.hands[number] = self.world.connect()
        self.exclusive.clear()

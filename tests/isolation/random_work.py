"""Random work of some connections in some levels of a database, of whichever product.

Each leave gives back what stood at its enter, and no level is found clean that is not.
"""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from typing import TYPE_CHECKING

import psycopg
import pymysql

from pytest_arena._product import Held
from tests.isolation.conformance import dump

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.isolation.conformance import World
    from tests.isolation.server_world import ServerWorld
    from tests.mysql.level_world import LevelWorld

__all__ = ["RandomWork", "Step"]

Step = str | tuple[int, str]  # what is done to the levels, or by a connection
_REFUSED = (
    sqlite3.Error,
    psycopg.Error,
    pymysql.err.MySQLError,
)  # a lock, a table that is not there: as it comes


class RandomWork:
    """Connections at work, and what stood at each enter."""

    def __init__(self, world: World | ServerWorld | LevelWorld, *, hands: int, levels: int) -> None:
        self.world, self.most = world, levels
        self.hands = [world.connect() for _ in range(hands)]
        self.states: list[list[object]] = []
        self.exclusive: set[int] = set()  # who has asked to have the database alone

    def do_all(self, steps: Sequence[Step]) -> None:
        """Take all steps within a level, and leave those that are open then.

        Each leave compares the content with that of the matching enter.
        """
        for step in ("enter", *steps):
            self.do(step)
        while self.states:
            self.do("leave")

    def do(self, step: Step) -> None:
        """Take one step, if there is a level for it."""
        if isinstance(step, tuple):
            self.work(*step)
        elif step == "enter" and len(self.states) < self.most:
            self.end_transactions()
            self.states.append(self.world.dump())
            self.world.isolation.enter()
        elif step == "leave" and self.states:
            self.leave()
        elif step == "force" and self.states:
            self.leave_by_force()
        elif step == "forget" and len(self.states) > 1:
            self.world.isolation.forget()
            self.states.pop()

    def work(self, number: int, statement: str) -> None:
        """Have one connection do something."""
        if statement == "(reconnect)":
            self.hands[number].close()
            self.hands[number] = self.world.connect()
            return
        if statement == "PRAGMA locking_mode = EXCLUSIVE":
            self.exclusive.add(number)
        with suppress(*_REFUSED):
            self.hands[number].execute(statement).fetchone()

    def leave(self) -> None:
        """Leave a level, whoever holds it, and compare on every connection."""
        generation = self.world.isolation.generation
        if self.world.isolation.is_clean():
            with suppress(*_REFUSED):  # somebody's lock keeps it from being seen
                assert self.world.dump() == self.states[-1]
        try:
            self.world.isolation.leave()
        except Held:
            self.end_transactions()
            try:
                self.world.isolation.leave()
            except Held:
                self.leave_by_force()
                return
        if self.world.isolation.generation != generation:  # another file is in its place
            self.reconnect()
        self.compare()

    def leave_by_force(self) -> None:
        """Leave a level, whoever is in it: its connections may be of no use afterwards."""
        self.world.isolation.leave_by_force()
        self.reconnect()
        self.compare()

    def reconnect(self) -> None:
        """Open all connections anew, as a pool does that finds them stale."""
        for hand in self.hands:
            hand.close()
        self.hands = [self.world.connect() for _ in self.hands]
        self.exclusive.clear()

    def compare(self) -> None:
        """What stands is what stood at the level's enter."""
        self.end_transactions()
        state = self.states.pop()
        for hand in self.hands:
            if isinstance(hand, sqlite3.Connection):  # a server's may have temporary tables
                assert dump(hand) == state
        assert self.world.dump() == state

    def end_transactions(self) -> None:
        """Roll back what is open, and let go of what is held for good."""
        for hand in self.hands:
            hand.rollback()
        # With SQLite's log, one that has asked for it keeps a lock even after it was refused.
        for number in self.exclusive:
            self.hands[number].close()
        for number in self.exclusive:
            self.hands[number] = self.world.connect()
        self.exclusive.clear()

"""A database under an isolation, with the connections that an app would have to it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import random
    from collections import Counter
    from collections.abc import Sequence


class Usage:
    """The number of uses of the database, as pytest-arena counts them."""

    def __init__(self) -> None:
        self.number = 0
        self.hands: list[Hand] = []
        self.has_transaction = False  # of a connection that outlives its level

    def __call__(self) -> int:
        """Return a number that has changed if a connection may have used the database."""
        self.number += any(hand.is_out for hand in self.hands)
        return self.number

    def may_have_others(self) -> bool:
        """No other process uses the database."""
        return False

    def is_in_transaction(self) -> bool:
        """Return whether a connection that outlives its level keeps a transaction open."""
        return self.has_transaction


class Hand:
    """A connection to the live database, as a pool has it. A replaced database ends it."""

    def __init__(self, world: World, number: int) -> None:
        self._world = world
        self._number = number
        self._generation = -1
        self._connection: Any = None
        self._is_executing = False

    @property
    def raw(self) -> Any:
        world = self._world
        world.usage.number += 1
        is_stale = self._generation != world.isolation.generation
        if self._connection is None or is_stale or world.has_ended(self._connection):
            self.close()
            self._generation = world.isolation.generation
            self._connection = world.open()
            world.prepare(self._connection, self._number)
        return self._connection

    @property
    def is_out(self) -> bool:
        """Whether the connection is in a transaction, so that no pool has it."""
        driver = self._connection
        return self._is_executing or (driver is not None and self._world.is_begun(driver))

    def execute(self, sql: str) -> Any:
        connection = self.raw
        # libpq's status is "idle" for a moment after the statement was sent.
        self._is_executing = True
        try:
            return self._world.execute(connection, sql)
        finally:
            self._is_executing = False

    def run(self, script: str) -> None:
        for statement in script.split("; "):
            self.execute(statement)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in self.execute(sql).fetchall()]

    def content(self) -> dict[str, object]:
        return self._world.content_of(self.raw)

    def rollback(self) -> None:
        with suppress(self._world.errors):
            self.execute("ROLLBACK")

    def close(self) -> None:
        if self._connection is not None:
            with suppress(self._world.errors):
                self._connection.close()
        self._connection = None


class World(ABC):
    """One database, its isolation, and its connections.

    Each has the table ``plain (a)`` with the rows 1, 1 and NULL, and the table ``dancers`` with an
    automatic number and two names.
    """

    errors: ClassVar[type[Exception]]
    is_read_by_old_connections = True  # so that their content is compared, too
    # Whether a level below an open transaction keeps numbers that only that transaction has taken.
    knows_open_transactions = True
    isolation: Any

    def __init__(self) -> None:
        self.usage = Usage()
        self.lines: list[str] = []  # for the summary

    def connect(self) -> Hand:
        hand = Hand(self, len(self.usage.hands))
        self.usage.hands.append(hand)
        return hand

    @abstractmethod
    def open(self) -> Any:
        """Open a connection of the driver to the live database."""

    def prepare(self, connection: Any, number: int) -> None:  # noqa: B027 - one need not
        """Set the session of an app's connection."""

    def recover(self, hand: Hand) -> None:  # noqa: B027 - only PostgreSQL needs it
        """Go on after a failed statement, as an app does."""

    @abstractmethod
    def is_begun(self, connection: Any) -> bool:
        """Return whether a driver's connection is in a transaction."""

    def has_ended(self, connection: Any) -> bool:
        del connection
        return False

    def execute(self, connection: Any, sql: str) -> Any:
        return connection.execute(sql)

    @abstractmethod
    def content_of(self, connection: Any) -> dict[str, object]:
        """Return the schema, the rows and the numbers that a connection reads."""

    @abstractmethod
    def rows_of(self, connection: Any) -> dict[str, Counter[str]]:
        """Return the rows of each table, by what `shown` makes of them."""

    def shown(self, row: Sequence[object]) -> str:
        """Return what is compared of a row, without NULLs at its end: columns come and go."""
        values = [*row]
        while values and values[-1] is None:
            values.pop()
        return repr(values)

    @abstractmethod
    def statement(self, chance: random.Random) -> str:
        """Return something that an app may do."""

    def content(self) -> dict[str, object]:
        self.usage.number += 1
        with closing(self.open()) as fresh:
            return self.content_of(fresh)

    def rows(self) -> dict[str, Counter[str]]:
        with closing(self.open()) as fresh:
            return self.rows_of(fresh)

    def failed_undo(self) -> list[str]:
        """Return the lines that a copy has restored a level because undo has failed."""
        return []

    @abstractmethod
    def template(self) -> Any:
        """Return the template, for ``replace``."""

    def close(self) -> None:
        for hand in self.usage.hands:
            hand.close()
        self.isolation.close()

"""The stack of levels: as long as a fixture lives, what it wrote is there."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING

from pytest_arena import _leaks
from pytest_arena._isolation import Held

if TYPE_CHECKING:
    from pytest_arena._arena._databases import Database, Databases, Level
    from pytest_arena._gate import Gate
    from pytest_arena._isolation import Isolation
    from pytest_arena._ledger import Ledger

__all__ = ["Levels"]


class Levels:
    """Enters and leaves levels on all databases at once, last in, first out.

    A database that is first connected to inside some levels joins them all with the state that
    it starts with.
    """

    def __init__(self, databases: Databases, gate: Gate, ledger: Ledger) -> None:
        self._databases, self._gate, self._ledger = databases, gate, ledger
        self.seconds = 0.0

    @property
    def _stack(self) -> list[Level]:
        return self._databases.levels

    def find(self, owner: object) -> Level | None:
        """Return the level of a fixture or a test, None if it has none."""
        return next((level for level in self._stack if level.owner is owner), None)

    def above(self, level: Level) -> list[Level]:
        """Return the levels above this one, the top first."""
        return self._stack[: self._stack.index(level) : -1]

    def enter(self, level: Level) -> None:
        """Open a level above all that stands."""
        started = perf_counter()
        for database in self._databases.provisioned():
            self._databases.enter(self._isolation_of(database), database, level)
        self._stack.append(level)
        self.seconds += perf_counter() - started

    def drop_if_clean(self, level: Level) -> bool:
        """Forget a level in which nothing was written, if it is the top one."""
        if self._stack[-1] is not level:
            return False
        isolations = [self._isolation_of(one) for one in self._databases.provisioned()]
        clean = all(isolation.is_clean() for isolation in isolations)
        if clean:
            self._stack.pop()
            for isolation in isolations:
                isolation.forget()
        return clean

    def leave(self, level: Level) -> list[str]:
        """Go back to what stood when this level, the top one, was entered.

        Returns the names of the databases that had changed.
        """
        started = perf_counter()
        assert self._stack[-1] is level, "because levels are a stack"  # noqa: S101 - our own bug
        changed = [one.name for one in self._databases.provisioned() if self._taken_back(one)]
        self._stack.pop()
        self._gate.drop_altered()
        self.seconds += perf_counter() - started
        return changed

    def _taken_back(self, database: Database) -> bool:
        isolation = self._isolation_of(database)
        try:
            return isolation.leave()
        except Held:
            _leaks.end_transactions(self._gate.taken())
        try:
            return isolation.leave()
        except Held as held:
            self._ledger.note(
                f"{database.name}: {held}, by a connection that arena does not know (another "
                "process, a half-read cursor): all connections were replaced"
            )
            isolation.leave_by_force()
            return True

    def _isolation_of(self, database: Database) -> Isolation:
        return self._databases.ensure(database)

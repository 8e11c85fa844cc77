"""The stack of levels: as long as a fixture lives, what it wrote is there."""

from __future__ import annotations

from contextlib import suppress
from time import perf_counter
from typing import TYPE_CHECKING

from pytest_arena import _leaks
from pytest_arena._isolation import Held

if TYPE_CHECKING:
    from pytest_arena._arena._databases import Database, Databases, Level
    from pytest_arena._gate import Checkout, Gate
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
        self._before: dict[Level | None, _leaks.Before] = {}
        self._in_the_way: list[Checkout] = []

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
        entered: list[Isolation] = []
        try:
            for database in self._databases.provisioned():
                self._databases.enter(self._isolation_of(database), database, level)
                entered.append(self._isolation_of(database))
        except Held as held:
            for isolation in entered:
                isolation.forget()
            raise _leaks.lost_error(_leaks.open_transactions(self._gate), level.name) from held
        self._stack.append(level)
        self._before[level] = _leaks.Before.now(self._gate)
        self.seconds += perf_counter() - started

    def before(self, level: Level | None) -> _leaks.Before:
        """Return what wider fixtures held when a level was entered."""
        return self._before.get(level) or _leaks.Before()

    def drop_if_clean(self, level: Level) -> bool:
        """Forget a level in which nothing was written, if it is the top one."""
        if self._stack[-1] is not level:
            return False
        isolations = [self._isolation_of(one) for one in self._databases.provisioned()]
        clean = all(isolation.is_clean() for isolation in isolations)
        if clean:
            self._stack.pop()
            self._before.pop(level, None)
            for isolation in isolations:
                isolation.forget()
        return clean

    def leave(self, level: Level) -> list[str]:
        """Go back to what stood when this level, the top one, was entered.

        Returns the names of the databases that had changed.

        Raises:
            IsolationError: a wider fixture had to lose its open transaction for that.
        """
        started = perf_counter()
        assert self._stack[-1] is level, "because levels are a stack"  # noqa: S101 - our own bug
        changed = [
            one.name for one in self._databases.provisioned() if self._taken_back(one, level)
        ]
        self._stack.pop()
        self._before.pop(level, None)
        self._gate.drop_altered()
        self.seconds += perf_counter() - started
        self._say_what_was_lost(level)
        return changed

    def _say_what_was_lost(self, level: Level) -> None:
        lost, self._in_the_way = self._in_the_way, []
        if lost:
            raise _leaks.lost_error(lost, level.name)

    def _taken_back(self, database: Database, level: Level) -> bool:
        isolation = self._isolation_of(database)
        with suppress(Held):
            return isolation.leave()
        if self._is_the_fixtures_own(isolation, level):
            isolation.forget()
            return False
        before = self.before(level).transactions
        self._in_the_way += [one for one in _leaks.open_transactions(self._gate) if one in before]
        _leaks.end_transactions(self._gate.taken())
        with suppress(Held):
            return isolation.leave()
        self._ledger.note(
            f"{database.name}: locked by a connection that arena does not know (another "
            "process, a half-read cursor): all connections were replaced"
        )
        isolation.leave_by_force()
        return True

    def _is_the_fixtures_own(self, isolation: Isolation, level: Level) -> bool:
        """Whether only a wider fixture's transaction is open, as it was before this level.

        Suites do that which undo their tests by savepoints in it: it stays as it is.
        """
        before, now = self.before(level).transactions, _leaks.open_transactions(self._gate)
        if not now or any(one not in before for one in now) or not isolation.is_untouched():
            return False
        self._ledger.note(
            f"a fixture holds a transaction open over its tests ({now[0].line}): what is done "
            "inside of it is the fixture's to undo"
        )
        return True

    def _isolation_of(self, database: Database) -> Isolation:
        return self._databases.ensure(database)

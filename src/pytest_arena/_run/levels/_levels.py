"""The stack of levels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_arena import _process
from pytest_arena._product import Held
from pytest_arena._run import _leaks
from pytest_arena._run.levels._participants import (
    DatabaseParticipant,
    HookParticipant,
    LevelContext,
)
from pytest_arena.errors import ArenaError, impossible

if TYPE_CHECKING:
    from pluggy import HookRelay

    from pytest_arena._databases._resolver import Databases, Level
    from pytest_arena._gate._listeners import Gate
    from pytest_arena._gate._registry import Checkout
    from pytest_arena._ledger import Ledger
    from pytest_arena._run._late_work import Tasks
    from pytest_arena._run._test import RunningTest


class Levels:
    """Enters and leaves levels on all participants at once, last in, first out.

    The participants are the databases and the project's hooks. A database that is first used
    inside some levels joins all of them with the content of its template.
    """

    def __init__(
        self,
        databases: Databases,
        gate: Gate,
        ledger: Ledger,
        hooks: HookRelay,
        tasks: Tasks,
    ) -> None:
        self._databases = databases
        self._stack = databases.levels
        self.gate = gate
        self._ledger = ledger
        self._hooks = HookParticipant(hooks)
        self._context = LevelContext(databases, gate, ledger, tasks)

    def find(self, owner: object) -> Level | None:
        """Return the level of a fixture or a test, None if it has none."""
        for level in self._stack:
            if level.owner is owner:
                return level
        return None

    def above(self, level: Level | None) -> list[Level]:
        """Return the levels above this one, or all levels, the top first."""
        number = 0 if level is None else self._stack.index(level) + 1
        return self._stack[number:][::-1]

    def enter(self, level: Level) -> None:
        """Enter a level on top of the stack.

        Raises:
            IsolationError: a transaction was still open after a second, or there is no space.
        """
        started = _process.seconds()
        databases = self._participating_databases()
        if databases:
            self._enter_databases(level, databases)
            self.gate.invalidate_stale()
        self._stack.append(level)
        self._ledger.add_isolation(_process.seconds() - started)
        if self._hooks.is_used:
            self._hooks.enter(level)

    def _enter_databases(
        self, level: Level, databases: list[DatabaseParticipant]
    ) -> None:
        """Enter a level on all databases, or on none of them."""
        depth = len(self._stack)
        self._cut_to(depth, databases)
        try:
            for database in databases:
                database.enter(level)
        except (Held, ArenaError) as error:
            for database in self._participating_databases():
                if database.isolation.depth > depth:
                    database.isolation.forget()
            if isinstance(error, Held):
                raise _leaks.error_of_open_transactions(
                    self.gate, level.name
                ) from error
            raise
        except BaseException:  # Ctrl-C, a timeout: no caller leaves this level
            self._cut_to(depth, self._participating_databases())
            raise

    def end_leaks(self, test: RunningTest, level: Level | None) -> None:
        """End the transactions and take back the connections that a test has left open.

        An idle connection is a warning, unless the test has failed.

        Raises:
            ConnectionLeak: the test left a transaction.
        """
        leaks: list[Checkout] = []
        if self.gate.registry.checked_out():
            leaks = _leaks.leaks_of(self.gate, test.owner)
        # This may also end a connection in the app's state, because that state is restored later.
        lost = self.gate.end_raw(test.serial) if self.gate.registry.has_raw else []
        transactions = [leak for leak in leaks if leak.in_transaction]
        error = _leaks.leak_error(transactions, lost) if transactions else None
        if leaks:
            self._context.leaks_ended()
            if not transactions and not test.failed:
                _leaks.warn_of_idle(self._ledger, leaks)
            _leaks.end_leaks(leaks)
        if level is not None and self.gate.registry.checked_out():
            _leaks.roll_back_others(self.gate, level.serial)
        if error is not None:
            raise error
        if lost:
            raise _leaks.raw_leak_error(lost)

    def drop_clean_levels_of_test(self) -> list[Level]:
        """Drop the test's level if it is clean. Return the dropped levels, the top first."""
        dropped = []
        for level in reversed(self._stack[:]):
            if not level.is_test or not self.drop_if_clean(level):
                break
            dropped.append(level)
        return dropped

    def drop_if_clean(self, level: Level) -> bool:
        """Drop a level if it is the top one and has no writes. Return whether it was dropped."""
        if self._stack[-1] is not level:
            return False
        databases = self._participating_databases()
        if not all(database.isolation.is_clean() for database in databases):
            return False
        failures: list[Exception] = []
        if self._hooks.is_used:
            self._leave_hooks(level, failures)
        self._stack.pop()
        for database in databases:
            database.isolation.forget()
        if failures:
            raise failures[0]
        return True

    def leave(self, level: Level) -> list[str]:
        """Restore the state from before the top level. Return the names of changed databases.

        Raises:
            IsolationError: pytest-arena ended a transaction of a wider fixture, or there is no
                space for the content. The level is left in both cases.
        """
        if self._stack[-1:] != [level]:
            raise impossible(f"{level.name}: a level was left that is not the top one")
        started = _process.seconds()
        depth = len(self._stack) - 1
        databases = self._participating_databases()
        failures: list[Exception] = []
        changed: list[str] = []
        try:
            self._cut_to(depth + 1, databases)
            if self._hooks.is_used:
                self._leave_hooks(level, failures)
                # A hook may have connected to another database.
                databases = self._participating_databases()
            changed = self._leave_databases(databases, level, failures)
        finally:  # also after Ctrl-C or a timeout
            self._cut_to(depth, self._participating_databases())
            self._context.forget_leaks()
            if databases:
                self.gate.end_level(level.serial, is_restored=bool(changed))
            self._ledger.add_isolation(_process.seconds() - started)
        lost = self._context.take_lost()
        if lost:
            raise _leaks.error_of_holders(lost, level.name)
        if failures:
            raise failures[0]
        return changed

    def _leave_hooks(self, level: Level, failures: list[Exception]) -> None:
        try:
            self._hooks.leave(level)
        except Exception as error:  # noqa: BLE001 - raised after the databases are restored
            failures.append(error)

    def _leave_databases(
        self,
        databases: list[DatabaseParticipant],
        level: Level,
        failures: list[Exception],
    ) -> list[str]:
        """Leave a level on each database, also after a failure. Return the changed ones."""
        if databases and level.is_test:
            lost = self.gate.end_raw(level.serial)
            if lost:
                failures.append(_leaks.raw_leak_error(lost))
        changed = []
        for database in databases:
            try:
                is_changed = database.leave(level)
            except ArenaError as error:
                failures.append(error)
                is_changed = True
            if is_changed:
                changed.append(database.name)
        return changed

    def _participating_databases(self) -> list[DatabaseParticipant]:
        participants = []
        for database in [*self._databases.known.by_key.values()]:
            isolation = database.isolation
            if isolation is not None:
                participants.append(
                    DatabaseParticipant(database, isolation, self._context)
                )
        return participants

    def _cut_to(self, depth: int, databases: list[DatabaseParticipant]) -> None:
        """Leave the levels above ``depth`` by force.

        Such levels exist if Ctrl-C or a timeout has interrupted an enter or a leave. The database
        may be half restored, so that only a copy has the right content.
        """
        for database in databases:
            while database.isolation.depth > depth:
                reason = f"{database.name}: a timeout or Ctrl-C interrupted pytest-arena in it"
                try:
                    database.leave_by_force(reason)
                except ArenaError as error:  # the caller raises another failure
                    self._ledger.note(error.what)
        del self._stack[depth:]

"""The stack of levels: the states of the databases in a test or a wide fixture."""

from __future__ import annotations

import gc
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from pytest_arena import _process
from pytest_arena._product import Held, raw_transactions
from pytest_arena._run import _leaks
from pytest_arena.errors import ArenaError, impossible

if TYPE_CHECKING:
    from collections.abc import Callable

    from pluggy import HookRelay

    from pytest_arena._databases._resolver import Databases, Level
    from pytest_arena._gate._connections import PooledConnection
    from pytest_arena._gate._listeners import Gate
    from pytest_arena._ledger import Ledger
    from pytest_arena._product import Database, Isolation
    from pytest_arena._run._late_work import Tasks

_Answer = TypeVar("_Answer")

# Seconds. Other threads and event loops may hold a lock for the length of a transaction.
_PATIENCE = 1.0
_STEP = 0.002


class Levels:
    """Enters and leaves levels on all databases at once, last in, first out.

    A database that is first used inside some levels joins all of them with the content of its
    template. The hooks `pytest_arena_enter` and `pytest_arena_leave` are called with each level.
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
        self._hooks = hooks
        self._tasks = tasks

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
        """Enter a level on top of the stack, on all databases or on none.

        Raises:
            IsolationError: a transaction was still open after a second, or there is no space.
        """
        started = _process.seconds()
        depth = len(self._stack)
        databases = self._databases.provisioned()
        try:
            for database in databases:
                self._enter_database(database, level)
        except (Held, ArenaError) as error:
            for database in databases:
                if _isolation_of(database).depth > depth:
                    _isolation_of(database).forget()
            if isinstance(error, Held):
                holders = _leaks.open_transactions(self.gate)
                raise _leaks.error_of_holders(holders, level.name) from error
            raise
        except BaseException:  # Ctrl-C, a timeout: no caller leaves this level
            self._cut_to(depth)
            raise
        if databases:
            self.gate.invalidate_stale()
        self._stack.append(level)
        self._ledger.isolation_seconds += _process.seconds() - started
        if self._hooks.pytest_arena_enter.get_hookimpls():
            self._hooks.pytest_arena_enter(level=level)

    def _enter_database(self, database: Database, level: Level) -> None:
        enter = partial(
            self._databases.provision.enter, _isolation_of(database), database, level
        )
        self._with_patience(enter)
        # If the level that created the database was dropped, the database belongs to no level. A
        # wider fixture may then write to it too.
        if database.level is not None and database.level not in self._stack:
            database.level = None

    def _with_patience(self, call: Callable[[], _Answer]) -> _Answer:
        """Retry for a second while a lock is held. Run this thread's event loops between attempts.

        Raises:
            Held: another connection still holds the lock.
        """
        end = _process.seconds() + _PATIENCE
        while True:
            try:
                return call()
            except Held:
                if _process.seconds() > end:
                    raise
            self._tasks.run_idle_loops()
            _process.rest(_STEP)

    def drop_if_clean(self, level: Level) -> bool:
        """Drop a level if it is the top one and has no writes. Return whether it was dropped."""
        isolations = [_isolation_of(each) for each in self._databases.provisioned()]
        is_top = self._stack[-1] is level
        if not is_top or not all(isolation.is_clean() for isolation in isolations):
            return False
        try:
            self._call_leave_hooks(level)
        finally:
            self._stack.pop()
            for isolation in isolations:
                isolation.forget()
        return True

    def _call_leave_hooks(self, level: Level) -> None:
        # This check is faster than a call of a hook without implementations.
        if self._hooks.pytest_arena_leave.get_hookimpls():
            self._hooks.pytest_arena_leave(level=level)

    def leave(self, level: Level) -> list[str]:
        """Restore the databases as before the top level. Return the names of the changed ones.

        Raises:
            IsolationError: a transaction of a wider fixture was in the way, or there is no space
                for the content. The level is left in both cases.
        """
        if self._stack[-1:] != [level]:
            raise impossible(f"{level.name}: a level was left that is not the top one")
        started = _process.seconds()
        failures: list[Exception] = []
        changed: list[str] = []
        try:
            try:
                self._call_leave_hooks(level)
            except Exception as error:  # noqa: BLE001 - raised after the databases are restored
                failures.append(error)
            for database in self._databases.provisioned():
                try:
                    is_changed = self._restore(database, level)
                except ArenaError as error:
                    failures.append(error)
                    is_changed = True
                if is_changed:
                    changed.append(database.name)
        finally:  # also after Ctrl-C or a timeout
            self._cut_to(len(self._stack) - 1)
            self.gate.end_level(level.serial)
            self._ledger.isolation_seconds += _process.seconds() - started
        if failures:
            raise failures[0]
        return changed

    def _restore(self, database: Database, level: Level) -> bool:
        """Restore one database with a second's patience, else by force. Return if it had changed.

        Raises:
            IsolationError: see `leave`.
        """
        isolation = _isolation_of(database)
        if isolation.depth < len(self._stack):
            return False  # an interrupted call has left the level
        was_created_here = database.level is level
        may_end = was_created_here or not level.is_test
        if may_end and self._databases.drop_with_level(database, level):
            return True
        if was_created_here:
            database.level = None
        try:
            return self._leave_with_patience(isolation, level)
        except Held:
            holders = self._wider_transactions(level)
            self._leave_by_force(database, f"{{test}}: {database.name}: {_IS_LOCKED}")
            if holders or raw_transactions():
                raise _leaks.error_of_holders(holders, level.name) from None
        except ArenaError as error:
            self._leave_by_force(database, error.what)
        return True

    def _leave_with_patience(self, isolation: Isolation, level: Level) -> bool:
        """Leave the level, or forget it if a wider transaction is open and no row was committed.

        Such a transaction stays open, because the suite may undo each test by a savepoint in it.
        """
        try:
            return isolation.leave()
        except Held:
            # A failed COMMIT leaves a transaction in a pool. A half-read cursor in a reference
            # cycle keeps the lock of its connection.
            self.gate.end_idle_transactions()
            gc.collect()
        transactions = self._wider_transactions(level)
        if not transactions or not isolation.is_untouched():
            return self._with_patience(isolation.leave)
        self._ledger.note(
            f"a fixture keeps a transaction open during its tests ({transactions[0].line}): "
            "pytest-arena does not undo the writes in it"
        )
        serials = set()
        for transaction in transactions:
            if transaction.pending_writes is not None:
                serials |= {serial for _, serial in transaction.pending_writes.writes}
        is_undone = level.serial not in serials
        isolation.forget(is_undone=is_undone)
        return False

    def _wider_transactions(self, level: Level) -> list[PooledConnection]:
        """Return the open transactions that have begun to write before the level."""
        open_transactions = _leaks.open_transactions(self.gate)
        return [
            each for each in open_transactions if not each.has_begun_in(level.serial)
        ]

    def _leave_by_force(self, database: Database, reason: str) -> None:
        _isolation_of(database).leave_by_force()
        self._ledger.note(f"{reason}; {database.product.forced}")

    def _cut_to(self, depth: int) -> None:
        """Leave the levels above ``depth`` by force, as after Ctrl-C or a timeout.

        The database may be half restored, so that only a copy has the right content.
        """
        for database in self._databases.provisioned():
            while _isolation_of(database).depth > depth:
                reason = f"{database.name}: a timeout or Ctrl-C interrupted pytest-arena in it"
                try:
                    self._leave_by_force(database, reason)
                except ArenaError as error:  # the caller raises another failure
                    self._ledger.note(error.what)
        del self._stack[depth:]


_IS_LOCKED = "locked by a connection that pytest-arena does not know or cannot end"


def _isolation_of(database: Database) -> Isolation:
    """Return the isolation of a database that has content."""
    return database.isolation  # type: ignore[return-value]  # `provisioned` has checked it

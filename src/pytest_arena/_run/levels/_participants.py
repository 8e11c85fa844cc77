"""The participants of a level: databases and hooks."""

from __future__ import annotations

import gc
import threading
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from pytest_arena import _process
from pytest_arena._product import Database, Held, Isolation, raw_transactions
from pytest_arena._run import _leaks
from pytest_arena.errors import ArenaError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pluggy import HookRelay

    from pytest_arena._databases._resolver import Databases, Level
    from pytest_arena._gate._listeners import Gate
    from pytest_arena._gate._registry import Checkout
    from pytest_arena._ledger import Ledger
    from pytest_arena._run._late_work import Tasks

_Answer = TypeVar("_Answer")

# Seconds. Other threads and event loops may hold a lock for the length of a transaction.
_PATIENCE = 0.1
_PATIENCE_WITH_OTHERS = 1.0
_STEP = 0.002


class HookParticipant:
    """The hooks ``pytest_arena_enter`` and ``pytest_arena_leave`` of all plugins and conftests."""

    def __init__(self, hooks: HookRelay) -> None:
        self._hooks = hooks

    @property
    def is_used(self) -> bool:
        """Whether a conftest or a plugin implements one of the hooks.

        This check is faster than a call of a hook without implementations.
        """
        hooks = self._hooks
        return bool(
            hooks.pytest_arena_enter.get_hookimpls()
            or hooks.pytest_arena_leave.get_hookimpls()
        )

    def enter(self, level: Level) -> None:
        """Call `pytest_arena_enter`."""
        self._hooks.pytest_arena_enter(level=level)

    def leave(self, level: Level) -> None:
        """Call `pytest_arena_leave`."""
        self._hooks.pytest_arena_leave(level=level)


class LevelContext:
    """The objects that participants use, and their notes about the present levels."""

    def __init__(
        self, databases: Databases, gate: Gate, ledger: Ledger, tasks: Tasks
    ) -> None:
        self.databases = databases
        self.gate = gate
        self.ledger = ledger
        self.tasks = tasks
        # The transactions of wider fixtures that pytest-arena had to end.
        self.lost: list[Checkout] = []
        self.has_ended_leaks = False

    def leaks_ended(self) -> None:
        """Record that pytest-arena ended a leak of this level. A lock may remain for a moment."""
        self.has_ended_leaks = True

    def forget_leaks(self) -> None:
        """Forget the ended leaks of a level that is left."""
        self.has_ended_leaks = False

    def take_lost(self) -> list[Checkout]:
        """Return the ended transactions of wider fixtures, and forget them."""
        lost = self.lost
        self.lost = []
        return lost

    def with_patience(self, call: Callable[[], _Answer], seconds: float) -> _Answer:
        """Retry until no lock is held. Run this thread's event loops between attempts.

        Raises:
            Held: another connection still held the lock after ``seconds``.
        """
        end = _process.seconds() + seconds
        while True:
            try:
                return call()
            except Held:
                if _process.seconds() > end:
                    raise
            self.tasks.run_idle_loops()
            _process.rest(_STEP)


class DatabaseParticipant:
    """A database in a level. pytest-arena restores it even if a connection holds a lock on it."""

    def __init__(
        self, database: Database, isolation: Isolation, context: LevelContext
    ) -> None:
        self.database = database
        self.name = database.name
        self.isolation = isolation
        self._context = context

    def enter(self, level: Level) -> None:
        """Open a level in the database.

        Raises:
            Held: a transaction was still open after a second.
            ArenaError: there is no space for the level, or the server does not answer.
        """
        databases = self._context.databases
        enter = partial(databases.provision.enter, self.isolation, self.database, level)
        self._context.with_patience(enter, _PATIENCE_WITH_OTHERS)
        # If the level that created the database was dropped, the database belongs to no level. A
        # wider fixture may then write to it too.
        created_in = self.database.level
        if created_in is not None and created_in not in databases.levels:
            self.database.forget_level()

    def leave(self, level: Level) -> bool:
        """Restore the content from the matching ``enter``. Return whether it had changed.

        If a lock is in the way, pytest-arena waits for the transactions, then ends them. If the
        lock remains, pytest-arena leaves the level by force.

        Raises:
            ArenaError: there is no space for the content, or the server does not answer.
        """
        databases = self._context.databases
        if self.isolation.depth < len(databases.levels):
            return False  # an interrupted call has left the level
        was_created_here = self.database.level is level
        may_end = was_created_here or not level.is_test
        if may_end and databases.drop_with_level(self.database, level):
            return True
        if was_created_here:
            self.database.forget_level()
        try:
            is_changed = self._leave_now()
            if is_changed is None:
                is_changed = self._leave_despite_locks(level)
        except ArenaError as error:
            reason = error.what
        else:
            if is_changed is not None:
                return is_changed
            reason = f"{{test}}: {self.name}: locked by {self._holder()}"
        self.leave_by_force(reason)
        return True

    def _holder(self) -> str:
        lines = raw_transactions()
        if lines:
            return f"a connection that no engine has opened ({', '.join(lines)})"
        return (
            "a connection that pytest-arena does not know or cannot end "
            "(another process, a half-read cursor)"
        )

    def leave_by_force(self, reason: str) -> None:
        """Leave the level despite locks, and note the reason.

        Raises:
            IsolationError: there is no space for it. The level is left nevertheless.
        """
        self.isolation.leave_by_force()
        self._context.ledger.note(f"{reason}; {self.database.product.forced}")

    def _leave_now(self) -> bool | None:
        """Leave the level. Return whether the database had changed, None if a lock prevents it."""
        # A leaked reader does not block this restore, but it would block the next test.
        if self._context.has_ended_leaks and not self.isolation.is_free():
            return None
        with suppress(Held):
            return self.isolation.leave()
        return None

    def _leave_despite_locks(self, level: Level) -> bool | None:
        """Leave the level like `_leave_now`, after transactions have ended or were ended.

        A transaction of a wider fixture stays open if no row was committed in the level. Other
        transactions get a second to end. Then pytest-arena ends them.
        """
        context = self._context
        gate = context.gate
        gate.end_idle_transactions()
        transactions = _leaks.open_transactions(gate)
        are_of_fixtures = not any(
            transaction.has_begun_in(level.serial) for transaction in transactions
        )
        if transactions and are_of_fixtures and self.isolation.is_untouched():
            # The suite may undo each test by a savepoint in the fixture's transaction.
            self._keep_transaction_of_fixture(transactions, level)
            return False
        patience = _PATIENCE_WITH_OTHERS if self._may_end_by_itself() else 0
        is_changed = self._leave_with_patience(patience)
        if is_changed is not None:
            return is_changed
        # A half-read cursor in a reference cycle keeps the lock of its connection.
        gc.collect()
        # Wait for a second in total, even if no known connection is in use. An unknown reader that
        # polls the database may be in a transaction now.
        is_changed = self._leave_with_patience(_PATIENCE_WITH_OTHERS - patience)
        if is_changed is not None:
            return is_changed
        for transaction in _leaks.open_transactions(gate):
            if not transaction.has_begun_in(level.serial):
                context.lost.append(transaction)
        _leaks.end_transactions(gate.registry.checked_out())
        return self._leave_with_patience(_PATIENCE)

    def _keep_transaction_of_fixture(
        self, transactions: list[Checkout], level: Level
    ) -> None:
        line = transactions[0].line
        self._context.ledger.note(
            f"a fixture keeps a transaction open during its tests ({line}): pytest-arena "
            "does not undo the writes in it"
        )
        written = [write for each in transactions for write in each.writes]
        is_undone = all(write.serial != level.serial for write in written)
        self.isolation.forget(is_undone=is_undone)

    def _may_end_by_itself(self) -> bool:
        """Return whether another thread or an event loop may return its connection."""
        checkouts = self._context.gate.registry.checked_out()
        this_thread = threading.get_ident()
        if any(checkout.thread != this_thread for checkout in checkouts):
            return True
        return bool(checkouts and self._context.tasks.run_idle_loops())

    def _leave_with_patience(self, seconds: float) -> bool | None:
        # A reader that polls the database holds its lock for less than a millisecond.
        def leave() -> bool:
            is_changed = self._leave_now()
            if is_changed is None:
                raise Held
            return is_changed

        with suppress(Held):
            return self._context.with_patience(leave, seconds)
        return None

"""The levels of tests and wider fixtures, and the stack of all levels."""

from __future__ import annotations

import gc
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, TypeVar

from pytest_arena import _process
from pytest_arena._databases._provision import Level
from pytest_arena._gate._connections import sessions_in_use
from pytest_arena._owner import Owner, begin_phase
from pytest_arena._product import Held, raw_transactions
from pytest_arena._run import _leaks
from pytest_arena._run._story import warn_of_loss_in_fixture
from pytest_arena._run._test import Current, RunningTest
from pytest_arena._values import Stage
from pytest_arena.errors import ArenaError, IsolationError, impossible
from pytest_arena.warnings import LateWorkWarning, LeakWarning

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pluggy import HookRelay

    from pytest_arena._databases._resolver import Databases
    from pytest_arena._gate._connections import PooledConnection
    from pytest_arena._gate._listeners import Gate
    from pytest_arena._ledger import Ledger
    from pytest_arena._product import Database, Isolation
    from pytest_arena._run._apps import Apps
    from pytest_arena._run._leaks import Tasks
    from pytest_arena._run._processes import Process
    from pytest_arena._values import CodeLine

_Answer = TypeVar("_Answer")

# Seconds. Other threads and event loops may hold a lock for the length of a transaction.
_PATIENCE = 1.0
_STEP = 0.002


class WideFixture(Owner):
    """A fixture that outlives the test: of a class, a module, a package or the session.

    ``finish`` makes pytest tear down the fixture and the fixtures that use it. pytest sets it up
    again at its next use.

    ``requesters`` are the fixtures whose set-up requested this one by ``getfixturevalue``, the
    innermost last.
    """

    def __init__(
        self,
        name: str,
        finish: Callable[[], object],
        getfixturevalue: Callable[[str], Any],
        requesters: tuple[WideFixture, ...] = (),
    ) -> None:
        # The serial identifies the fixture's levels. If its first level was dropped as clean, its
        # tear-down gets another level.
        super().__init__(name, "the fixture's tear-down", next(_serials))
        self.finish = finish
        self.getfixturevalue = getfixturevalue
        self.requesters = requesters


_serials = count(-1, -1)


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
        *,
        current: Current,
        apps: Apps,
        tasks: Tasks,
    ) -> None:
        self._databases = databases
        self._stack = databases.levels
        self.gate = gate
        self._ledger = ledger
        self._hooks = hooks
        self._current = current
        self._apps = apps
        self._tasks = tasks
        # The programs that a test or a wider fixture has started.
        self.processes: dict[object, list[Process]] = {}

    # All levels

    def find(self, owner: object) -> Level | None:
        """Return the level of a fixture or a test, None if it has none."""
        for level in self._stack:
            if level.owner is owner:
                return level
        return None

    def above(self, level: Level) -> list[Level]:
        """Return the levels above this one, the top first."""
        number = self._stack.index(level) + 1
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
            for database, isolation in databases.items():
                self._enter_database(database, isolation, level)
        except (Held, ArenaError) as error:
            for isolation in databases.values():
                if isolation.depth > depth:
                    isolation.forget()
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

    def _enter_database(
        self, database: Database, isolation: Isolation, level: Level
    ) -> None:
        enter = self._databases.provision.enter
        self._with_patience(partial(enter, isolation, database, level))

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
        isolations = self._databases.provisioned().values()
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
            for database, isolation in self._databases.provisioned().items():
                try:
                    is_changed = self._restore(database, isolation, level)
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

    def _restore(self, database: Database, isolation: Isolation, level: Level) -> bool:
        """Restore one database with a second's patience, else by force. Return if it had changed.

        Raises:
            IsolationError: see `leave`.
        """
        if isolation.depth < len(self._stack):
            return False  # an interrupted call has left the level
        if self._databases.drop_with_level(database, level):
            return True
        try:
            return self._leave_with_patience(isolation)
        except Held:
            holders = self._wider_transactions(level)
            reason = f"{{test}}: {database.name}: {_IS_LOCKED}"
            self._leave_by_force(database, isolation, reason)
            if holders or raw_transactions():
                raise _leaks.error_of_holders(holders, level.name) from None
        except ArenaError as error:
            self._leave_by_force(database, isolation, error.what)
        return True

    def _leave_with_patience(self, isolation: Isolation) -> bool:
        try:
            return isolation.leave()
        except Held:
            # A half-read cursor in a reference cycle keeps the lock of its connection.
            gc.collect()
        return self._with_patience(isolation.leave)

    def _wider_transactions(self, level: Level) -> list[PooledConnection]:
        """Return the open transactions that have begun to write before the level."""
        open_transactions = _leaks.open_transactions(self.gate)
        return [
            each for each in open_transactions if not each.has_begun_in(level.serial)
        ]

    def _leave_by_force(
        self, database: Database, isolation: Isolation, reason: str
    ) -> None:
        isolation.leave_by_force()
        self._ledger.note(f"{reason}; {database.product.forced}")

    def _cut_to(self, depth: int) -> None:
        """Leave the levels above ``depth`` by force, as after Ctrl-C or a timeout.

        The database may be half restored, so that only a copy has the right content.
        """
        for database, isolation in self._databases.provisioned().items():
            while isolation.depth > depth:
                reason = f"{database.name}: a timeout or Ctrl-C interrupted pytest-arena in it"
                try:
                    self._leave_by_force(database, isolation, reason)
                except ArenaError as error:  # the caller raises another failure
                    self._ledger.note(error.what)
        del self._stack[depth:]

    # The test

    def enter_test(self) -> None:
        """Enter the level of the test, before its first function fixture or before its call."""
        test = self._current.test
        if test is None or test.settled or test.has_level:
            return
        plan = test.plan
        level = Level(
            test, plan.name, test.serial, plan.stage, isolation=plan.isolation
        )
        self.enter(level)
        # Record the app's state after the set-up of the wider fixtures, so that the end of the test
        # keeps their overrides.
        test.has_level = True
        test.app_state = self._apps.state()

    def settle_test(self) -> None:
        """End a test after its fixtures. Idempotent.

        Like each level, it ends in four steps. A failure never stops the next step.

        1. Cancel its tasks and jobs, after a wait for work of its requests.
        2. Roll back and close its connections, and its transactions in sessions of others.
        3. Restore the databases, if it has used any. Wait a second for locks.
        4. Restore by a copy what is still locked, with a note in the summary.
        """
        begin_phase(None)  # what follows is no work of the test
        test = self._current.test
        if test is None or test.settled:
            return
        test.settled = True
        test.is_used = self._has_used_anything(test)
        steps: list[Callable[[RunningTest], None]] = [
            self._end_work,
            self._end_connections,
            self._restore_app_state,
            self._restore_databases,
        ]
        if not test.is_used:
            test.owner.end()
            steps = steps[2:]
        interruption: BaseException | None = None
        for step in steps:
            try:
                step(test)
            except Exception as error:  # noqa: BLE001 - the report of the test has it
                test.errors.append(error)
            except BaseException as error:  # noqa: BLE001 - Ctrl-C, a timeout: raised below
                interruption = error
        if interruption is not None:
            raise interruption

    def _has_used_anything(self, test: RunningTest) -> bool:
        return bool(
            test.sessions.is_used
            or test.app_runs
            or self._apps.live
            or self.processes
            or test.owner.has_begun
            or test.open_requests
            # The test may have left work in a session, a connection or an event loop.
            or sessions_in_use()
            or self.gate.registry.checked_out()
            or self._tasks.has_loops
        )

    def end_processes(self, owner: object) -> None:
        """Stop the programs that a test or a wider fixture has started, the last one first."""
        for process in reversed(self.processes.pop(owner, [])):
            process.stop()
            if process.complaint:
                self._ledger.note(f"{{test}}: `{process.command}` {process.complaint}")

    def _end_work(self, test: RunningTest) -> None:
        """Wait for work of requests, close the clients, and cancel what still runs."""
        # The stack calls the last callback first, and continues after a failure.
        with ExitStack() as stack:
            stack.callback(self._cancel_tasks, test)
            if test.sessions.is_used:
                stack.callback(test.sessions.close)
            for app_run in test.app_runs:
                stack.callback(app_run.close)
            for app_run in self._apps.wide_runs.values():
                stack.callback(app_run.close_lifespan_of_test)
            stack.callback(self._await_late_work, test)
            stack.callback(self.end_processes, test)

    def _await_late_work(self, test: RunningTest) -> None:
        cancelled: list[CodeLine | str] = []
        if self._apps.live is not None:
            patience = 0 if test.failed else test.owner.patience
            cancelled += self._apps.live.drain(patience)
        # End open requests before the wait. A request that is inside a statement ends later.
        cancelled += test.close_requests()
        if not test.failed:
            cancelled += test.owner.wait_for_work()
            test.owner.note_cancelled(cancelled)

    def _cancel_tasks(self, test: RunningTest) -> None:
        # Called after the clients are closed: an open request may need its database to finish.
        owner = test.owner
        owner.end_work()
        for line in owner.cut_off:
            self._ledger.warn(
                LateWorkWarning,
                "the test ended, and work that a request had begun was cut off",
                cause=line,
                fix="await arena.settled()   before the test checks the result (or a longer "
                "arena_settle)",
            )
        for line in self._tasks.end():
            if line not in owner.cut_off:
                self._ledger.warn(
                    LeakWarning,
                    "the test left a task running, and pytest-arena cancelled it",
                    cause=line,
                    fix="await the task in the test, or cancel it",
                )

    def _end_connections(self, test: RunningTest) -> None:
        _leaks.end_connections_of_test(
            self.gate, self._ledger, test.owner, has_failed=test.failed
        )

    def _restore_app_state(self, test: RunningTest) -> None:
        # After the search for leaks: the restore frees a connection that only app.state holds.
        if test.app_state is not None:
            test.app_state.restore()

    def _restore_databases(self, test: RunningTest) -> None:
        level = self.find(test)
        if level is None:
            return
        test.take_lost()  # also what late work has lost
        if test.is_used or self.above(level):
            self.finish_above(level)
            _leaks.empty_sessions(self._ledger, has_failed=test.failed)
        changed = self.leave(level)
        test.changed.update(dict.fromkeys(changed))

    # Wider fixtures

    @contextmanager
    def fixture(self, owner: WideFixture) -> Iterator[None]:
        """Enter a level around the set-up of a wider fixture.

        pytest-arena drops the level at once if the set-up wrote nothing, and leaves it at once if
        the set-up failed.
        """
        level = Level(owner, owner.name, owner.serial)
        with self._below_level_of_test():
            self._current.being_set_up.append(owner)  # it may call `getfixturevalue`
            try:
                self.enter(level)
                yield
                for lost in self.gate.lost.by_level.get(owner.serial, ()):
                    warn_of_loss_in_fixture(self._ledger, owner.name, lost)
            except BaseException:
                self.leave_fixture(owner)
                raise
            finally:
                self._current.being_set_up.pop()
            owner.note_idle(is_idle=True)
            self.drop_if_clean(level)

    @contextmanager
    def _below_level_of_test(self) -> Iterator[None]:
        """Put the level of a wider fixture below the test's level, if the test has not written.

        A test may request a wider fixture by ``getfixturevalue``. If the test has written before,
        the fixture's level is above the test's level, and ends with it.
        """
        test = self._current.test
        if test is None:
            yield
            return
        has_changed_app = test.app_state is not None and test.app_state.is_changed()
        level = self.find(test)
        is_below = (
            level is not None
            and test.plan.stage is Stage.SEEDED
            and self.drop_if_clean(level)
        )
        try:
            yield
        finally:
            if level is not None and is_below:
                self.enter(level)
            if not has_changed_app:
                # The overrides of the fixture stay after the test.
                test.app_state = self._apps.state()

    def before_teardown(self, owner: WideFixture) -> None:
        """Leave the levels above a wider fixture's level, before the tear-down of the fixture."""
        if self._current.in_teardown:
            self.settle_test()
        level = self.find(owner)
        if level is None:
            try:
                # The tear-down may write, so it needs a level.
                self.enter(Level(owner, owner.name, owner.serial))
            except ArenaError as error:
                # After an error here, pytest would keep a fixture that is half torn down.
                self._ledger.note(error.what)
        else:
            self.finish_above(level, requester=owner)
        owner.note_idle(is_idle=False)
        # Call this last, because the end of another fixture does, too.
        begin_phase(owner)

    def leave_fixture(self, owner: object) -> None:
        """Leave the level of a wider fixture after its tear-down, if it has one."""
        if isinstance(owner, WideFixture):
            _leaks.end_connections_of_fixture(self.gate, owner)
            owner.end()
            begin_phase(self._current.phase)
            self.gate.lost.by_level.pop(owner.serial, None)
        level = self.find(owner)
        if level is None:
            return
        try:
            self.finish_above(level)
            self.end_processes(owner)
            self._apps.close_of(owner)
            _leaks.empty_sessions(self._ledger, has_failed=True)
        finally:
            # After a failed set-up, a fixture that this one requested may already have left the
            # level.
            if self.find(owner) is level:
                # If Ctrl-C interrupted `finish_above`, other levels may still be above this one.
                for upper in self.above(level):
                    self.leave(upper)
                self.leave(level)

    def finish_above(
        self, level: Level, *, requester: WideFixture | None = None
    ) -> None:
        """Tear down the fixtures whose levels are above ``level``. pytest sets them up again.

        Fixtures that ``requester`` requested stay, because its tear-down may need them.
        """
        for upper in self.above(level):
            if self.find(upper.owner) is not upper:
                continue  # the end of another level has left this one
            match upper.owner:
                case RunningTest() as test if not test.settled:
                    self._end_running_test(test)
                case WideFixture() as fixture:
                    if requester not in fixture.requesters:
                        fixture.finish()
                        self.leave_fixture(fixture)
                case _:  # the start of the app, or an interrupted test
                    self.leave_unfinished(upper)

    def leave_unfinished(self, level: Level) -> None:
        """Leave a level that pytest does not tear down. Its changes count as the test's."""
        self.finish_above(level)
        changed = self.leave(level)
        if self._current.test is not None:
            self._current.test.changed.update(dict.fromkeys(changed))

    def _end_running_test(self, test: RunningTest) -> None:
        """End a test whose wider fixture ends, because code finishes it by hand."""
        self.settle_test()
        test.errors.append(
            IsolationError(
                f"{test.plan.name}: a wider fixture of this test ended while the test ran",
                why="the test's rows depend on the fixture's rows, so pytest-arena removed both",
                cause="code that finishes fixtures by hand",
                fix="ask for the fixture in the test's arguments",
            )
        )


_IS_LOCKED = "locked by a connection that pytest-arena does not know or cannot end"

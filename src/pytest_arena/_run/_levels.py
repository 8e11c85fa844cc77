"""The levels of tests and wide fixtures, and the stack of all levels."""

from __future__ import annotations

import gc
import os
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from pytest_arena import _process
from pytest_arena._gate._listeners import gate
from pytest_arena._interpreter import on_audit_events
from pytest_arena._origin import as_own, is_importing, is_own
from pytest_arena._owner import WideFixture, begin_phase
from pytest_arena._product import Held
from pytest_arena._run import _leaks
from pytest_arena._run._story import warn_of_loss
from pytest_arena._values import Stage
from pytest_arena.errors import ArenaError, IsolationError
from pytest_arena.warnings import LateWorkWarning, LeakWarning

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from pluggy import HookRelay

    from pytest_arena._databases._resolver import Databases
    from pytest_arena._owner import Owner
    from pytest_arena._process import Answer
    from pytest_arena._product import Database, Isolation
    from pytest_arena._redis import Redis
    from pytest_arena._run._leaks import Tasks
    from pytest_arena._run._processes import Process
    from pytest_arena._run._test import Current, RunningTest
    from pytest_arena._run._test_apps import Apps
    from pytest_arena._values import CodeLine


# Seconds. Other threads and event loops may hold a lock for the length of a transaction.
_PATIENCE = 1.0
_STEP = 0.002


class Variables:
    """Puts the variables of the environment back at the end of a test or a wide fixture.

    Python reports each change before it happens. So nothing is copied where nothing changes.
    """

    def __init__(self, urls: Collection[str]) -> None:
        # Those of `arena_env`: no import may lead later tests to the developer's database.
        self._urls = urls
        # For each living owner the values before its first change. The last owner runs now.
        self._before: dict[Owner, dict[str, str | None]] = {}
        on_audit_events({"os.putenv": self._note, "os.unsetenv": self._note})

    def _note(self, key: bytes | str, *_value: object) -> None:
        name = os.fsdecode(key)
        # pytest itself names the running test by such a variable.
        if not self._before or name.startswith("PYTEST_") or is_own():
            return
        is_url = name in self._urls and name in os.environ
        if not is_url and is_importing():
            return  # what an import sets stays, because a module is imported once
        *_, values = self._before.values()
        values.setdefault(name, os.environ.get(name))

    def begin(self, owner: Owner) -> None:
        """Note changes for this owner from now on."""
        self._before[owner] = self._before.pop(owner, {})

    def end(self, owner: Owner) -> None:
        """Put back what this owner has changed."""
        with as_own():
            for name, value in self._before.pop(owner, {}).items():
                if value is not None:
                    os.environ[name] = value
                else:
                    os.environ.pop(name, None)


class Levels:
    """Enters and leaves levels on all databases at once, last in, first out.

    A database that is first used inside some levels joins all of them with the content of its
    template. Each owner also has its state beside the databases: that of the hooks
    `pytest_arena_enter` and `pytest_arena_leave`, the environment's variables, and Redis.
    """

    def __init__(
        self,
        databases: Databases,
        hooks: HookRelay,
        current: Current,
        apps: Apps,
        tasks: Tasks,
    ) -> None:
        self._databases = databases
        self._stack = databases.levels
        self._ledger = databases.ledger
        self._hooks = hooks
        self._current = current
        self._apps = apps
        self._tasks = tasks
        # The owners whose state beside the databases has begun.
        self._begun: set[Owner] = set()
        # What pytest-arena restores beside the databases.
        self.beside: list[Variables | Redis] = [Variables(databases.config.env)]
        # The programs that a test or a wide fixture has started.
        self.processes: dict[object, list[Process]] = {}

    def enter(self, level: Owner) -> None:
        """Enter a level on top of the stack, on all databases or on none."""
        started = _process.seconds()
        depth = len(self._stack)
        databases = self._databases.provisioned
        try:
            for database, isolation in databases.items():
                self._with_patience(
                    partial(self._databases.provision.enter, isolation, database, level)
                )
        except BaseException as error:  # also Ctrl-C or a timeout
            # No caller leaves this level.
            for isolation in databases.values():
                if isolation.depth > depth:
                    isolation.forget()
            if isinstance(error, Held):
                raise IsolationError(
                    f"{level.name}: an open transaction of a wide fixture is in the way",
                    why="pytest-arena cannot restore the database while a transaction holds its "
                    "lock",
                    cause=_leaks.lines_of_error(_leaks.lines_of_holders()),
                    fix="commit, or roll back, before the fixture's `yield`",
                ) from error
            raise
        gate.invalidate_stale()
        self._stack.append(level)
        self._ledger.isolation_seconds += _process.seconds() - started
        if level in self._begun:
            return  # the tear-down of a wide fixture enters its level again
        self._begun.add(level)
        for state in self.beside:
            state.begin(level)
        self._hooks.pytest_arena_enter(level=level)

    def _with_patience(self, call: Callable[[], Answer]) -> Answer:
        """Retry for a second while a lock is held. Run idle event loops between attempts."""
        end = 0.0
        while True:
            try:
                return call()
            except Held:
                if end and _process.seconds() > end:
                    raise
            if not end:
                end = _process.seconds() + _PATIENCE
                # A half-read cursor in a reference cycle keeps the lock of its connection.
                gc.collect()
            self._tasks.run_idle_loops()
            _process.rest(_STEP)

    def drop_if_clean(self, level: Owner) -> bool:
        """Drop a level if it is the top one and has no writes. Return whether it was dropped."""
        isolations = self._databases.provisioned.values()
        is_top = self._stack[-1] is level
        if not is_top or not all(isolation.is_clean() for isolation in isolations):
            return False
        self._stack.pop()
        for isolation in isolations:
            isolation.forget()
        return True

    def _end_beside(self, owner: Owner) -> None:
        """End the state beside the databases, if it has begun."""
        if owner not in self._begun:
            return
        self._begun.remove(owner)
        try:
            self._hooks.pytest_arena_leave(level=owner)
        finally:
            for state in self.beside:
                state.end(owner)

    def leave(self, level: Owner) -> bool:
        """Restore the databases as before a level. Return whether one was changed.

        An interruption may have left other levels above it.
        """
        is_changed = False
        while level in self._stack:
            is_changed |= self._leave_top()
        return is_changed

    def _leave_top(self) -> bool:
        level = self._stack[-1]
        started = _process.seconds()
        failures: list[BaseException] = []
        is_changed = False
        try:
            try:
                self._end_beside(level)
            except BaseException as error:  # noqa: BLE001 - raised after the databases are restored
                failures.append(error)
            for database, isolation in self._databases.provisioned.items():
                try:
                    is_changed |= self._leave_database(database, isolation, level)
                except ArenaError as error:
                    failures.append(error)
        finally:  # also after Ctrl-C or a timeout
            self._cut_to(len(self._stack) - 1)
            gate.invalidate_stale()
            gate.registry.end_level(level)
            gate.lost.by_level.pop(level, None)
            self._ledger.isolation_seconds += _process.seconds() - started
        if failures:
            raise failures[0]
        return is_changed

    def _leave_database(self, database: Database, isolation: Isolation, level: Owner) -> bool:
        """Restore one database with a second's patience, else by force. Return if it changed."""
        if self._databases.drop_with_level(database, level):
            return True
        try:
            return self._with_patience(isolation.leave)
        except Held:
            holders = ", ".join(_leaks.lines_of_holders())
            unknown = "an unread result, or a connection that pytest-arena does not know"
            reason = f"{{test}}: {database.name}: locked by {holders or unknown}"
            self._leave_by_force(database, isolation, reason)
        except ArenaError as error:
            self._leave_by_force(database, isolation, error.what)
        return True

    def _leave_by_force(self, database: Database, isolation: Isolation, reason: str) -> None:
        isolation.leave_by_force()
        self._ledger.note(f"{reason}; {database.product.forced}")

    def _cut_to(self, depth: int) -> None:
        """Leave the levels above ``depth`` by force, as after Ctrl-C or a timeout.

        The database may be half restored, so that only a copy has the right content.
        """
        for database, isolation in self._databases.provisioned.items():
            while isolation.depth > depth:
                reason = f"{database.name}: a timeout or Ctrl-C interrupted pytest-arena in it"
                self._leave_by_force(database, isolation, reason)
        del self._stack[depth:]

    def enter_test(self) -> None:
        """Enter the level of the test, before its first function fixture or before its call."""
        test = self._current.required_test()
        self.enter(test)
        # Record the app's state after the set-up of the wide fixtures, so that the end of the test
        # keeps their overrides.
        test.has_level = True
        test.app_state = self._apps.state()

    def settle_test(self) -> None:
        """End a test after its fixtures. Idempotent.

        It ends in four steps. A failure never stops the next step.

        1. Stop its programs, wait for work, close its apps and sessions, cancel its tasks.
        2. Roll back and close its connections, and its transactions in sessions of others.
        3. Restore the app's state.
        4. Restore the databases: a second's patience for locks, else a copy, with a note.
        """
        test = self._current.test
        if test is None or test.settled:
            begin_phase(None)
            return
        test.settled = True
        steps: list[Callable[[], object]] = [
            lambda: test.errors.extend(self.end_processes(test)),
            partial(self._await_late_work, test),
        ]
        steps += [app_run.close_lifespan_of_test for app_run in self._apps.wide_runs.values()]
        steps += [app_run.close for app_run in test.app_runs]
        if test.sessions.opened:
            steps.append(test.sessions.close)
        steps += [
            partial(self._cancel_tasks, test),
            test.end,
            partial(begin_phase, None),  # what follows is no work of the test
            partial(_leaks.end_connections_of_test, test, has_failed=test.failed),
        ]
        # After the search for leaks: the restore frees a connection that only app.state holds.
        if test.app_state is not None:
            steps.append(test.app_state.restore)
        steps.append(partial(self._restore_databases, test))
        interruption: BaseException | None = None
        for step in steps:
            try:
                step()
            except BaseException as error:  # noqa: BLE001 - raised below, or at the test's end
                if _process.is_interruption(error):
                    interruption = error
                else:
                    test.errors.append(error)
        if interruption is not None:
            raise interruption

    def end_processes(self, owner: object) -> list[ArenaError]:
        """Stop the programs that a test or a wide fixture has started, the last one first.

        Return the errors of programs that have failed.
        """
        processes = self.processes.pop(owner, [])
        for process in reversed(processes):
            process.stop()
        return [process.failure for process in processes if process.failure]

    def _await_late_work(self, test: RunningTest) -> None:
        cancelled: list[CodeLine | str] = []
        if self._apps.live is not None:
            cancelled += self._apps.live.drain(test.patience)
        if test.failed:
            return
        if test.may_have_late_work:
            cancelled += test.wait_for_work(test.patience)
        test.cut_off |= dict.fromkeys(cancelled)

    def _cancel_tasks(self, test: RunningTest) -> None:
        # Called after the clients are closed: an open request may need its database to finish.
        for line in test.cut_off:
            self._ledger.warn(
                LateWorkWarning,
                "the test ended, and work that a request had begun was cut off",
                cause=line,
                fix="await arena.settled()   before the test checks the result (or a longer "
                "arena_settle)",
            )
        for line in self._tasks.end(test):
            if line not in test.cut_off:
                self._ledger.warn(
                    LeakWarning,
                    "the test left a task running, and pytest-arena cancelled it",
                    cause=line,
                    fix="await the task in the test, or cancel it",
                )

    def _restore_databases(self, test: RunningTest) -> None:
        test.take_lost()  # also what late work has lost
        try:
            self._finish_above(test)
            _leaks.empty_sessions(has_failed=test.failed)
        finally:
            test.is_changed = self.leave(test)

    def leave_nested(self, level: Owner) -> None:
        """Leave a level inside of the test's, if the end of the test has not left it."""
        self._finish_above(level)
        self.leave(level)

    @contextmanager
    def fixture(self, owner: WideFixture) -> Iterator[None]:
        """Enter a level around the set-up of a wide fixture.

        pytest-arena drops the level at once if the set-up wrote nothing, and leaves it at once if
        the set-up failed.
        """
        with self._below_level_of_test():
            try:
                self.enter(owner)
                yield
                for lost in gate.lost.by_level.get(owner, ()):
                    if lost.is_lost:
                        warn_of_loss(self._ledger, owner.name, lost)
            except BaseException:
                self.leave_fixture(owner)
                raise
            owner.is_idle = True
            self.drop_if_clean(owner)

    @contextmanager
    def _below_level_of_test(self) -> Iterator[None]:
        """Put the level of a wide fixture below the test's level, if the test has not written.

        A test may request a wide fixture by ``getfixturevalue``. If the test has written before,
        the fixture's level is above the test's level, and ends with it.
        """
        test = self._current.required_test()
        has_changed_app = test.app_state is not None and test.app_state.is_changed()
        is_below = test in self._stack and test.stage is Stage.SEEDED and self.drop_if_clean(test)
        try:
            if is_below:
                self._begun.remove(test)
                self._hooks.pytest_arena_leave(level=test)
            yield
        finally:
            if is_below:
                self.enter(test)
            if not has_changed_app:
                # The overrides of the fixture stay after the test.
                test.app_state = self._apps.state()

    def before_teardown(self, owner: WideFixture) -> None:
        """Leave the levels above a wide fixture's level, before the tear-down of the fixture."""
        if self._current.in_teardown:
            self.settle_test()
        if owner in self._stack:
            self._finish_above(owner)
        else:
            try:
                self.enter(owner)  # the tear-down may write
            except ArenaError as error:
                # After an error here, pytest would keep a fixture that is half torn down.
                self._ledger.note(error.what)
        owner.is_idle = False
        # A failed set-up has ended the owner, and its finalizers may write.
        owner.is_over = False
        # Call this last, because the end of another fixture does, too.
        begin_phase(owner)

    def leave_fixture(self, owner: Owner) -> None:
        """Leave the level of a wide fixture after its tear-down, if it has one."""
        owner.end()
        test = self._current.test
        begin_phase(None if test is None or test.settled else test)
        try:
            _leaks.end_connections_of_fixture(owner)
            self._finish_above(owner)
            failures = self.end_processes(owner)
            self._apps.close_of(owner)
            _leaks.empty_sessions(has_failed=True)
            for failure in failures:
                raise failure
        finally:
            # After a failed set-up, a fixture that this one requested may already have left the
            # level.
            self.leave(owner)
            self._end_beside(owner)  # if the fixture had no level

    def _finish_above(self, level: Owner) -> None:
        """Tear down the fixtures whose levels are above ``level``. pytest sets them up again."""
        above = self._stack[self._stack.index(level) + 1 :] if level in self._stack else []
        for fixture in reversed(above):
            if isinstance(fixture, WideFixture):
                fixture.finish()
                self.leave_fixture(fixture)

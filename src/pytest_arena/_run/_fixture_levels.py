"""Levels of tests, wider fixtures and examples."""

from __future__ import annotations

import threading
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

from pytest_arena._app._app_state import OVERRIDES, AppState
from pytest_arena._databases._resolver import Level
from pytest_arena._gate._orm_sessions import session_numbers
from pytest_arena._origin import OF_WIDE_FIXTURE, OWNERS, WORK
from pytest_arena._run._long_sessions import LongSessions
from pytest_arena._run._story import lost_by_fixture, lost_words
from pytest_arena._run._test import Current, RunningTest, Watcher
from pytest_arena._run.leaks._late_work import lines_of_error
from pytest_arena._run.leaks._leaks import empty_sessions
from pytest_arena._values import Stage
from pytest_arena.errors import (
    ArenaError,
    ConnectionLeak,
    IsolationError,
    LateWorkError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_arena._app._app_run import AppRun
    from pytest_arena._config._read import Config
    from pytest_arena._databases._sessions import Memory
    from pytest_arena._ledger import Ledger
    from pytest_arena._process import AnyTask
    from pytest_arena._run._apps import Apps
    from pytest_arena._run._processes import Process
    from pytest_arena._run.leaks._leaks import HeldBeforeLevel
    from pytest_arena._run.leaks._loop_tasks import Tasks
    from pytest_arena._run.levels._levels import Levels


@dataclass(slots=True, eq=False, weakref_slot=True)
class WideFixture:
    """A fixture that outlives the test: of a class, a module, a package or the session.

    ``finish`` makes pytest tear down the fixture and the fixtures that use it. pytest sets it up
    again at its next use.
    """

    name: str
    finish: Callable[[], object]
    getfixturevalue: Callable[[str], Any]  # of the fixture's request
    # The fixtures whose set-up requested this one by `getfixturevalue`, the innermost last.
    requesters: tuple[WideFixture, ...] = ()
    # Identifies the fixture's levels. If its first level was dropped as clean, its tear-down gets
    # another level.
    serial: int = field(default_factory=count(-1, -1).__next__)
    lasts_whole_run: bool = False  # whether the fixture lives until the end of the run
    # The state of the app before the set-up, if the end of the fixture restores it.
    app_state: AppState | None = None
    # As in `ThreadOwner`.
    end: str = "the fixture's tear-down"
    is_lifespan: bool = False
    request: object = None
    is_up: bool = True

    def remember_app(self, state: AppState | None) -> None:
        """Record the state of the app, which pytest-arena restores when the fixture ends."""
        self.app_state = state

    def note_end(self) -> None:
        """Note that the fixture has ended."""
        self.is_up = False


class FixtureLevels:
    """The levels of wider fixtures, of the test above them, and of its examples."""

    def __init__(
        self,
        levels: Levels,
        current: Current,
        apps: Apps,
        tasks: Tasks,
        ledger: Ledger,
        *,
        config: Config,
    ) -> None:
        self.levels = levels
        self._current = current
        self._apps = apps
        self._tasks = tasks
        self._ledger = ledger
        self._config = config
        # The programs that a test or a wider fixture has started.
        self.processes: dict[object, list[Process]] = {}
        self.long_sessions = LongSessions()
        # Wider fixtures that have changed the app's state, in the order of their set-up.
        self._app_changers: list[WideFixture] = []

    # The test

    def enter_test(self) -> None:
        """Enter the level of the test, before its first function fixture or before its call."""
        test = self._current.test
        if test is None or test.settled or self.levels.find(test) is not None:
            return
        plan = test.plan
        level = Level(
            test, plan.name, test.serial, plan.stage, isolation=plan.isolation
        )
        self.levels.enter(level)
        # Record the app's state after the set-up of the wider fixtures, so that the end of the test
        # keeps their overrides.
        test.enter(self._apps.state())

    def settle_test(self) -> None:
        """End a test after its fixtures: close clients, find leaks, restore state. Idempotent."""
        test = self._current.test
        if test is None or test.settled:
            return
        test.begin_settling(is_used=self._has_used_anything(test))
        interruption: BaseException | None = None
        level = self.levels.find(test)
        for step in self._steps(test, level):
            try:
                step(test)
            except Exception as error:  # noqa: BLE001 - one failure never stops the next step
                test.errors.append(error)
            except BaseException as error:  # noqa: BLE001 - Ctrl-C, a timeout: raised below
                interruption = error
        # Refuse ended lifespans only now, because their threads may end transactions in the steps.
        registry = test.gate.registry
        if test.is_used and (threading.active_count() > 1 or registry.ended_owners):
            registry.refuse_ended_owners()
        test.take_lost()  # the writes that late work has lost
        try:
            if level is not None:
                if test.is_used or self.levels.above(level):
                    self.finish_above(level)
                    before = self.levels.held_before(level)
                    self._empty_sessions(test, before)
                    self._forget_rows(level, before)
                changed = self.levels.leave(level)
                test.note_changed(changed)
        except Exception as error:  # noqa: BLE001 - the report of the test has it
            test.errors.append(error)
        if interruption is not None:
            raise interruption

    def _has_used_anything(self, test: RunningTest) -> bool:
        return bool(
            test.sessions.is_used
            or test.app_runs
            or self._apps.live
            or self.processes
            or test.late_work.has_begun
            or test.bodies
            # The test may have left work in a session, a connection or an event loop.
            or session_numbers()
            or self.levels.gate.registry.checked_out()
            or self._tasks.loops()
        )

    def _steps(
        self, test: RunningTest, level: Level | None
    ) -> list[Callable[[RunningTest], None]]:
        """Return the steps that end a test. A test that used nothing needs only one."""
        if not test.is_used:
            test.late_work.finish()
            return [self._restore_app_state]
        # Find leaks before the restore of the app's state. The restore frees a leaked connection
        # that only app.state holds.
        return [
            self.end_processes,
            self._await_late_work,
            self._close_clients,
            self._end_tasks,
            partial(self._find_leaks, level),
            self._restore_app_state,
        ]

    def end_processes(self, owner: object) -> None:
        """Stop the programs that a test or a wider fixture has started, the last one first."""
        for process in reversed(self.processes.pop(owner, [])):
            process.stop()
            if process.complaint:
                self._ledger.note(f"{{test}}: `{process.command}` {process.complaint}")

    def _await_late_work(self, test: RunningTest) -> None:
        late_work = test.late_work
        by_socket = self._apps.drain(is_short=test.failed)
        has_begun = test.app_runs or by_socket or late_work.has_begun
        if not (has_begun or late_work.cut_off or test.bodies):
            return
        if not test.failed:
            left_open = [*by_socket, *test.left_open()]
            if left_open:
                late_work.note_cancelled(left_open)
            # End open requests before the wait. `_close_clients` cannot end a request that is
            # inside a statement.
            test.end_exchanges()
            late_work.settled()
        test.close_bodies()
        lines = late_work.cut_off
        what = "has ended, and work that a request had begun was cut off"
        if lines and self._config.late == "fail":
            raise LateWorkError(
                f"{test.plan.name} {what}",
                why="its remaining writes are missing, and no test has checked them",
                cause=lines_of_error(lines),
                fix="await arena.settled()   before the test checks the result (or a longer "
                "arena_settle)",
            )
        for line in lines:
            self._ledger.note(f"{{test}} {what}: {line}")

    def _close_clients(self, test: RunningTest) -> None:
        # The stack calls the last callback first, and continues after a failure.
        with ExitStack() as stack:
            if test.sessions.is_used:
                stack.callback(test.sessions.close)
            for app_run in test.app_runs:
                stack.callback(app_run.close)
            for app_run in self._apps.wide_runs.values():
                stack.callback(app_run.close_lifespans_of_tests)
            stack.callback(test.end_exchanges)
        for app_run in test.app_runs:
            for line in app_run.cut_off():
                self._ledger.note(
                    "{test} has ended, and work that the app's start-up had begun was cut off: "
                    f"{line}. Await it in the lifespan, before or after the `yield`"
                )

    def _end_tasks(self, test: RunningTest) -> None:
        # Called after `_close_clients`: an open request may need its database to finish.
        test.late_work.end(test.gate.registry.late)
        for line in self._tasks.end():
            if line not in test.late_work.cut_off:
                self._ledger.note(
                    f"{{test}} left a task running, and pytest-arena cancelled it: {line}"
                )

    def _find_leaks(self, level: Level | None, test: RunningTest) -> None:
        cancel_jobs = test.late_work.cancel_jobs
        if level is not None and test.plan.has_examples:
            for upper in self.levels.above(level):
                if isinstance(upper.owner, Examples):
                    self.levels.end_leaks(upper, upper.serial, cancel_jobs)
        self.levels.end_leaks(level, test.serial, cancel_jobs)

    def _empty_sessions(self, test: RunningTest, before: HeldBeforeLevel) -> None:
        kinds = empty_sessions(before)
        if test.failed:
            return  # its report has the pending objects
        for kind in kinds:
            self._ledger.note(
                f"{{test}} left {kind} pending in a session that outlives the test. It was never "
                "written: commit it, wait for the job that uses the session, or call "
                "Session.remove() in an autouse fixture"
            )

    def _forget_rows(self, level: Level, before: HeldBeforeLevel) -> None:
        if before.sessions:
            self.long_sessions.restore(before, level.name)

    def _restore_app_state(self, test: RunningTest) -> None:
        # Two states may be of the same app. The older one must be restored last.
        for state in reversed(test.app_states):
            for line in self._restore(state, test.plan.name):
                self._ledger.note(f"{{test}} {line}")

    def _restore(self, state: AppState, name: str) -> list[str]:
        """Restore the app's state after a test or fixture. Return lines for the summary.

        The caller puts the name of the test or fixture before each line.
        """
        changed = state.restore()
        self._ledger.restored.update(dict.fromkeys(changed, name))
        lines = [f"changed {value}, {_UNRESTORED}" for value in state.unrestored()]
        if OVERRIDES in changed:
            lines.append("left app.dependency_overrides; restored")
        return lines

    # Wider fixtures

    @contextmanager
    def fixture(self, owner: WideFixture) -> Iterator[None]:
        """Enter a level around the set-up of a wider fixture.

        pytest-arena drops the level at once if the set-up wrote nothing, and leaves it at once if
        the set-up failed.
        """
        levels = self.levels
        level = Level(owner, owner.name, owner.serial)
        with (
            self._below_level_of_test(),
            self._tasks.of_a_wide_fixture(),
            self._set_up(owner),
        ):
            levels.enter(level)
            try:
                with (
                    levels.gate.keeping_settings(owner.serial),
                    self._remembering_app_state(owner),
                ):
                    yield
                self._note_lost_writes(owner)
                self._apps.note_starter(owner)
            except BaseException:
                self.leave(owner)
                raise
            level.note_idle(is_idle=True)
            levels.drop_if_clean(level)

    def _note_lost_writes(self, owner: WideFixture) -> None:
        """Note the lost writes of a wider fixture's set-up, or raise their error."""
        for lost in self.levels.gate.lost.of_fixture(owner.serial):
            if self._config.lost_writes == "fail":
                raise lost_by_fixture(owner.name, lost)
            if self._config.lost_writes == "warn":
                self._ledger.note(f"{owner.name} {lost_words(lost)}")

    @contextmanager
    def _remembering_app_state(self, owner: WideFixture) -> Iterator[None]:
        """Record the state of the app before the set-up, if the set-up changes it."""
        test = self._current.test
        if test is not None and (
            self.levels.find(test) is not None or _test_changed_app(test)
        ):
            yield  # the end of the test restores the app's state
            return
        owner.remember_app(self._apps.state())
        requesters = [
            requester
            for requester in owner.requesters
            if not _fixture_changed_app(requester)
        ]
        try:
            yield
        finally:
            self._keep_changed_app_state(owner, requesters)

    def _keep_changed_app_state(
        self, owner: WideFixture, requesters: list[WideFixture]
    ) -> None:
        """Keep the recorded state of the app, if the set-up of a wider fixture changed the app.

        The change outlives the fixture's ``requesters``, so their end must not undo it.
        """
        if not _fixture_changed_app(owner):
            owner.remember_app(None)
            return
        self._app_changers.append(owner)
        for requester in requesters:
            if requester.app_state is not None:
                requester.remember_app(requester.app_state.record_again())

    def _restore_app_state_of(self, owner: object) -> None:
        """Restore the state that the app had before a wider fixture.

        If a later fixture has changed the state too, the end of that fixture restores this state.
        """
        if not isinstance(owner, WideFixture) or owner not in self._app_changers:
            return
        state = owner.app_state
        if state is None:
            return
        owner.remember_app(None)
        place = self._app_changers.index(owner)
        del self._app_changers[place]
        if place < len(self._app_changers):
            self._app_changers[place].remember_app(state)
            return
        lines = self._restore(state, owner.name)
        if not owner.lasts_whole_run:
            for line in lines:
                self._ledger.note(f"{owner.name} {line}")

    @contextmanager
    def _set_up(self, owner: WideFixture) -> Iterator[None]:
        """Record that the set-up of this fixture runs, because it may call ``getfixturevalue``."""
        self._current.being_set_up.append(owner)
        try:
            yield
        finally:
            self._current.being_set_up.pop()

    @contextmanager
    def _below_level_of_test(self) -> Iterator[None]:
        """Put the level of a wider fixture below the test's level, if the test has not written.

        A test may request a wider fixture by ``getfixturevalue``. If the test has written before,
        the fixture's level is above the test's level, and ends with it.
        """
        test = self._current.test
        levels = self.levels
        if test is None or test.plan.stage is not Stage.SEEDED:
            yield
            return
        is_app_untouched = not _test_changed_app(test)
        dropped = levels.drop_clean_levels_of_test()
        try:
            yield
        finally:
            for level in reversed(dropped):
                levels.enter(level, dropped[level])
            if is_app_untouched:
                test.remember_app(*(state.record_again() for state in test.app_states))

    def before_teardown(self, owner: WideFixture) -> None:
        """Leave the levels above a wider fixture's level, before the tear-down of the fixture."""
        if self._current.in_teardown:
            WORK.set(None)  # the tear-down of a wider fixture is no work of the test
            self.settle_test()
        level = self.levels.find(owner)
        if level is None:
            try:
                # The tear-down may write, so it needs a level.
                self.levels.enter(Level(owner, owner.name, owner.serial))
            except ArenaError as error:
                # After an error here, pytest would keep a fixture that is half torn down.
                self._ledger.note(error.what)
        else:
            self.finish_above(level, requester=owner)
            level.note_idle(is_idle=False)
        # Set this last, because the end of another fixture resets it.
        OF_WIDE_FIXTURE.set(owner)

    def leave(self, owner: object) -> None:
        """Leave the level of a wider fixture after its tear-down, if it has one."""
        if isinstance(owner, WideFixture):
            owner.note_end()
            OWNERS.add(owner)
            OF_WIDE_FIXTURE.set(None)
            self.levels.gate.lost.forget_fixture(owner.serial)
        level = self.levels.find(owner)
        if level is None:
            self._restore_app_state_of(owner)
            return
        try:
            self.finish_above(level)
            self.end_processes(owner)
            self._apps.close_lifespans_of(owner)
            self._apps.close_of(owner)
            self._forget_rows(level, self.levels.held_before(level))
        finally:
            self._restore_app_state_of(owner)
            # After a failed set-up, a fixture that this one requested may already have left the
            # level.
            if self.levels.find(owner) is level:
                # If Ctrl-C interrupted `finish_above`, other levels may still be above this one.
                for upper in self.levels.above(level):
                    self.levels.leave(upper)
                self.levels.leave(level)
            self.levels.gate.registry.refuse_ended_owners()

    @contextmanager
    def forked_test(self, name: str) -> Iterator[None]:
        """Enter a level around a test that runs in a fork. A killed fork may leave writes."""
        level = Level(object(), name)
        self.levels.enter(level)
        try:
            yield
        finally:
            # The end of a wider fixture may already have left this level.
            if self.levels.find(level.owner) is not None:
                self.leave_unfinished(level)

    def finish_above(
        self, level: Level | None, *, requester: WideFixture | None = None
    ) -> None:
        """Tear down the fixtures whose levels are above ``level``. pytest sets them up again.

        If ``level`` is None, tear down all fixtures that have a level. Fixtures that ``requester``
        requested stay, because its tear-down may need them.
        """
        for upper in self.levels.above(level):
            if self.levels.find(upper.owner) is not upper:
                continue  # the end of another level has left this one
            match upper.owner:
                case RunningTest() as test:
                    self._end_running_test(test)
                case WideFixture() as fixture:
                    if requester not in fixture.requesters:
                        fixture.finish()
                        self.leave(fixture)
                case _:  # an example, a fork
                    self.leave_unfinished(upper)

    def leave_unfinished(self, level: Level) -> None:
        """Leave the level of an example or a fork. Its changes count as the test's."""
        self.finish_above(level)
        changed = self.levels.leave(level)
        if self._current.test is not None:
            self._current.test.note_changed(changed)

    def _end_running_test(self, test: RunningTest) -> None:
        """End a test whose wider fixture ends, after Ctrl-C or because code finishes it by hand."""
        self.settle_test()
        level = self.levels.find(test)
        if level is not None:  # Ctrl-C interrupted `settle_test`
            self.levels.leave(level)
        test.errors.append(
            IsolationError(
                f"{test.plan.name}: a wider fixture of this test ended while the test ran",
                why="the test's rows depend on the fixture's rows, so pytest-arena removed both",
                cause="Ctrl-C, or code that finishes fixtures by hand",
                fix="ask for the fixture in the test's arguments",
            )
        )


_UNRESTORED = (
    "which pytest-arena does not restore, because a library defines its class or a base of it. "
    "Empty it in an autouse fixture"
)


def _fixture_changed_app(fixture: WideFixture) -> bool:
    """Return whether the app's state has changed since the fixture's set-up began."""
    return fixture.app_state is not None and fixture.app_state.is_changed()


def _test_changed_app(test: RunningTest) -> bool:
    return any(state.is_changed() for state in test.app_states)


class Examples:
    """A level for each example of Hypothesis, above the test's level.

    For each example pytest-arena also restores the instances that fixtures left in sessions, and
    the cookies that they left in clients. The level of the last example stays until the test ends,
    so that a user can inspect the database after a failed example.

    An example costs one enter and one leave of a level, and a query for each instance that a
    fixture has left in ``db_session``.
    """

    def __init__(
        self,
        test: RunningTest,
        fixtures: FixtureLevels,
        serials: Iterator[int],
        watcher: Watcher | None,
    ) -> None:
        self._test = test
        self._fixtures = fixtures
        self._levels = fixtures.levels
        self._serials = serials
        self._watcher = watcher
        self._sessions: Memory | None = None
        self._level: Level | None = None
        self._restores: list[Callable[[], object]] = []
        self._tasks_of_fixtures: set[AnyTask] = set()

    def begin(self) -> None:
        """Begin an example of a sync test."""
        if self._sessions is None:
            self._test.sessions.commit()
            self._sessions = self._remember()
        else:
            self._leave()
            self._test.sessions.restore(self._sessions)
        self._enter()

    async def abegin(self) -> None:
        """Begin an example of an async test, in its loop."""
        if self._sessions is None:
            await self._test.sessions.acommit()
            self._sessions = self._remember()
        else:
            await self._test.tasks.aend_of_example(self._tasks_of_fixtures)
            self._leave()
            await self._test.sessions.arestore(self._sessions)
        self._enter()
        self._tasks_of_fixtures = self._test.tasks.of_fixtures()

    def end(self) -> None:
        """End an example that passed.

        Raises:
            ConnectionLeak: the example has left a transaction or a connection open.
        """
        self._test.sessions.roll_back()
        if self._level is not None:
            self._levels.end_leaks(self._level, self._level.serial)

    async def aend(self) -> None:
        """End an example of an async test, in its loop, after its sessions are closed."""
        await self._test.tasks.aend_of_example(self._tasks_of_fixtures)
        self.end()

    def _remember(self) -> Memory:
        test = self._test
        # `_leave` calls the last callback first. A shutdown needs the example's app.state.
        self._restores = [state.record_again().restore for state in test.app_states]
        self._restores += [app_run.remember() for app_run in test.app_runs]
        self._restores += [
            partial(_close_app_runs_since, test.app_runs, len(test.app_runs)),
            partial(_truncate, test.app_states, len(test.app_states)),
            partial(_truncate, test.ledger.requests, len(test.ledger.requests)),
            partial(test.cut, len(test.turns)),
        ]
        if self._watcher is not None:
            self._restores.append(self._watcher.remember())
        return test.sessions.remember()

    def _enter(self) -> None:
        self._level = Level(
            self, f"an example of {self._test.plan.name}", next(self._serials)
        )
        self._levels.enter(self._level)

    def _leave(self) -> None:
        self._test.take_lost()
        self._test.sessions.roll_back()
        with ExitStack() as stack:
            for restore in self._restores:
                stack.callback(restore)
        level = self._levels.find(self)
        self._level = None
        if level is not None:
            # The failure of the example is reported, so its leak is not.
            with suppress(ConnectionLeak):
                self._levels.end_leaks(level, level.serial)
            empty_sessions(self._levels.held_before(level))
            self._fixtures.leave_unfinished(level)


def _close_app_runs_since(app_runs: list[AppRun], number: int) -> None:
    for app_run in app_runs[number:]:
        app_run.close()
    del app_runs[number:]


def _truncate(things: list[Any], number: int) -> None:
    del things[number:]

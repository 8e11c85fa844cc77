"""How does what a fixture, a test or an example wrote live exactly as long as that?"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

from pytest_arena._app._app_state import OVERRIDES, AppState
from pytest_arena._databases._resolver import Level
from pytest_arena._run._leaks import (
    Tasks,
    empty_sessions,
    is_anything_there,
    late_error,
)
from pytest_arena._run._long_sessions import LongSessions
from pytest_arena._run._test import Current, RunningTest, Watcher
from pytest_arena._values import Stage
from pytest_arena.errors import ArenaError, ConnectionLeak, IsolationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_arena._app._app_run import AppRun
    from pytest_arena._databases._sessions import Memory
    from pytest_arena._ledger import Ledger
    from pytest_arena._run._apps import Apps
    from pytest_arena._run._processes import Process
    from pytest_arena._run.levels._levels import Levels


@dataclass(slots=True, eq=False)
class WideFixture:
    """A fixture that outlives the test, as the owner of a level.

    ``finish`` has pytest finish it, and all that depends on it; it is set up again at its next use.
    """

    name: str
    finish: Callable[[], object]
    askers: tuple[WideFixture, ...] = ()
    """Those in whose set-up ``getfixturevalue`` asked for it, the innermost last."""
    serial: int = field(default_factory=count(-1, -1).__next__)
    """Of its levels: one that was clean was dropped, and there is another at its tear-down."""


class FixtureLevels:
    """The levels of fixtures that outlive the test, of the test above them, and of its examples."""

    def __init__(
        self,
        levels: Levels,
        current: Current,
        apps: Apps,
        tasks: Tasks,
        ledger: Ledger,
        *,
        late: str,
    ) -> None:
        self.levels, self._current, self._apps = levels, current, apps
        self._tasks, self._ledger, self._late = tasks, ledger, late
        self.processes: dict[object, list[Process]] = {}  # by who has begun them
        self.long_sessions = LongSessions()

    # The test's own.

    def enter_test(self) -> None:
        """Open the test's own level, at its first function-scoped fixture or its call."""
        test = self._current.test
        if test is not None and not test.settled and self.levels.find(test) is None:
            plan = test.plan
            level = Level(
                test, plan.name, test.serial, plan.stage, isolation=plan.isolation
            )
            self.levels.enter(level)
            # Not earlier: what wider fixtures override holds as long as they do.
            test.app_states = [AppState(self._apps.named)]

    def settle_test(self) -> None:
        """Function-scoped fixtures are down: close, look for leaks, restore. Idempotent."""
        test = self._current.test
        if test is None or test.settled:
            return
        test.settled = True
        broken_off: BaseException | None = None
        for step in self._steps(test):
            try:
                step(test)
            except Exception as error:  # noqa: BLE001 - one failure never stops the next step
                test.errors.append(error)
            except BaseException as error:  # noqa: BLE001 - Ctrl-C, a timeout: raised below
                broken_off = error
        test.take_lost()  # by its late work
        level = self.levels.find(test)
        try:
            if level is not None:
                if test.is_used or self.levels.above(level):
                    self.finish_above(level)
                    self._empty_sessions(test, level)
                    self._forget_rows(level)
                if changed := self.levels.leave(level):
                    test.has_changed(changed)
        except Exception as error:  # noqa: BLE001 - as said
            test.errors.append(error)
        if broken_off is not None:
            raise broken_off

    def _steps(self, test: RunningTest) -> list[Callable[[RunningTest], None]]:
        """What there is to end and to close: nothing, in a test that has asked for nothing.

        Such a one is marked as unused, and its late work as over.
        """
        ours = (
            test.sessions.is_used or test.app_runs or self._apps.live or self.processes
        )
        work = test.late_work.has_begun or is_anything_there(
            self.levels.gate, self._tasks
        )
        test.is_used = bool(ours or work)
        if not test.is_used:
            test.late_work.is_over = True
            return [self._name_children, self._restore_app_state]
        # The app's state not before leaks: what only app.state holds would not be found.
        return [
            self.end_processes,
            self._await_late_work,
            self._name_children,
            self._close_clients,
            self._end_tasks,
            self._find_leaks,
            self._restore_app_state,
        ]

    def end_processes(self, owner: object) -> None:
        """End the programs that a test or a wider fixture has begun, the last first."""
        for process in reversed(self.processes.pop(owner, [])):
            process.stop()
            if process.complaint:
                self._ledger.note(f"{{test}}: `{process.command}` {process.complaint}")

    def _await_late_work(self, test: RunningTest) -> None:
        late_work = test.late_work
        by_socket = self._apps.drain(is_short=test.failed)
        if not (test.app_runs or by_socket or late_work.has_begun or late_work.cut_off):
            return
        if (
            not test.failed
        ):  # a coroutine has waited in its loop, and not for its fixtures
            late_work.cut_off += [*by_socket, *test.left_open()]
            for app_run in test.app_runs:
                app_run.end_exchanges()  # in the middle of a statement it could not be ended
            late_work.settled()
        lines = late_work.cut_off
        told = "has ended, and work that a request had begun was cut off"
        if lines and self._late == "fail":
            raise late_error(lines, f"{test.plan.name} {told}")
        for line in lines:
            self._ledger.note(f"{{test}} {told}: {line}")

    def _name_children(self, test: RunningTest) -> None:
        """Name child processes that know the test's database and go on."""
        for line in test.late_work.children_left():
            self._ledger.note(
                f"{{test}} has ended, and a process that it has begun still runs: {line}. "
                "The writes of the process may be in a later test. Wait for its end in the "
                "test, or begin it by arena.process(…)"
            )

    def _close_clients(self, test: RunningTest) -> None:
        if not (test.sessions.is_used or test.app_runs):
            return
        with ExitStack() as stack:  # last in, first out, and one failure stops no other
            if test.sessions.is_used:
                stack.callback(test.sessions.close)
            for app_run in test.app_runs:
                stack.callback(app_run.close)

    def _end_tasks(self, test: RunningTest) -> None:
        # Not earlier: a request that is closed may need its database.
        test.late_work.end(test.gate.registry.late)
        for line in self._tasks.end():
            if line not in test.late_work.cut_off:  # else it is told
                self._ledger.note(
                    f"{{test}} left a task running, which was ended: {line}"
                )

    def _find_leaks(self, test: RunningTest) -> None:
        level = self.levels.find(test)
        cancel_jobs = test.late_work.cancel_jobs
        for upper in self.levels.above(level) if level is not None else ():
            if isinstance(upper.owner, Examples):
                self.levels.end_leaks(upper, upper.serial, cancel_jobs)
        self.levels.end_leaks(level, test.serial, cancel_jobs)

    def _empty_sessions(self, test: RunningTest, level: Level) -> None:
        # The report of a failed one says it itself.
        for kind in empty_sessions(self.levels.held_before(level)) * (not test.failed):
            told = f"{{test}} left {kind} pending in a session that lives on, never written: "
            self._ledger.note(
                f"{told}commit it, or Session.remove() in an autouse fixture"
            )

    def _forget_rows(self, level: Level) -> None:
        """Make the sessions that are older than a level forget its rows."""
        before = self.levels.held_before(level)
        if before.sessions:
            self.long_sessions.leave(before, level.name)

    def _restore_app_state(self, test: RunningTest) -> None:
        for state in reversed(test.app_states):  # two may be of the same app
            if OVERRIDES in state.restore():
                self._ledger.note(
                    f"{test.plan.name} left app.dependency_overrides; restored"
                )

    # Those below.

    @contextmanager
    def fixture(self, owner: WideFixture) -> Iterator[None]:
        """Around the set-up of a fixture that outlives the test: its own level.

        A level in which nothing was written is dropped at once; one whose set-up failed is left
        at once.
        """
        levels, level = self.levels, Level(owner, owner.name, owner.serial)
        with (
            self._below_the_test(),
            self._tasks.of_a_wide_fixture(),
            self._set_up(owner),
        ):
            levels.enter(level)
            try:
                with levels.gate.keeping_altered(owner.serial):
                    yield
            except BaseException:
                self.leave(owner)
                raise
            levels.drop_if_clean(level)

    @contextmanager
    def _set_up(self, owner: WideFixture) -> Iterator[None]:
        """Know who asks by ``getfixturevalue`` for a fixture."""
        owner.askers = tuple(self._current.being_set_up)
        self._current.being_set_up.append(owner)
        try:
            yield
        finally:
            self._current.being_set_up.pop()

    @contextmanager
    def _below_the_test(self) -> Iterator[None]:
        """Slip a wide fixture's level below the test's, where the test has not written yet.

        A fixture that is first asked for by ``getfixturevalue`` comes late. On top of a level in
        which the test has written it can only live as long as the test.
        """
        test, levels = self._current.test, self.levels
        if test is None or test.plan.stage is not Stage.SEEDED:
            yield
            return
        untouched = not any(state.changed() for state in test.app_states)
        slipped = levels.drop_clean_ones_of_the_test()
        try:
            yield
        finally:
            for level in reversed(slipped):
                levels.enter(level, slipped[level])
            if untouched and any(level.owner is test for level in slipped):
                test.app_states = [state.anew() for state in test.app_states]

    def ending(self, owner: WideFixture) -> None:
        """Before a wide fixture's own tear-down: what lies above its level goes first."""
        if self._current.in_teardown:
            self.settle_test()
        level = self.levels.find(owner)
        if level is None:
            try:
                # Its tear-down may write.
                self.levels.enter(Level(owner, owner.name, owner.serial))
            except ArenaError as error:
                # Raised here it would leave pytest's fixture half torn down, for all other tests.
                self._ledger.note(error.what)
        else:
            self.finish_above(level, asker=owner)

    def leave(self, owner: object) -> None:
        """After a wide fixture's tear-down: its data goes. Harmless if it has no level."""
        level = self.levels.find(owner)
        if level is None:
            return
        try:
            self.finish_above(level)
            self.end_processes(owner)
            self._apps.close_of(owner)
            self._forget_rows(level)
        finally:
            for broken_off in self.levels.above(
                level
            ):  # by Ctrl-C, while they were finished
                self.levels.leave(broken_off)
            self.levels.leave(level)

    @contextmanager
    def another_process(self, name: str) -> Iterator[None]:
        """Around a test that runs in a fork: what that leaves in our files when it dies, goes."""
        levels, level = self.levels, Level(object(), name)
        levels.enter(level)
        try:
            yield
        finally:
            if (
                levels.find(level.owner) is not None
            ):  # a fixture below it may have ended
                self.leave_unfinished(level)

    def finish_above(self, level: Level, *, asker: WideFixture | None = None) -> None:
        """Finish the fixtures whose levels lie above; they are set up again at their next use.

        Those that ``asker`` asked for stay: its tear-down may need them.
        """
        for upper in self.levels.above(level):
            if self.levels.find(upper.owner) is not upper:
                continue  # gone with another one
            match upper.owner:
                case RunningTest() as test:
                    self._end_in_the_middle(test)
                case WideFixture() as fixture:
                    if asker not in fixture.askers:
                        fixture.finish()
                        self.leave(fixture)
                case _:  # an example, a fork
                    self.leave_unfinished(upper)

    def leave_unfinished(self, level: Level) -> None:
        """Leave a level of which pytest knows nothing; the changes count as the test's."""
        self.finish_above(level)
        changed = self.levels.leave(level)
        if self._current.test is not None:
            self._current.test.has_changed(changed)

    def _end_in_the_middle(self, test: RunningTest) -> None:
        """A fixture below a test ends before it: Ctrl-C, or somebody has finished it by hand."""
        self.settle_test()
        if (
            level := self.levels.find(test)
        ) is not None:  # of one that was broken off at it
            self.levels.leave(level)
        test.errors.append(
            IsolationError(
                f"{test.plan.name}: a wider fixture that stood below it ended while it ran",
                why="what the test has written stands on the fixture's data, and went with it",
                cause="Ctrl-C, or code that finishes fixtures by hand",
                fix="ask for the fixture in the test's arguments",
            )
        )


class Examples:
    """A level for each example, above the test's, which the fixtures have written in.

    What fixtures have handed out is as it was, too: sessions hold the same instances, clients
    the same cookies. The level of the last example stands until the next one begins or the test
    is settled: the database of the example that failed can be looked at.

    Cost of an example: one enter and leave, and a query for each instance that a fixture has left
    in ``db_session``.
    """

    def __init__(
        self,
        test: RunningTest,
        fixtures: FixtureLevels,
        serials: Iterator[int],
        watcher: Watcher | None,
    ) -> None:
        self._test, self._fixtures, self._levels = test, fixtures, fixtures.levels
        self._serials, self._watcher = serials, watcher
        self._sessions: Memory | None = None
        self._level: Level | None = None
        self._restores: list[Callable[[], object]] = []

    def begin(self) -> None:
        """Before an example of a sync test."""
        if self._sessions is None:
            self._test.sessions.commit()
            self._sessions = self._remember()
        else:
            self._leave()
            self._test.sessions.restore(self._sessions)
        self._enter()

    async def abegin(self) -> None:
        """Before an example of an async test, in its loop."""
        if self._sessions is None:
            await self._test.sessions.acommit()
            self._sessions = self._remember()
        else:
            await self._test.tasks.aend_of_example()
            self._leave()
            await self._test.sessions.arestore(self._sessions)
        self._enter()
        self._test.tasks.begin_example()

    def end(self) -> None:
        """After an example that went well.

        Raises:
            ConnectionLeak: it has left a transaction or a connection.
        """
        self._test.sessions.roll_back()
        if self._level is not None:
            self._levels.end_leaks(self._level, self._level.serial)

    async def aend(self) -> None:
        """As ``end``, in the loop of an async test, when its own sessions are closed."""
        await self._test.tasks.aend_of_example()
        self.end()

    def _remember(self) -> Memory:
        test = self._test
        self._restores = [app_run.remember() for app_run in test.app_runs]
        self._restores += [state.anew().restore for state in test.app_states]
        self._restores += [
            partial(_close_since, test.app_runs, len(test.app_runs)),
            partial(_cut, test.app_states, len(test.app_states)),
            partial(_cut, test.ledger.requests, len(test.ledger.requests)),
            partial(test.cut, len(test.turns)),
        ]
        if self._watcher is not None:
            self._restores.append(
                self._watcher.remember()
            )  # the last one is called first
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
        level, self._level = self._levels.find(self), None
        if level is not None:
            with suppress(ConnectionLeak):  # of an example that failed, which says more
                self._levels.end_leaks(level, level.serial)
            empty_sessions(self._levels.held_before(level))
            self._fixtures.leave_unfinished(level)


def _close_since(app_runs: list[AppRun], number: int) -> None:
    for app_run in app_runs[number:]:
        app_run.close()
    del app_runs[number:]


def _cut(things: list[Any], number: int) -> None:
    del things[number:]

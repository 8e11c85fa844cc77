"""How does each example of a Hypothesis test begin like the first one?"""

from __future__ import annotations

from contextlib import ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from pytest_arena._databases._state import Level
from pytest_arena.errors import ConnectionLeak

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_arena._app import AppRun
    from pytest_arena._databases._sessions import Memory
    from pytest_arena._run._fixture_levels import WideLevels
    from pytest_arena._run._levels import Levels
    from pytest_arena._run._test import RunningTest, Watcher

__all__ = ["Examples"]


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
        levels: Levels,
        wide: WideLevels,
        *,
        serials: Iterator[int],
        watcher: Watcher | None,
    ) -> None:
        self._test, self._levels, self._wide = test, levels, wide
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
            await self._end_tasks()
            self._leave()
            await self._test.sessions.arestore(self._sessions)
        self._enter()

    def end(self) -> None:
        """After an example that went well.

        Raises:
            ConnectionLeak: it has left a transaction or a connection.
        """
        self._test.sessions.roll_back()
        self.end_leaks()

    async def aend(self) -> None:
        """As ``end``, in the loop of an async test, when its own sessions are closed."""
        await self._end_tasks()
        self.end()

    def end_leaks(self) -> None:
        """Give back what the last example has left. Raises as ``end`` does."""
        if self._level is not None:
            self._levels.end_leaks(self._level, self._level.serial)

    async def _end_tasks(self) -> None:
        await self._test.tasks.aend_of_example()

    def _remember(self) -> Memory:
        test = self._test
        self._restores = [app_run.remember() for app_run in test.app_runs]
        self._restores += [overrides.anew().restore for overrides in test.overrides]
        self._restores += [
            partial(_close_since, test.app_runs, len(test.app_runs)),
            partial(_cut, test.overrides, len(test.overrides)),
            partial(_cut, test.ledger.requests, len(test.ledger.requests)),
            partial(test.story.cut, len(test.story.turns)),
        ]
        if self._watcher is not None:
            self._restores.append(self._watcher.remember())  # the last one is called first
        return test.sessions.remember()

    def _enter(self) -> None:
        self._level = Level(self, f"an example of {self._test.plan.name}", next(self._serials))
        self._levels.enter(self._level)

    def _leave(self) -> None:
        self._test.sessions.roll_back()
        with ExitStack() as stack:
            for restore in self._restores:
                stack.callback(restore)
        level, self._level = self._levels.find(self), None
        if level is not None:
            with suppress(ConnectionLeak):  # of an example that failed, which says more
                self._levels.end_leaks(level, level.serial)
            self._wide.leave_unfinished(level)


def _close_since(app_runs: list[AppRun], number: int) -> None:
    for app_run in app_runs[number:]:
        app_run.close()
    del app_runs[number:]


def _cut(things: list[Any], number: int) -> None:
    del things[number:]

"""Ends the tasks that a test starts in event loops."""

import asyncio
import threading
from asyncio import all_tasks
from asyncio import wait as wait_for_tasks
from weakref import WeakKeyDictionary

from pytest_arena._origin import line_of_coroutine
from pytest_arena._owner import owner_of
from pytest_arena._process import AnyTask, alive, running_loop
from pytest_arena._run.leaks._late_work import is_users_task
from pytest_arena._values import CodeLine

# Seconds to wait for the end of cancelled tasks.
_PATIENCE = 1.0


class Tasks:
    """The tasks that tests and the app start in the event loops of tests.

    asyncio cancels the tasks of a loop that ends with the test. In other loops, tasks of the test
    could write in the next test, so pytest-arena cancels them.
    """

    def __init__(self) -> None:
        self._threads: WeakKeyDictionary[asyncio.AbstractEventLoop, int] = (
            WeakKeyDictionary()
        )

    def loops(self) -> list[asyncio.AbstractEventLoop]:
        """Return the loops that pytest-arena has seen."""
        return alive(self._threads)

    def record_loop(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Record this loop, or the running loop. Do nothing if no asyncio loop runs."""
        loop = loop or running_loop()
        if loop is not None and loop not in self._threads:
            self._threads[loop] = threading.get_ident()

    def run_idle_loops(self) -> bool:
        """Run the idle loops of this thread once. Return whether this thread has any."""
        idle = [
            loop
            for loop, thread in list(self._threads.items())
            if thread == _thread_without_loop() and not loop.is_closed()
        ]
        for loop in idle:
            loop.call_soon(loop.stop)
            loop.run_forever()
        return bool(idle)

    def end(self) -> list[CodeLine | str]:
        """Cancel the tasks that still run in idle loops. Return a line for each."""
        lines: list[CodeLine | str] = []
        for loop in self.loops():
            if loop.is_closed():
                self._threads.pop(loop, None)
                continue
            # This thread cannot run another thread's loop, or any loop while one runs in it.
            if self._threads.get(loop) != _thread_without_loop():
                continue
            unfinished = self._unfinished(loop)
            for task in unfinished:
                line = line_of_coroutine(task.get_coro())
                lines.append(line or task.get_name())
                task.cancel()
            if unfinished:
                loop.run_until_complete(wait_for_tasks(unfinished, timeout=_PATIENCE))
        return lines

    def _unfinished(self, loop: asyncio.AbstractEventLoop) -> list[AnyTask]:
        return [
            task
            for task in all_tasks(loop)
            if is_users_task(task) and _is_of_test(task)
        ]


def _is_of_test(task: AnyTask) -> bool:
    owner = owner_of(task)
    return owner is not None and owner.is_test


# The number of this thread, or None if a loop runs in it.
def _thread_without_loop() -> int | None:
    return None if running_loop() else threading.get_ident()

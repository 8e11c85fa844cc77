"""Work of requests that runs after their answers, and tasks that a test leaves in its loops."""

from __future__ import annotations

import threading
from asyncio import all_tasks, current_task, run_coroutine_threadsafe
from asyncio import wait as wait_for_tasks
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary, WeakSet

from pytest_arena._app._entry import in_one_line
from pytest_arena._config._load import blame
from pytest_arena._origin import (
    OUR_TASK,
    REQUEST,
    line_of,
    line_of_coroutine,
    users_frames,
)
from pytest_arena._owner import JOBS, OWNER, Job, Owner, is_runner_of_anyio, owner_of
from pytest_arena._process import (
    AnyTask,
    alive,
    async_rest,
    context_of,
    innermost_frames,
    rest,
    running_loop,
    seconds,
)
from pytest_arena.errors import LateWorkError

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Iterable

    from pytest_arena._values import CodeLine

__tracebackhide__ = True  # tracebacks end at the user's line

_STEP = 0.0002  # seconds between two looks

# The passes for which each wait in a loop lets it run first. A due callback may begin a task.
_PASSES = 2

_MOST_LINES = 4


def lines_of_error(lines: Iterable[object]) -> str:
    """Return the first lines for an error, sorted and each once."""
    return "\n".join(sorted(set(map(str, lines)))[:_MOST_LINES])


class TestOwner(Owner):
    """A test, with the work that its requests begin and that runs after their answers.

    These are tasks in the loops in which the app answers, the user's threads, and jobs of pools.
    """

    def __init__(self, name: str, serial: int, patience: float) -> None:
        advice = (
            "join the thread, await the job or the task, or wait for the queue (await "
            "queue.join()), before that test ends"
        )
        super().__init__(name, advice, serial)
        # The lines of work that was cancelled, or still ran when the test stopped waiting.
        self.cut_off: list[CodeLine | str] = []
        # The errors of its tasks and callbacks that no code has retrieved, with their lines.
        self.failures: dict[str, CodeLine | None] = {}
        self.patience = patience  # seconds
        # The loops in which the app has answered.
        self._loops: WeakSet[AbstractEventLoop] = WeakSet()

    def note_request(self) -> None:
        """Note that the app is about to answer a request here."""
        loop = running_loop()
        if loop is not None:
            self._loops.add(loop)

    def note_failure(self, error: Exception) -> None:
        """Note an error that a task or a callback of this work has raised."""
        self.failures[in_one_line(error)] = blame(error)

    @property
    def has_begun(self) -> bool:
        """Whether the app answered a request, or a thread or a pool got work."""
        return bool(self._loops or self._jobs())

    def _jobs(self) -> list[Job]:
        """Return the unfinished threads and jobs of this test's requests."""
        jobs = []
        for job in alive(JOBS) if JOBS else ():
            if job.owner is self and job.request is not None:
                jobs.append(job)
        return jobs

    def unfinished(self) -> list[CodeLine | str]:
        """Return the lines of the requests' tasks, threads and jobs that still run, each once."""
        # Look at jobs before and after the tasks, because a task may begin a job and end in
        # between.
        jobs = self._jobs()
        lines: list[CodeLine | str] = []
        this_task = current_task() if running_loop() else None
        for loop in alive(self._loops):
            for task in () if loop.is_closed() else all_tasks(loop):
                if task is not this_task and self._is_of_request(task):
                    lines.append(line_of_coroutine(task.get_coro()) or task.get_name())
        jobs += self._jobs()
        stacks = innermost_frames() if jobs else {}
        for job in dict.fromkeys(jobs):
            begun_at = JOBS.get(job)
            if begun_at is not None:
                frames = users_frames(stacks.get(job.thread))
                innermost = frames[0] if frames else None
                lines.append(line_of(innermost) or begun_at)
        return list(dict.fromkeys(lines))

    def _is_of_request(self, task: AnyTask) -> bool:
        if not is_users_task(task):
            return False
        context = context_of(task)
        request = context.get(REQUEST)
        if request is None or request.is_open:
            return False
        return context.get(OWNER) is self

    def note_cancelled(self, lines: Iterable[CodeLine | str]) -> None:
        """Note the lines of requests and tasks that were cancelled before they finished."""
        for line in lines:
            if line not in self.cut_off:
                self.cut_off.append(line)

    def end_work(self) -> None:
        """End this work with its test: cancel its queued jobs, and refuse it connections."""
        self.end()
        for job in self._jobs():
            job.cancel()

    # Waits. Each returns the lines of the work that still runs after its time.

    def wait_for_work(self, patience: float | None = None) -> list[CodeLine | str]:
        """Wait until no work runs, by default for at most ``arena_settle`` seconds."""
        end = seconds() + (self.patience if patience is None else patience)
        while True:
            lines = self.unfinished()
            if not lines or seconds() >= end:
                return lines
            rest(_STEP)

    async def await_work(self, patience: float | None = None) -> list[CodeLine | str]:
        """Wait in a loop like `wait_for_work`."""
        end = seconds() + (self.patience if patience is None else patience)
        while self.has_begun:
            for _ in range(_PASSES):
                await async_rest(0)
            lines = self.unfinished()
            if not lines or seconds() >= end:
                return lines
            rest(_STEP)  # not a sleep of the loop, whose clock a test may have stopped
        return []

    def settled(self, patience: float) -> None:
        """Wait until the work of each line is done.

        Raises:
            LateWorkError: work still ran after ``patience`` seconds.
        """
        for loop in alive(self._loops):
            if loop.is_running() and loop is not running_loop():
                passes = run_coroutine_threadsafe(_let_pass(), loop)
                passes.result(patience)
        _refuse_unfinished(self.wait_for_work(patience), patience)

    async def asettled(self, patience: float) -> None:
        """Wait in a loop like `settled`."""
        _refuse_unfinished(await self.await_work(patience), patience)


def _refuse_unfinished(lines: list[CodeLine | str], patience: float) -> None:
    if lines:
        longer = max(60, patience * 2)
        raise LateWorkError(
            f"work that a request had begun still runs after {patience:g} s",
            why="the work may still have rows to write",
            cause=lines_of_error(lines),
            fix="begin endless work, such as a poller, in the app's lifespan: settled() does "
            f"not wait for it. For slow work: arena.settled({longer:g})",
        )


async def _let_pass() -> None:
    for _ in range(_PASSES):
        await async_rest(0)


# The functions of tasks that libraries start and that may outlive a request. SQLAlchemy closes a
# cancelled connection of aiosqlite in such a task. anyio's pytest plugin has a task that waits for
# the test or the fixture. The first stream of sse-starlette begins a task that waits until the
# server shuts down.
_NOT_OF_USERS = {
    "_terminate_graceful_close",
    "_call_in_runner_task",
    "_shutdown_watcher",
}


def is_users_task(task: AnyTask) -> bool:
    """Return whether a task may run the user's code. False for tasks of pytest-arena."""
    if task.get_name() == OUR_TASK or is_runner_of_anyio(task):
        return False
    coroutine = task.get_coro()
    name = getattr(coroutine, "__name__", "")
    return name not in _NOT_OF_USERS or line_of_coroutine(coroutine) is not None


# Seconds to wait for the end of cancelled tasks.
_CANCEL_PATIENCE = 1.0


class Tasks:
    """The tasks that tests and the app start in the event loops of tests.

    asyncio cancels the tasks of a loop that ends with the test. In other loops, tasks of the test
    could write in the next test, so pytest-arena cancels them.
    """

    def __init__(self) -> None:
        self._threads: WeakKeyDictionary[AbstractEventLoop, int] = WeakKeyDictionary()

    @property
    def has_loops(self) -> bool:
        """Whether pytest-arena has seen a loop that exists."""
        return bool(self._threads)

    def record_loop(self, loop: AbstractEventLoop | None = None) -> None:
        """Record this loop, or the running loop. Do nothing if no asyncio loop runs."""
        loop = loop or running_loop()
        if loop is not None and loop not in self._threads:
            self._threads[loop] = threading.get_ident()

    def run_idle_loops(self) -> None:
        """Run the idle loops of this thread once."""
        for loop in self._idle_loops():
            loop.call_soon(loop.stop)
            loop.run_forever()

    def _idle_loops(self) -> list[AbstractEventLoop]:
        """Return the open loops of this thread, none if a loop runs in it."""
        if running_loop() is not None:
            return []
        here = threading.get_ident()
        idle = []
        for loop in alive(self._threads):
            if loop.is_closed():
                self._threads.pop(loop, None)
            elif self._threads.get(loop) == here:
                idle.append(loop)
        return idle

    def end(self) -> list[CodeLine | str]:
        """Cancel the tasks that still run in idle loops. Return a line for each."""
        lines: list[CodeLine | str] = []
        for loop in self._idle_loops():
            unfinished = self._unfinished(loop)
            for task in unfinished:
                line = line_of_coroutine(task.get_coro())
                lines.append(line or task.get_name())
                task.cancel()
            if unfinished:
                loop.run_until_complete(
                    wait_for_tasks(unfinished, timeout=_CANCEL_PATIENCE)
                )
        return lines

    def _unfinished(self, loop: AbstractEventLoop) -> list[AnyTask]:
        unfinished = []
        for task in all_tasks(loop):
            owner = owner_of(task)
            if owner is not None and owner.is_test and is_users_task(task):
                unfinished.append(task)
        return unfinished

"""Work of requests that runs after their answers."""

from __future__ import annotations

import asyncio
import threading
from asyncio import all_tasks, current_task, run_coroutine_threadsafe
from collections import deque
from typing import TYPE_CHECKING
from weakref import WeakSet

from pytest_arena._app._entry import ENTRY
from pytest_arena._app._raised import in_one_line
from pytest_arena._config._load import blame, package_of
from pytest_arena._origin import (
    BACKGROUND_JOBS,
    OUR_TASK,
    WORK,
    BackgroundJob,
    has_starter_in,
    line_of,
    line_of_coroutine,
    outermost,
    users_frames,
)
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
    from collections.abc import Callable, Iterable, Iterator
    from types import FrameType

    from pytest_arena._values import CodeLine

    TaskFilter = Callable[[AnyTask], bool]

__tracebackhide__ = True  # tracebacks end at the user's line

_STEP = 0.0002  # seconds between two looks

# The passes for which `arena.settled()` lets the loop run. A request may wake a task of the
# lifespan, which begins further tasks. The worker of Litestar's events does this.
_PASSES = 5

# The passes for which the end of each async test lets the loop run. A due callback may begin a
# task.
_PASSES_AT_END = 2

_MOST_LINES = 4


def lines_of_error(lines: Iterable[object]) -> str:
    """Return the first lines for an error, sorted and each once."""
    return "\n".join(sorted(set(map(str, lines)))[:_MOST_LINES])


class OwnWork:
    """Threads, jobs of pools and tasks that the test itself begins.

    pytest-arena does not wait for them. After the test they get no connection and send no
    statement.
    """

    # A later test's message about this work contains this name and this advice.
    owner = "a thread, a job or a task that an earlier test had begun"
    ending = (
        "join the thread, await the job or the task, or wait for the queue (await queue.join()), "
        "before that test ends"
    )

    def __init__(self) -> None:
        self.is_over = False  # whether the test is over

    def finish(self) -> None:
        """Note that the test is over."""
        self.is_over = True

    def note_failure(self, error: Exception) -> None:
        """Do nothing: only the app's work is reported."""


class LateWork:
    """Work that the requests of one test begin and that runs after their answers.

    These are tasks in the loops in which the app answers, threads, timers and jobs of pools. A
    library's thread counts if its stack has the user's code. Work that ran before the first
    request belongs to the app or to a fixture.
    """

    def __init__(self, patience: float, endless: set[CodeLine | str]) -> None:
        self.is_over = False  # whether the test is over
        self.own = OwnWork()
        # The lines of work that was cancelled, or still ran when the test stopped waiting.
        self.cut_off: list[CodeLine | str] = []
        # The errors of its tasks and callbacks that no code has retrieved, with their lines.
        self.failures: dict[str, CodeLine | None] = {}
        self.has_waited_in_vain = False  # whether `arena.settled()` has raised
        self._patience = patience  # seconds
        # Lines of work that outlasted the wait of an earlier test. No test waits for them again.
        self._endless = endless
        self._tasks_before: dict[asyncio.AbstractEventLoop, WeakSet[AnyTask]] = {}
        self._threads_before: frozenset[int] = frozenset()
        # Whether the last wait left no work, and no request was answered since.
        self._is_done = False

    def note_older_work(self) -> None:
        """Record the present tasks and threads. Called in the app's loop before the app answers."""
        self._is_done = False
        loop = running_loop()
        if loop is None or loop in self._tasks_before:
            return
        if not self._tasks_before:
            self._threads_before = _threads_of_others()
        self._tasks_before[loop] = WeakSet(all_tasks(loop))

    def note_failure(self, error: Exception) -> None:
        """Note an error that a task or a callback of this work has raised."""
        self.failures[in_one_line(error)] = blame(error)

    @property
    def has_begun(self) -> bool:
        """Whether the app answered a request, or a thread got work."""
        return bool(self._tasks_before or self._background_jobs())

    def _background_jobs(self) -> dict[BackgroundJob, CodeLine | None]:
        """Return this work's unfinished threads, jobs and calls, with the lines that began them."""
        jobs: dict[BackgroundJob, CodeLine | None] = {}
        if not BACKGROUND_JOBS:
            return jobs
        for job in alive(BACKGROUND_JOBS):
            if job.work is self:
                jobs[job] = BACKGROUND_JOBS.get(job)
        return jobs

    def lines(self, counts: TaskFilter | None = None) -> list[CodeLine | str]:
        """Return the lines of the tasks, threads and jobs that still run.

        ``counts`` returns whether a task of a request counts. By default all tasks count.
        """
        # Look at jobs before and after the tasks and threads, because a task may begin a job and
        # end in between.
        jobs = self._background_jobs() if BACKGROUND_JOBS else {}
        if not (jobs or self._tasks_before):
            return []
        lines: list[CodeLine | str] = []
        for task in self._tasks_of_requests():
            if counts is not None and not counts(task):
                continue
            lines.append(line_of_coroutine(task.get_coro()) or _name_of(task))
        threads = self.threads()
        for stack in threads.values():
            lines.append(line_of(stack[0]) or "a line that cannot be seen")
        if BACKGROUND_JOBS:
            jobs = {**self._background_jobs(), **jobs}
        if jobs:
            for job, line in jobs.items():
                if line is not None and job.thread not in threads:
                    lines.append(line)
        return lines

    def _tasks_of_requests(self) -> list[AnyTask]:
        this_task = current_task() if running_loop() else None
        tasks = []
        # Iterate over a copy, because another thread may add a loop in which the app answers.
        for loop, before in [*self._tasks_before.items()]:
            if loop.is_closed():
                continue
            for task in all_tasks(loop):
                if task is this_task:
                    continue
                if not is_users_task(task):
                    continue
                context = context_of(task)
                if getattr(context.get(WORK), "is_over", False):
                    continue  # the work of an earlier test
                entry = context.get(ENTRY)
                # Skip a task without a request and without a line of the user's code. The lifespan,
                # a fixture or SQLAlchemy has started it. SQLAlchemy closes the session of an
                # `async with` in a task.
                if not (entry or _may_be_in_users_code(task)):
                    continue
                # The task that serves the first request existed before that request.
                is_of_a_request = entry or task not in before
                is_open = entry is not None and entry.request.is_open
                if is_of_a_request and not is_open:
                    tasks.append(task)
        return tasks

    def unfinished(self, counts: TaskFilter | None = None) -> list[CodeLine | str]:
        """Return the lines of unfinished work that a test may wait for, each once."""
        lines = dict.fromkeys(self.lines(counts))
        return [line for line in lines if line not in self._endless]

    def note_cancelled(self, lines: Iterable[CodeLine | str]) -> None:
        """Note the lines of requests and tasks that were cancelled before they finished."""
        self.cut_off += lines

    def finish(self) -> None:
        """Note that the test is over. Its work now gets no connection and sends no statement."""
        self.is_over = True
        self.own.finish()

    def end(self) -> None:
        """End this work with its test: cancel its queued jobs, and refuse it connections."""
        self.finish()
        for job in self._background_jobs():
            job.cancel()

    def threads(self) -> dict[int, list[FrameType]]:
        """Return the threads that still work, with the frames of the user's code."""
        if not self._tasks_before:
            return {}
        threads = {}
        for thread, stack in threads_at_work().items():
            if not has_starter_in(thread, self._threads_before):
                threads[thread] = stack
        return threads

    def settled(self, patience: float | None = None) -> None:
        """Wait until the work is done, like `waiting`.

        At the end of an async test, return at once if `asettled` left no work.
        """
        if patience is None and self._is_done and not self._background_jobs():
            return
        if patience is not None:
            for loop in [*self._tasks_before]:
                if loop.is_running() and loop is not running_loop():
                    passes = run_coroutine_threadsafe(_let_pass(), loop)
                    passes.result(patience)
        deque(self.waiting(patience), maxlen=0)

    async def asettled(self, patience: float | None = None) -> None:
        """Wait in a loop until the work is done, like `waiting`.

        A due callback or the end of a task may begin another task. So the search is repeated until
        it finds no work.
        """
        limit = self._patience if patience is None else patience
        end = seconds() + limit
        has_waited = True
        passes = _PASSES if patience is not None else _PASSES_AT_END
        while has_waited:
            if self._tasks_before:
                await _let_pass(passes)
            has_waited = False
            for _ in self.waiting(patience):
                has_waited = seconds() < end
                await async_rest(0)

    def pausing(self, counts: TaskFilter | None = None) -> Iterator[None]:
        """Yield after a short pause while work runs, at most for ``arena_settle`` seconds.

        Unlike `waiting`, it cuts off no work and raises no error.
        """
        end = seconds() + self._patience
        while self.unfinished(counts) and seconds() < end:
            rest(_STEP)
            yield

    def take_endless(self) -> list[CodeLine | str]:
        """Return the lines of work that still runs. No test waits for these lines again."""
        lines = self.unfinished()
        self._endless.update(lines)
        return lines

    def waiting(self, patience: float | None = None) -> Iterator[None]:
        """Yield after a short pause while work runs and the time is not up.

        No ``patience`` means the end of the test. Work that still runs is then noted as cut off.

        Raises:
            LateWorkError: work still ran after ``patience`` seconds.
        """
        is_end_of_test = patience is None
        endless = self._endless if is_end_of_test else set()
        limit = self._patience if patience is None else patience
        end = seconds() + limit
        lines = self.lines()
        while not endless.issuperset(lines) and seconds() < end:
            rest(_STEP)  # not a sleep of the loop, whose clock a test may have stopped
            yield
            lines = self.lines()
        if patience is None:
            self.cut_off += lines
            self._endless.update(lines)
            self._is_done = not lines
        elif lines:
            self.has_waited_in_vain = True
            longer = max(60, patience * 2)
            raise LateWorkError(
                f"work that a request had begun still runs after {patience:g} s",
                why="the work may still have rows to write",
                cause=lines_of_error(lines),
                fix="begin endless work, such as a poller, in the app's lifespan: settled() does "
                f"not wait for it. For slow work: arena.settled({longer:g})",
            )


async def _let_pass(passes: int = _PASSES) -> None:
    for _ in range(passes):
        await async_rest(0)


def threads_at_work() -> dict[int, list[FrameType]]:
    """Return the other threads in the user's code, each with its user frames, innermost first."""
    stacks = innermost_frames()
    # The frame of this function would keep its callers in a reference cycle.
    del stacks[threading.get_ident()]
    # The main thread serves no request, and reading its deep stack is slow.
    stacks.pop(threading.main_thread().ident or 0, None)
    at_work = {}
    for thread, frame in stacks.items():
        frames = users_frames(frame)
        if frames:
            at_work[thread] = frames
    return at_work


def _threads_of_others() -> frozenset[int]:
    """Return the threads that already work before the first request.

    These are the main thread, and other threads that run the user's code. A thread inside a
    greenlet of SQLAlchemy counts too, because its stack shows only the greenlet's frames.
    """
    here = threading.get_ident()
    threads = {threading.main_thread().ident or 0}
    stacks = innermost_frames()
    for thread in stacks.keys() - threads:
        is_in_greenlet = outermost(stacks[thread]).f_code.co_name != "_bootstrap"
        if is_in_greenlet or (thread != here and users_frames(stacks[thread])):
            threads.add(thread)
    stacks.clear()  # the frame of this function would keep its callers in a reference cycle
    return frozenset(threads)


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
    if task.get_name() == OUR_TASK:
        return False
    coroutine = task.get_coro()
    name = getattr(coroutine, "__name__", "")
    return name not in _NOT_OF_USERS or line_of_coroutine(coroutine) is not None


def _may_be_in_users_code(task: AnyTask) -> bool:
    """Return whether a task waits in the user's code, or runs now.

    Python does not show what a running coroutine awaits.
    """
    coroutine = task.get_coro()
    is_running = getattr(coroutine, "cr_running", False)
    return is_running or line_of_coroutine(coroutine) is not None


def _name_of(task: AnyTask) -> str:
    """Return words for a task that waits in no line of the user's code."""
    coroutine = task.get_coro()
    code = getattr(coroutine, "cr_code", None)
    package = package_of(code.co_filename) if code is not None else ""
    if package == "pytest_arena":  # a wrapper around a method of SQLAlchemy
        package = "sqlalchemy"
    function = getattr(coroutine, "__qualname__", "")
    return f"a task of {package or 'asyncio'}: {function} ({task.get_name()})"

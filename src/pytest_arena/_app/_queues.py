"""Attributes the work on a queued job to the test that queued it.

The worker may be older than that test. It may be a thread or a task that started at import, in the
lifespan, in a wider fixture or in an earlier test. It works for the test after it takes the job,
until it asks the queue for the next one.
"""

from __future__ import annotations

import asyncio
import inspect
import queue
import sys
import threading
from asyncio import current_task
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar, copy_context
from functools import partial, wraps
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

from pytest_arena._origin import (
    BACKGROUND_JOBS,
    IDLE_WORKERS,
    REQUEST,
    WORK,
    BackgroundJob,
    line_in_users_code,
)
from pytest_arena._process import (
    alive,
    context_of,
    replace_attribute,
    running_loop,
    when_imported,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from pytest_arena._origin import Work
    from pytest_arena._values import CodeLine

# A task, or a thread without a running task.
_Worker = Any


class QueuedJob(BackgroundJob):
    """A job that a test has put into a queue and that a worker has not finished."""

    def __init__(self, work: Work | None, item: object) -> None:
        super().__init__(work, None)
        self.item = item
        # The values of `WORK` and `REQUEST` of the worker before this job.
        self.work_before: Work | None = None
        self.request_before: Any = None
        self._worker: ref[_Worker] | None = None  # the worker that has taken it
        self._line = BACKGROUND_JOBS.pop(self)

    @property
    def is_ended(self) -> bool:
        """Whether the worker that has taken this job has ended."""
        if self._worker is None:
            return False
        worker = self._worker()
        return worker is None or _has_ended(worker)

    def assign_to(self, worker: _Worker, *, work_before: Work | None) -> None:
        """Note the worker that has taken this job, and let it work for the job's test."""
        self._worker = ref(worker)
        self.work_before = work_before
        self.item = None  # do not keep the item alive
        if worker is _caller():
            self.request_before = REQUEST.get()
            WORK.set(self.work)
            REQUEST.set(self.request)
        else:
            # The worker awaits the present task, so the worker's context is not in use.
            context = context_of(worker)
            self.request_before = context.get(REQUEST)
            context.run(WORK.set, self.work)
            context.run(REQUEST.set, self.request)

    def is_running_in(self, thread: int) -> bool:
        """Return whether a thread, or the task that runs in it, does this job.

        The attribute ``thread`` stays 0, so that the end of the test waits for the job.
        """
        worker = self._worker() if self._worker is not None else None
        if isinstance(worker, threading.Thread):
            return worker.ident == thread
        return worker is _caller()

    def make_test_wait(self, worker_line: CodeLine | None) -> None:
        """Make the end of the test wait for this job.

        Messages name the line that queued the job. If that line is unknown, such as in a callback
        of a loop, they name the worker's line.
        """
        BACKGROUND_JOBS[self] = self._line or worker_line

    def end(self) -> None:
        """Note that the job is done, or that no worker takes it."""
        BACKGROUND_JOBS.pop(self, None)


_WorkAndJob = tuple["Work | None", QueuedJob | None]
_UNKNOWN: _WorkAndJob = (None, None)


class JobsOfQueue:
    """The jobs that tests have put into one queue, and the workers that take them."""

    def __init__(self) -> None:
        self._waiting: list[QueuedJob] = []
        # By worker: the value of `WORK` when it last asked for a job, and its present job.
        self._workers: WeakKeyDictionary[_Worker, _WorkAndJob] = WeakKeyDictionary()
        # The line where a worker last asked for a job.
        self._line: CodeLine | None = None
        self.is_of_a_library = False  # whether only a library's code asks for items
        # Reentrant: the garbage collector may run a finalizer that uses the same queue.
        self._lock = threading.RLock()

    @contextmanager
    def adding(self, work: Work | None, item: object) -> Iterator[None]:
        """Note a job that this block puts into the queue."""
        job = QueuedJob(work, item)
        with self._lock:
            self._waiting.append(job)
            # Without a worker the test, or a later request, reads the queue. Do not wait then.
            if any(map(self._takes_jobs, alive(self._workers))):
                job.make_test_wait(self._line)
        try:
            yield
        except BaseException:
            self._pop(item)  # the queue is full
            job.end()
            raise

    def begin_get(self, frame: FrameType) -> _Worker:
        """Note that a frame asks for a job. Return its worker.

        Return None for a library's code and in the main thread.
        """
        worker = _caller()
        line = line_in_users_code(frame)
        self.is_of_a_library = line is None and self._line is None
        if line is None or worker is threading.main_thread():
            return None
        self.end_job()
        self._workers[worker] = (WORK.get(), None)
        self._line = line
        return worker

    @contextmanager
    def waiting(self, worker: _Worker) -> Iterator[None]:
        """Note that a worker and the present task wait for the next job in this block."""
        idle = []
        with self._lock:
            if worker is not None and not self._waiting:
                idle = [worker, _caller()]
            for each in idle:
                IDLE_WORKERS[each] = None
        try:
            yield
        finally:
            for each in idle:
                IDLE_WORKERS.pop(each, None)

    def end_get(self, worker: _Worker, item: object) -> None:
        """Note that a worker, or another caller, has taken an item."""
        job = self._pop(item)
        if job is None:
            return
        if worker is None:
            job.end()  # a library or the main thread takes it
            return
        work, _ = self._workers.get(worker, _UNKNOWN)
        if work is not None and not work.is_over:
            job.end()  # the worker already works for a running test
            return
        job.make_test_wait(self._line)
        job.assign_to(worker, work_before=work)
        self._workers[worker] = (work, job)

    def stop_waiting(self) -> None:
        """Note that no test needs to wait for the present job of the caller.

        Until the caller asks for its next job, its writes still belong to this job.
        """
        _, job = self._workers.get(_caller(), _UNKNOWN)
        if job is not None:
            job.end()

    def end_job(self) -> None:
        """Note that the caller has done its present job, if it has one."""
        worker = _caller()
        work, job = self._workers.get(worker, _UNKNOWN)
        if job is not None:
            self._workers[worker] = (work, None)
            job.end()
            WORK.set(job.work_before)
            REQUEST.set(job.request_before)

    def _pop(self, item: object) -> QueuedJob | None:
        if not self._waiting:  # most often
            return None
        with self._lock:
            for job in self._waiting:
                if job.item is item:
                    self._waiting.remove(job)
                    return job
        return None

    def _takes_jobs(self, worker: _Worker) -> bool:
        """Return whether a worker takes the next job, now or after its present job."""
        if _has_ended(worker):
            return False
        work, job = self._workers.get(worker, _UNKNOWN)
        return work is None or worker in IDLE_WORKERS or job is not None


# The current task, or the current thread if no task runs in it.
def _caller() -> _Worker:
    task = current_task() if running_loop() is not None else None
    return task or threading.current_thread()


def _has_ended(worker: _Worker) -> bool:
    return worker.done() if isinstance(worker, asyncio.Task) else not worker.is_alive()


# The attribute of a queue that refers to its `JobsOfQueue`.
_JOBS = "_arena_jobs"


def _jobs_of(job_queue: object) -> JobsOfQueue:
    jobs: JobsOfQueue | None = vars(job_queue).get(_JOBS)
    if jobs is None:
        # `setdefault` is atomic, so two threads get the same record.
        jobs = vars(job_queue).setdefault(_JOBS, JobsOfQueue())
    return jobs


def watch_queues(undo: ExitStack) -> None:
    """Note jobs that tests put into queues, and workers that take them. ``undo`` ends this."""
    of_threads = {"put": _putting, "get": _getting}
    of_tasks = {"put_nowait": _putting, "get_nowait": _getting, "get": _awaiting}
    for kind, wrappers in ((queue.Queue, of_threads), (asyncio.Queue, of_tasks)):
        for name, wrap in (*wrappers.items(), ("task_done", _ending)):
            original = getattr(kind, name)
            # An outer run in this process may already watch the queues.
            if original.__code__.co_filename != __file__:
                replace_attribute(undo, kind, name, wrap(original))
    when_imported("litestar.events.listener", partial(_watch_events, undo))


def _watch_events(undo: ExitStack, module: Any) -> None:
    """Let the listeners of Litestar's events work for the request that emits an event.

    The emitter reads ``fn`` in the request, and calls it in a task that the lifespan's worker
    starts.
    """
    slot = module.EventListener.fn

    def function_of(listener: object) -> object:
        function = slot.__get__(listener)
        if REQUEST.get() is None:
            return function
        context = copy_context()
        job = BackgroundJob(WORK.get(), function)

        async def listen(*args: object, **options: object) -> None:
            for variable, value in context.items():
                if variable.name.startswith("arena"):
                    variable.set(value)
            BACKGROUND_JOBS.pop(job, None)  # the task counts from now on
            await function(*args, **options)

        return listen

    replace_attribute(
        undo, module.EventListener, "fn", property(function_of, slot.__set__)
    )


def _putting(original: Any) -> Any:
    @wraps(original)
    def put(job_queue: object, item: object, *args: object, **kwargs: object) -> object:
        work = WORK.get()
        if work is None or _jobs_of(job_queue).is_of_a_library:
            return original(job_queue, item, *args, **kwargs)
        with _jobs_of(job_queue).adding(work, item):
            return original(job_queue, item, *args, **kwargs)

    return put


# Whether `asyncio.Queue.get` calls `get_nowait`.
_is_awaited: ContextVar[bool] = ContextVar(
    "arena: a worker awaits a job", default=False
)


def _getting(original: Callable[..., Any]) -> Callable[..., object]:
    @wraps(original)
    def get(job_queue: object, *args: object, **kwargs: object) -> object:
        if _is_awaited.get():
            return original(job_queue, *args, **kwargs)
        jobs = _jobs_of(job_queue)
        worker = jobs.begin_get(sys._getframe(1))  # noqa: SLF001 - the documented way to a caller's frame
        with jobs.waiting(worker):
            item = original(job_queue, *args, **kwargs)
        jobs.end_get(worker, item)
        return item

    return get


def _awaiting(original: Callable[..., Any]) -> Callable[..., object]:
    async def get_for_worker(
        job_queue: object, jobs: JobsOfQueue, worker: _Worker
    ) -> object:
        _is_awaited.set(True)
        try:
            with jobs.waiting(worker):
                item = await original(job_queue)
        finally:
            # Use no token, because the garbage collector may close this coroutine in another
            # context.
            _is_awaited.set(False)
        jobs.end_get(worker, item)
        return item

    # Not async, so that `begin_get` runs in the worker. `asyncio.wait_for` may await the coroutine
    # in a separate task.
    @wraps(original)
    def get(job_queue: object) -> object:
        jobs = _jobs_of(job_queue)
        worker = jobs.begin_get(sys._getframe(1))  # noqa: SLF001 - as above
        return get_for_worker(job_queue, jobs, worker)

    return _marked_as_async(get)


def _marked_as_async(function: Callable[..., object]) -> Callable[..., object]:
    """Mark a function that returns a coroutine as async, for mocks of its class."""
    if sys.version_info >= (3, 12):
        return inspect.markcoroutinefunction(function)
    function._is_coroutine = asyncio.coroutines._is_coroutine  # type: ignore[attr-defined] # noqa: SLF001 - its name before
    return function


def _ending(original: Any) -> Any:
    @wraps(original)
    def task_done(job_queue: object) -> object:
        jobs = vars(job_queue).get(_JOBS)
        if jobs is not None:
            jobs.stop_waiting()
        return original(job_queue)

    return task_done

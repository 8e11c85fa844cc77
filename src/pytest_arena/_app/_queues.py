"""Attributes a queued job to the test that queued it.

The worker may be older than that test: a thread or a task that starts at import, in the lifespan,
in a wider fixture or in an earlier test. The worker's work belongs to the test that has put the job
there, until the worker asks the queue for its next job.
"""

from __future__ import annotations

import asyncio
import inspect
import queue
import sys
import threading
from asyncio import current_task
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

from pytest_arena._origin import (
    IDLE_WORKERS,
    PIECES,
    REQUEST,
    WORK,
    Piece,
    line_in_users_code,
)
from pytest_arena._process import alive, context_of, replace_attribute, running_loop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from pytest_arena._origin import Work
    from pytest_arena._values import CodeLine

# A task, or a thread in which no task runs.
_Worker = Any


class QueuedJob(Piece):
    """A job that a test has put into a queue, until its worker has done it."""

    def __init__(self, work: Work | None, item: object) -> None:
        super().__init__(work, None)
        self.item = item
        self.work_before: Work | None = None  # the worker's
        self.request_before: Any = None
        self._worker: ref[_Worker] | None = None  # that has taken it
        self._line = PIECES.pop(self)

    @property
    def is_ended(self) -> bool:
        """Whether the worker that has taken this job has ended."""
        if self._worker is None:
            return False
        worker = self._worker()
        return worker is None or _has_ended(worker)

    def give_to(self, worker: _Worker, *, work_before: Work | None) -> None:
        """Note the worker that has taken this job. The task is a part of the job's work."""
        self._worker = ref(worker)
        self.work_before = work_before
        self.item = None  # it may be gone before the worker asks for the next one
        if worker is _caller():
            self.request_before = REQUEST.get()
            WORK.set(self.work)
            REQUEST.set(self.request)
        else:
            # The worker awaits this task, so its context is not in use.
            context = context_of(worker)
            self.request_before = context.get(REQUEST)
            context.run(WORK.set, self.work)
            context.run(REQUEST.set, self.request)

    def is_done_in(self, thread: int) -> bool:
        """Return whether a thread, or the task that runs in it, does this job.

        ``thread`` stays 0: the end of the test waits for the job, also if it knows the thread.
        """
        worker = self._worker() if self._worker is not None else None
        if isinstance(worker, threading.Thread):
            return worker.ident == thread
        return worker is not None and worker is _caller()

    def wait_for(self, worker_line: CodeLine | None) -> None:
        """Have the end of the test wait for this job.

        A callback of a loop has put it there if no line of the user's code has. The message then
        names the line of the worker.
        """
        PIECES[self] = self._line or worker_line

    def end(self) -> None:
        """Note that the job is done, or that no worker takes it."""
        PIECES.pop(self, None)


_WorkAndJob = tuple["Work | None", QueuedJob | None]
_UNKNOWN: _WorkAndJob = (None, None)


class JobsOfQueue:
    """The jobs that tests have put into one queue, and the workers that take them."""

    def __init__(self) -> None:
        self._waiting: list[QueuedJob] = []
        # The work to which a worker belonged at its last request for a job, and its present job.
        self._workers: WeakKeyDictionary[_Worker, _WorkAndJob] = WeakKeyDictionary()
        self._line: CodeLine | None = None  # where a worker has last asked for a job
        self.is_of_a_library = False  # a library's code asks for its items
        # The collector may run a finalizer that uses the same queue.
        self._lock = threading.RLock()

    @contextmanager
    def adding(self, work: Work | None, item: object) -> Iterator[None]:
        """Note a job while it is put into the queue."""
        job = QueuedJob(work, item)
        with self._lock:
            self._waiting.append(job)
            # A queue may be without a worker: its test, or a later request, reads from it.
            if any(map(self._takes_jobs, alive(self._workers))):
                job.wait_for(self._line)
        try:
            yield
        except BaseException:
            self._pop(item)  # the queue is full
            job.end()
            raise

    def ask(self, frame: FrameType) -> _Worker:
        """Note that a frame asks for a job. Return its worker, None if no code of the user asks."""
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
        """Note a worker that waits for its next job, and the task that awaits it for the worker."""
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

    def take(self, worker: _Worker, item: object) -> None:
        """Note that a worker, or another caller, has taken an item."""
        job = self._pop(item)
        if job is None:
            return
        if worker is None:
            job.end()  # a library does it
            return
        work, _ = self._workers.get(worker, _UNKNOWN)
        if work is not None and not work.is_over:
            job.end()  # a running test does it
            return
        job.wait_for(self._line)
        job.give_to(worker, work_before=work)
        self._workers[worker] = (work, job)

    def stop_waiting(self) -> None:
        """Note that no test has to wait any more for the job that the caller took, if it took one.

        Until the worker asks for its next job, what it writes is still the job's.
        """
        _, job = self._workers.get(_caller(), _UNKNOWN)
        if job is not None:
            job.end()

    def end_job(self) -> None:
        """Note that the caller has done the job that it took, if it took one."""
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
        """Return whether a worker takes the next job, now or once it has done another one."""
        if _has_ended(worker):
            return False
        work, job = self._workers.get(worker, _UNKNOWN)
        return work is None or worker in IDLE_WORKERS or job is not None


def _caller() -> _Worker:
    task = current_task() if running_loop() is not None else None
    return task or threading.current_thread()


def _has_ended(worker: _Worker) -> bool:
    return worker.done() if isinstance(worker, asyncio.Task) else not worker.is_alive()


# The attribute of a queue that has its `JobsOfQueue`, if a test or a worker has used it.
_JOBS = "_arena_jobs"


def _jobs_of(job_queue: object) -> JobsOfQueue:
    jobs: JobsOfQueue | None = vars(job_queue).get(_JOBS)
    if jobs is None:
        # In one step: two threads get one record.
        jobs = vars(job_queue).setdefault(_JOBS, JobsOfQueue())
    return jobs


def watch_queues(undo: ExitStack) -> None:
    """Know the jobs that tests put into queues, and the workers that take them.

    ``undo`` restores the classes.
    """
    for kind, name, wrap in (
        (queue.Queue, "put", _putting),
        (queue.Queue, "get", _getting),
        (queue.Queue, "task_done", _ending),
        (asyncio.Queue, "put_nowait", _putting),
        (asyncio.Queue, "get_nowait", _getting),
        (asyncio.Queue, "get", _awaiting),
        (asyncio.Queue, "task_done", _ending),
    ):
        original = getattr(kind, name)
        if (
            original.__code__.co_filename != __file__
        ):  # else a run around this one watches
            replace_attribute(undo, kind, name, wrap(original))


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
        worker = jobs.ask(sys._getframe(1))  # noqa: SLF001 - the documented way to a caller's frame
        with jobs.waiting(worker):
            item = original(job_queue, *args, **kwargs)
        jobs.take(worker, item)
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
            # Not by a token: the collector may close this in another context.
            _is_awaited.set(False)
        jobs.take(worker, item)
        return item

    # Not async: `asyncio.wait_for` may await it in a separate task. The worker calls it.
    @wraps(original)
    def get(job_queue: object) -> object:
        jobs = _jobs_of(job_queue)
        worker = jobs.ask(sys._getframe(1))  # noqa: SLF001 - as above
        return get_for_worker(job_queue, jobs, worker)

    return _marked_as_async(get)


def _marked_as_async(function: Callable[..., object]) -> Callable[..., object]:
    """Have mocks of the class take a function that returns a coroutine for an async one."""
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

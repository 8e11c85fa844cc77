"""Tells to which test, wider fixture or lifespan the running code belongs.

The context of each task, thread and job names its owner. An owner that is over gets no connection.
"""

from __future__ import annotations

import asyncio
from asyncio import current_task
from concurrent.futures.thread import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from functools import partial
from threading import Thread, get_ident
from types import CoroutineType, FunctionType, MethodType
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from pytest_arena._origin import (
    REQUEST,
    line_of_coroutine,
    line_of_function,
    logical_stack,
    user_line,
)
from pytest_arena._process import context_of, replace_attribute, running_loop
from pytest_arena.errors import ArenaError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future
    from contextlib import ExitStack

    from pytest_arena._process import AnyTask
    from pytest_arena._values import CodeLine


class Owner:
    """A test, a wider fixture, or a lifespan of the app.

    ``serial`` is positive for a test, negative for a wider fixture, and 0 for a lifespan.
    """

    def __init__(self, name: str, advice: str, serial: int = 0) -> None:
        self.name = name
        self.advice = advice  # the code that must end its tasks, threads and jobs
        self.serial = serial
        self.is_over: bool = False
        # Whether it is between its set-up and its tear-down, so that only its tasks, threads and
        # jobs run.
        self.is_idle: bool = False

    @property
    def is_test(self) -> bool:
        """Whether it is a test."""
        return self.serial > 0

    @property
    def is_wide(self) -> bool:
        """Whether it is a wider fixture that has not ended."""
        return self.serial < 0 and not self.is_over

    def note_idle(self, *, is_idle: bool) -> None:
        """Note the end of its set-up, or the beginning of its tear-down."""
        self.is_idle = is_idle

    def end(self) -> None:
        """Note its end. Its tasks, threads and jobs get no connection from now on."""
        self.is_idle = False
        self.is_over = True

    def note_failure(self, error: Exception) -> None:
        """Note an error of a request's work that no code retrieves."""


def outlives_tests(owner: Owner | None) -> bool:
    """Return whether an owner is a wider fixture or a lifespan that goes on, or an import."""
    return owner is None or not (owner.is_test or owner.is_over)


# The owner of the running code. In a task it stays set after the owner's end.
OWNER: ContextVar[Owner | None] = ContextVar("arena: the owner", default=None)


class _Phase:
    """The owner whose hook of pytest runs, and the thread of pytest."""

    owner: Owner | None = None
    thread = 0


def begin_phase(owner: Owner | None) -> None:
    """Note that code of this owner runs from now on in pytest's thread."""
    _Phase.owner = owner
    _Phase.thread = get_ident()
    OWNER.set(owner)


@contextmanager
def phase_of(owner: Owner | None) -> Iterator[None]:
    """Note that a hook of pytest runs code of this owner in the block."""
    previous = _Phase.owner
    begin_phase(owner)
    try:
        yield
    finally:
        begin_phase(previous)


@contextmanager
def owned_by(owner: Owner | None) -> Iterator[None]:
    """Make the code of the block, and the work that it begins, belong to this owner."""
    token = OWNER.set(owner)
    try:
        yield
    finally:
        OWNER.reset(token)


def owner_here() -> Owner | None:
    """Return the owner of the running code.

    An ``asyncio.Runner`` may outlive its first test, and run later tests in that test's context.
    """
    owner = OWNER.get()
    if owner is not None and not owner.is_over and not owner.is_idle:
        return owner
    is_phase = running_loop() is not None and get_ident() == _Phase.thread
    return _Phase.owner if is_phase and _is_driven_by_pytest() else owner


def _is_driven_by_pytest() -> bool:
    """Return whether pytest waits for the current task. Return False with uvloop."""
    task = current_task()
    if task is None:
        return False  # a callback of the loop
    if is_runner_of_anyio(task):
        return True
    for frame in logical_stack():
        runs_loop = frame.f_code is _RUN_UNTIL_COMPLETE
        if runs_loop and frame.f_locals.get("future") is task:
            return True
    return False


_RUN_UNTIL_COMPLETE = asyncio.BaseEventLoop.run_until_complete.__code__


def is_runner_of_anyio(task: AnyTask) -> bool:
    """Return whether a task runs the tests and the fixtures of anyio's plugin."""
    return getattr(task.get_coro(), "__name__", "") == "_run_tests_and_fixtures"


def owner_of(task: AnyTask) -> Owner | None:
    """Return the owner of a task."""
    return context_of(task).get(OWNER)


class Job:
    """A thread of the user, or a job of a pool, with the owner and the request that began it."""

    def __init__(self, function: Callable[..., object], line: CodeLine | None) -> None:
        self.owner = OWNER.get()
        self.request = REQUEST.get()
        self.thread = 0
        self.cancel: Callable[[], object] = bool
        self._function = function
        JOBS[self] = line

    def cancel_by(self, cancel: Callable[[], object]) -> None:
        """Note the function that cancels the job."""
        self.cancel = cancel

    def __call__(self, *args: object, **kwargs: object) -> object:
        """Do the work. Further work that it starts has the same owner."""
        self.thread = get_ident()
        token = OWNER.set(self.owner)
        request_token = REQUEST.set(self.request)
        try:
            return self._function(*args, **kwargs)
        finally:
            REQUEST.reset(request_token)
            OWNER.reset(token)
            JOBS.pop(self, None)
            del self._function  # a thread's `run` would be a reference cycle


# The jobs that wait or run. The value is the user's line that began the job.
JOBS: WeakKeyDictionary[Job, CodeLine | None] = WeakKeyDictionary()


def watch_background_work(undo: ExitStack) -> None:
    """Patch the classes by which the user's code begins threads and jobs of pools.

    ``undo`` restores the classes.
    """
    submit = ThreadPoolExecutor.submit
    start = Thread.start

    def watched_submit(
        pool: ThreadPoolExecutor, function: Any, /, *args: object, **kwargs: object
    ) -> Future[object]:
        if OWNER.get() is None:
            return submit(pool, function, *args, **kwargs)
        job = Job(function, user_line() or line_of_function(function))
        future = submit(pool, job, *args, **kwargs)
        job.cancel_by(future.cancel)
        return future

    def watched_start(thread: Any) -> None:
        if OWNER.get() is None:
            start(thread)
            return
        target = getattr(thread, "function", None) or thread._target or thread.run  # noqa: SLF001 - no other name
        if any(map(_is_of_user, (target, *thread._args))):  # noqa: SLF001 - as above
            job = Job(thread.run, user_line() or line_of_function(target))
            job.cancel_by(getattr(thread, "cancel", bool))
            thread.run = job
            start(thread)
            return
        # A library's thread serves all tests. Free-threaded Python copies the starter's context.
        context = copy_context()
        context.run(OWNER.set, None)
        context.run(start, thread)

    replace_attribute(undo, ThreadPoolExecutor, "submit", watched_submit)
    replace_attribute(undo, Thread, "start", watched_start)


def _is_of_user(argument: object) -> bool:
    """Return whether an argument is a function or a coroutine of the user."""
    # The type is compared, because an attribute of a lazy proxy may raise any error.
    if type(argument) not in {CoroutineType, FunctionType, MethodType, partial}:
        return False
    return bool(line_of_function(argument) or line_of_coroutine(argument))


def watch_failures(undo: ExitStack) -> None:
    """Patch asyncio to note the errors of tasks and callbacks that no code retrieves.

    asyncio only logs these errors. ``undo`` restores the class.
    """
    loops: Any = asyncio.BaseEventLoop
    original = loops.call_exception_handler

    def watched(loop: object, details: dict[str, object]) -> None:
        error = details.get("exception")
        source = details.get("task") or details.get("future") or details.get("handle")
        # pytest-arena reports an ArenaError elsewhere.
        if isinstance(error, Exception) and not isinstance(error, ArenaError):
            context = context_of(source)
            owner = context.get(OWNER)
            if owner is not None and context.get(REQUEST) is not None:
                owner.note_failure(error)
        original(loop, details)

    replace_attribute(undo, loops, "call_exception_handler", watched)

"""Tells to which test, wide fixture or lifespan the running code belongs: its owner.

The rule for owners and levels:

- **The owner decides about code.** The context of each task, thread and job names its owner. The
  owner ends its connections, and reports name the owner. An owner that is over gets no connection.
- **The level decides about rows.** A write belongs to the level on top, whoever writes. Leaving the
  level undoes it (``_run/_levels.py``).

- **A request, and what it loses, belongs to the running test**, whoever sends it.

For example a task of a wide fixture writes during a test. The end of the test undoes the rows. The
task keeps its connection, unless its transaction stays open for a second: then a copy replaces the
database. A connection without an engine has no record of a pool, so it ends with the idle owner
that opened it, else with the level.
"""

from __future__ import annotations

import asyncio
from asyncio import current_task
from concurrent.futures.thread import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from functools import partial
from threading import Thread, get_ident
from types import CoroutineType, FunctionType, MethodType
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakSet, ref

from pytest_arena._config._load import is_library, line_of_function
from pytest_arena._interpreter import patch
from pytest_arena._origin import (
    CALLER,
    OUR_TASK,
    REQUEST,
    line_of_coroutine,
    this_task,
    user_line,
)
from pytest_arena._process import context_of, running_loop
from pytest_arena._values import Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future
    from contextlib import ExitStack

    from pytest_arena._process import AnyTask
    from pytest_arena._values import CodeLine


class Owner:
    """A test, a wide fixture, or a lifespan of the app.

    A test or a wide fixture is also a level of the databases: its end restores them.
    """

    is_test = False
    is_wide = False  # whether it is a wide fixture
    is_set_up = False  # whether it is a test whose function pytest calls
    # The content and the isolation of its level. The markers of a test may name others.
    stage = Stage.SEEDED
    isolation = "auto"

    def __init__(self, name: str, advice: str) -> None:
        self.name = name
        self.advice = advice  # the code that must end its tasks, threads and jobs
        self.is_over: bool = False
        # Whether it is between its set-up and its tear-down, so that only its tasks, threads and
        # jobs run.
        self.is_idle: bool = False
        # The tasks that its requests have begun and that still live.
        self.request_tasks: WeakSet[AnyTask] = WeakSet()

    @property
    def has_app(self) -> bool:
        """Whether it is a test whose app has started, or needs no start."""
        return False

    def end(self) -> None:
        """Note its end. Its tasks, threads and jobs get no connection from now on."""
        self.is_idle = False
        self.is_over = True

    def note_failure(self, error: object) -> None:
        """Note an error of a request's work that no code retrieves."""


class WideFixture(Owner):
    """A fixture that outlives the test: of a class, a module, a package or the session.

    ``finish`` makes pytest tear down the fixture and the fixtures that use it. pytest sets it up
    again at its next use. If its first level was dropped as clean, its tear-down gets another one.
    """

    is_wide = True

    def __init__(
        self,
        name: str,
        finish: Callable[[], object],
        getfixturevalue: Callable[[str], Any],
    ) -> None:
        super().__init__(name, "the fixture's tear-down")
        self.finish = finish
        self.getfixturevalue = getfixturevalue


@dataclass(slots=True, eq=False, weakref_slot=True)
class Owned:
    """A connection or a session: to whom it belongs, and the line that uses it."""

    owner: Owner | None = None  # None for an import
    line: CodeLine | None = None

    @property
    def is_left(self) -> bool:
        """Whether its owner is over."""
        return self.owner is not None and self.owner.is_over

    @property
    def outlives_tests(self) -> bool:
        """Whether its owner is a wide fixture or a lifespan that goes on, or an import."""
        return self.owner is None or not (self.owner.is_test or self.owner.is_over)


# The owner of the running code. In a task it stays set after the owner's end.
OWNER: ContextVar[Owner | None] = ContextVar("arena: the owner", default=None)


class Phase:
    """The owner whose code pytest calls now."""

    owner: Owner | None = None
    # The owner if it is a test: a `RunningTest`, whose module this one may not import.
    test: Any = None


def begin_phase(owner: Owner | None) -> None:
    """Note that pytest calls code of this owner from now on."""
    Phase.owner = owner
    Phase.test = owner if owner is not None and owner.is_test else None
    OWNER.set(owner)


@contextmanager
def phase_of(owner: Owner | None) -> Iterator[None]:
    """Note that a hook of pytest runs code of this owner in the block."""
    previous = Phase.owner
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
    """Return the owner of the running code."""
    owner = OWNER.get()
    if owner is not None and not owner.is_over and not owner.is_idle:
        return owner
    task = current_task() if running_loop() is not None else None
    if task is not None and is_runner_of_anyio(task):
        return Phase.owner  # the task runs several tests in the context of the first one
    return owner


def is_runner_of_anyio(task: AnyTask) -> bool:
    """Return whether a task is of anyio's `TestRunner`, which runs tests and fixtures."""
    return getattr(task.get_coro(), "__qualname__", "").startswith("TestRunner.")


def owner_of(task: AnyTask) -> Owner | None:
    """Return the owner of a task."""
    return context_of(task).get(OWNER)


def is_users_task(task: AnyTask) -> bool:
    """Return whether a task may run the user's code. False for tasks of pytest-arena."""
    if task.get_name() == OUR_TASK or is_runner_of_anyio(task):
        return False
    # A private function of a library is no work of the app. For example, the first stream of
    # sse-starlette begins a task that waits until the server shuts down.
    coroutine = task.get_coro()
    is_private = getattr(coroutine, "__name__", "").startswith("_")
    return not is_private or line_of_coroutine(coroutine) is not None


class Job:
    """A thread of the user, or a job of a pool, with the owner and the request that began it."""

    def __init__(
        self, function: Any, line: CodeLine | None, worker: ref[Thread] | None = None
    ) -> None:
        self.owner = owner_here()
        self.request = REQUEST.get()
        self.thread = 0  # in which it runs
        self._function = function
        self._worker = worker  # a weak reference to the user's thread. None for a job of a pool
        JOBS[self] = line

    @property
    def is_unfinished(self) -> bool:
        """Whether a job waits or runs. A thread's error is reported before the thread ends."""
        if self._worker is None:
            return True
        worker = self._worker()
        return worker is not None and worker.is_alive()

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
            self.thread = 0
            if self._worker is None:
                JOBS.pop(self, None)
            del self._function  # a thread's `run` would be a reference cycle


# The jobs that wait or run, and threads. The value is the user's line that began the job.
JOBS: WeakKeyDictionary[Job, CodeLine | None] = WeakKeyDictionary()


def line_of_job() -> CodeLine | None:
    """Return the user's line that began the job of this thread, None without a job."""
    for job, line in [*JOBS.items()]:
        if job.thread == get_ident():
            return line
    return None


def cause_of_connection() -> str:
    """Return who connects, for a message: the user's line, that of the job, or the request."""
    request = REQUEST.get()
    unknown = (
        "no line of your code is on the stack: a pool's task, a thread or a package, such as a "
        "plugin of pytest, connects"
    )
    return str(user_line() or line_of_job() or (request and request.shown) or unknown)


def watch_background_work(undo: ExitStack) -> None:
    """Patch the classes by which the user's code begins threads and jobs of pools.

    ``undo`` restores the classes.
    """
    submit = ThreadPoolExecutor.submit
    start = Thread.start

    def watched_submit(
        pool: ThreadPoolExecutor, function: Any, /, *args: object, **kwargs: object
    ) -> Future[object]:
        job = Job(function, user_line() or line_of_function(function))
        return submit(pool, job, *args, **kwargs)

    def watched_start(thread: Any) -> None:
        if OWNER.get() is None:
            start(thread)
            return
        target = getattr(thread, "function", None) or thread._target or thread.run  # noqa: SLF001 - no other name
        if any(map(_is_of_user, (target, *thread._args))):  # noqa: SLF001 - as above
            line = user_line() or line_of_function(target)
            patch(thread, "run", Job(thread.run, line, ref(thread)))
            start(thread)
            return
        # A library's thread serves all tests. Free-threaded Python copies the starter's context.
        context = copy_context()
        context.run(OWNER.set, None)
        context.run(start, thread)

    patch(ThreadPoolExecutor, "submit", watched_submit, undo)
    patch(Thread, "start", watched_start, undo)


def _is_of_user(argument: object) -> bool:
    """Return whether an argument is a function or a coroutine of the user."""
    # The type is compared, because an attribute of a lazy proxy may raise any error.
    if type(argument) not in {CoroutineType, FunctionType, MethodType, partial}:
        return False
    return bool(line_of_function(argument) or line_of_coroutine(argument))


def is_in_task_of_app() -> bool:
    """Return whether the running task is of a request, and its outermost coroutine of the app."""
    # SQLAlchemy ends an ``async with`` in a task of its own.
    caller = CALLER.get() or (this_task() if running_loop() is not None else None)
    task = caller() if caller is not None else None
    if task is None or task not in getattr(OWNER.get(), "request_tasks", ()):
        return False
    code = getattr(task.get_coro(), "cr_code", None)
    return code is not None and not is_library(code.co_filename)


def watch_failures(undo: ExitStack) -> None:
    """Patch asyncio to note the errors of tasks and callbacks that no code retrieves.

    asyncio logs such an error when Python frees the task. Until then the owner knows the task.
    ``undo`` restores the class.
    """
    loops: Any = asyncio.BaseEventLoop
    create = loops.create_task
    handle = loops.call_exception_handler

    def watched_create(loop: object, *args: Any, **kwargs: Any) -> AnyTask:
        task: AnyTask = create(loop, *args, **kwargs)
        owner = OWNER.get()
        if owner is not None and REQUEST.get() is not None:
            owner.request_tasks.add(task)
        return task

    def watched_handle(loop: object, details: dict[str, object]) -> None:
        context = context_of(details.get("task") or details.get("future") or details.get("handle"))
        owner = context.get(OWNER)
        if owner is not None and context.get(REQUEST) is not None:
            owner.note_failure(details.get("exception"))
        handle(loop, details)

    patch(loops, "create_task", watched_create, undo)
    patch(loops, "call_exception_handler", watched_handle, undo)

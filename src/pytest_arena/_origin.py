"""Finds the user's line, the request or the test that caused an event."""

import asyncio
import gc
import sys
from asyncio import all_tasks, current_task
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures.thread import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass, replace
from functools import cache, partial, wraps
from inspect import CO_ASYNC_GENERATOR, CO_GENERATOR
from pathlib import Path
from threading import Thread, current_thread, get_ident, main_thread
from threading import enumerate as all_threads
from types import (
    AsyncGeneratorType,
    CodeType,
    CoroutineType,
    FrameType,
    FunctionType,
    MethodType,
)
from typing import Any, Protocol
from weakref import WeakKeyDictionary, WeakSet

import greenlet

from pytest_arena._config._load import is_library, package_of
from pytest_arena._process import (
    AnyTask,
    alive,
    context_of,
    replace_attribute,
    running_loop,
)
from pytest_arena._values import CodeLine
from pytest_arena.errors import ArenaError


def user_line() -> CodeLine | None:
    """Return the innermost line of the user's code that led to this call, or None.

    In a greenlet of SQLAlchemy's async engines, the search continues in the coroutine that waits
    for the greenlet. In a worker thread of aiosqlite, it continues in the task that waits for the
    thread. The search takes some microseconds.
    """
    for frame in logical_stack(of_users=True):
        return CodeLine(frame.f_code.co_filename, frame.f_lineno)
    return None


def line_that_pytest_called() -> CodeLine | None:
    """Return the current line of the user's hook, module or test that pytest called."""
    line = None
    for frame in logical_stack():
        file = frame.f_code.co_filename
        if package_of(file) in {"_pytest", "pluggy"}:
            break
        if not is_library(file):
            line = line_of(frame)
    return line


# The modules that handle audit events.
_AUDITING = {
    "pytest_arena._interpreter",
    "pytest_arena._origin",
    "pytest_arena._gate._watched_files",
}
# The packages that act for their callers. "" is the standard library.
_ACT_FOR_THEIR_CALLERS = {
    "",
    "pytest_arena",
    "sqlalchemy",
    "sqlalchemy_utils",
    "sqlmodel",
}


def call_of_test() -> "Call":
    """Return the lines of test files on the stack, innermost first, if a test file calls the app.

    Return no lines if no test file is on the stack, or if no app function is between the test file
    and this call. Entering or leaving a context manager of the app is not a call into the app.
    """
    called: CodeType | None = None
    lines = []
    for frame in logical_stack(of_users=True):
        code = frame.f_code
        if is_of_tests(code.co_filename):
            if called is None or _is_of_context_manager(called):
                return ()
            lines.append(CodeLine(code.co_filename, frame.f_lineno))
        elif not lines:
            called = code
    return tuple(lines)


Call = tuple[CodeLine, ...]


def _is_of_context_manager(code: CodeType) -> bool:
    """Return whether a function is a generator, or a context manager's enter or exit method."""
    is_generator = code.co_flags & (CO_GENERATOR | CO_ASYNC_GENERATOR)
    return bool(is_generator) or code.co_name in _CONTEXT_MANAGER_METHODS


_CONTEXT_MANAGER_METHODS = frozenset(
    {"__enter__", "__exit__", "__aenter__", "__aexit__"}
)


@cache
def is_of_tests(file: str) -> bool:
    """Return whether a file has tests, fixtures or their helpers, by its path."""
    path = Path(file)
    is_test_module = path.stem == "conftest" or "test" in path.stem.split("_")
    return is_test_module or not _FOLDERS_OF_TESTS.isdisjoint(path.parent.parts)


_FOLDERS_OF_TESTS = frozenset({"test", "tests", "testing"})


def is_called_by_user() -> bool:
    """Return whether the user's code, not pytest-arena or a library, called the present function.

    The standard library, SQLAlchemy and SQLAlchemy-Utils are skipped, because they act for their
    callers. For example, ``drop_database`` removes a file for its caller.
    """
    callers = (
        frame
        for frame in logical_stack()
        if frame.f_globals.get("__name__") not in _AUDITING
    )
    # If no frame is left, atexit has called a function of the standard library.
    return not _first_library_in(callers, _ACT_FOR_THEIR_CALLERS - {"pytest_arena"})


def calling_library() -> str:
    """Return the library that called the present function. "" for the user's code."""
    return _first_library_in(logical_stack(), _ACT_FOR_THEIR_CALLERS)


def _first_library_in(callers: Iterable[FrameType], skipped: Container[str]) -> str:
    """Return the innermost package that is not skipped. "" if the user's code is further in."""
    for frame in callers:
        file = frame.f_code.co_filename
        if not is_library(file):
            return ""
        package = package_of(file)
        if package not in skipped:
            return package
    return ""


def line_of_function(function: object) -> CodeLine | None:
    """Return the first line of a function of the user's code. None for any other callable."""
    code = getattr(_unwrapped(function), "__code__", None)
    if not isinstance(code, CodeType) or is_library(code.co_filename):
        return None
    return CodeLine(code.co_filename, code.co_firstlineno)


def cause_of_connection() -> str:
    """Return the user's line that connects, for a message. Return a text if no line is known."""
    line = user_line()
    if line is not None:
        return str(line)
    return (
        "no line of your code is on the stack: a pool's task, a thread or an extension module "
        "connects"
    )


def line_of_coroutine(coroutine: object) -> CodeLine | None:
    """Return the innermost line of the user's code at which a coroutine waits."""
    innermost = None
    for frame in _awaited(coroutine):
        if not is_library(frame.f_code.co_filename):
            innermost = frame
    return line_of(innermost)


def users_frames(frame: FrameType | None) -> list[FrameType]:
    """Return the frames of the user's code on a thread's stack, innermost first."""
    users = []
    while frame is not None:
        # Check the file of the globals first, because reading `f_code` calls all audit hooks.
        module = frame.f_globals
        file = module["__file__"] if "__file__" in module else None  # noqa: SIM401 - as in `logical_stack`
        if not is_library(file or "<") and not is_library(frame.f_code.co_filename):
            users.append(frame)
        frame = frame.f_back
    return users


def outermost(frame: FrameType) -> FrameType:
    """Return the outermost frame of the stack of a frame."""
    while frame.f_back is not None:
        frame = frame.f_back
    return frame


def line_of(frame: FrameType | None) -> CodeLine | None:
    """Return the present line of a frame."""
    if frame is None:
        return None
    return CodeLine(frame.f_code.co_filename, frame.f_lineno)


def logical_stack(*, of_users: bool = False) -> Iterator[FrameType]:
    """Yield the frames of the logical call stack, innermost first.

    At the end of the stack of a greenlet, a task or a worker thread, continue with the frames that
    wait for it. With ``of_users``, yield only the frames of the user's code. This mode must be
    fast, because each checkout of a connection walks some twenty frames.
    """
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - the documented way to a caller's frame
    current: Any = greenlet.getcurrent()
    # The innermost frame of each stack that is still to walk. The next stack is the last item.
    waiting: list[FrameType | None] = []
    while current.parent is not None:
        current = current.parent
        waiting.insert(0, current.gr_frame)
    while frame is not None or waiting:
        if frame is None:
            frame = waiting.pop()
            continue
        # Read `f_code` only if `__file__` does not decide, because reading it calls all audit
        # hooks. `module.get` would be one more call for each frame.
        module = frame.f_globals
        file = module["__file__"] if "__file__" in module else None  # noqa: SIM401 - see above
        is_of_library, has_stack_switches = _modules[file or "<"]
        if of_users and is_of_library and not has_stack_switches:
            frame = frame.f_back
            continue
        if not of_users or not (is_of_library or is_library(frame.f_code.co_filename)):
            yield frame
        if has_stack_switches and frame.f_code.co_name in _STACK_SWITCHES:
            waiting += [frame.f_back, *_frames_waiting_for(frame)]
            frame = None
        else:
            frame = frame.f_back


def is_driven_here() -> bool:
    """Return whether a caller on this thread's stack runs a loop until the current task ends.

    Then the task belongs to the running test, even if its context names another test. An
    ``asyncio.Runner`` that outlives a test runs later coroutines in a copy of the first test's
    context. Return False with uvloop, and in a thread or a job of an earlier test.
    """
    job = background_job_here()
    work = getattr(job, "work", None)
    if work is not None and work.is_over:
        return False
    task = current_task()
    for frame in logical_stack():
        runs_loop = frame.f_code is _RUN_UNTIL_COMPLETE
        if runs_loop and frame.f_locals.get("future") is task:
            return True
    return False


_RUN_UNTIL_COMPLETE = asyncio.BaseEventLoop.run_until_complete.__code__

# At a frame of these functions, the logical stack continues in another stack. They are SQLAlchemy's
# call of sync code, a step of asyncio's loop, and aiosqlite's worker.
_STACK_SWITCHES = {"greenlet_spawn", "_run", "_connection_worker_thread"}
_FILES_WITH_STACK_SWITCHES = (
    "/sqlalchemy/util/concurrency.py",
    "/sqlalchemy/util/_concurrency_py3k.py",
    "/asyncio/events.py",
    "/aiosqlite/core.py",
)


class _Modules(dict[str, tuple[bool, bool]]):
    """For each file, whether it belongs to a library, and whether it has a stack switch.

    A stack switch is a function in ``_STACK_SWITCHES``.
    """

    def __missing__(self, file: str) -> tuple[bool, bool]:
        path = file.replace("\\", "/")
        has_stack_switches = path.endswith(_FILES_WITH_STACK_SWITCHES)
        facts = (is_library(file), has_stack_switches)
        self[file] = facts
        return facts


_modules = _Modules()


def _frames_waiting_for(frame: FrameType) -> Sequence[FrameType | None]:
    """Return the frames of other stacks that wait for a frame, the innermost last.

    - For ``greenlet_spawn``: the greenlet that it runs, which waits for a coroutine.
    - For a step of the loop: the task that awaits the present task through ``asyncio.shield``.
      SQLAlchemy closes the session of an ``async with`` in such a shielded task.
    - For aiosqlite's worker: the task that awaits the worker's result.
    """
    name = frame.f_code.co_name
    if name == "greenlet_spawn":
        return [getattr(frame.f_locals.get("context"), "gr_frame", None)]
    if name == "_run":
        loop = running_loop()
        if loop is None:
            return []
        return _frames_behind_shield(current_task(loop), all_tasks(loop))
    if frame.f_globals.get("__name__") != "aiosqlite.core":
        return []
    future = frame.f_locals.get("future")
    if not isinstance(future, asyncio.Future):
        return []
    tasks = all_tasks(future.get_loop())
    # Only this private attribute shows which task waits. Without it, the search finds no line.
    waiting = [task for task in tasks if getattr(task, "_fut_waiter", None) is future]
    behind: list[FrameType] = []
    for task in waiting:
        behind += _frames_behind_shield(task, tasks)
    for task in waiting:
        behind += _awaited(task.get_coro())
    return behind


def _frames_behind_shield(inner: object, tasks: Iterable[AnyTask]) -> list[FrameType]:
    """Return the frames that wait for a task through ``asyncio.shield``, the innermost last.

    ``shield`` puts a future between two tasks. Only its callback refers to the inner task.
    """
    frames_of_waiters: list[FrameType] = []
    for task in tasks:
        waiter = getattr(task, "_fut_waiter", None)
        for callback, *_ in getattr(waiter, "_callbacks", None) or ():
            cells = getattr(callback, "__closure__", None) or ()
            if any(cell.cell_contents is inner for cell in cells):
                frames_of_waiters += _awaited(task.get_coro())
                break
    return frames_of_waiters


def _awaited(awaitable: object) -> Iterator[FrameType]:
    """Yield the frame of a coroutine, then the frames of the coroutines that it awaits."""
    while awaitable is not None:
        frame = getattr(awaitable, "cr_frame", None)
        if frame is None:
            frame = getattr(awaitable, "ag_frame", None)
        if frame is not None:
            yield frame
        awaitable = _next(awaitable)


def _next(awaitable: object) -> object:
    """Return the object that a coroutine or generator awaits, or None."""
    for name in ("cr_await", "ag_await"):
        if hasattr(awaitable, name):
            return getattr(awaitable, name)
    # Iterators from `__await__` and awaitables of async generators have neither attribute. Only the
    # garbage collector knows which object they await.
    for referent in gc.get_referents(awaitable):
        if isinstance(referent, CoroutineType | AsyncGeneratorType):
            return referent
    return None


# True while pytest-arena itself opens a connection or starts a process. The guards of drivers and
# child processes allow these.
_opening: ContextVar[bool] = ContextVar("arena_opens_its_own", default=False)


def is_own() -> bool:
    """Return whether pytest-arena itself opens the present connection or process."""
    return _opening.get()


@contextmanager
def as_own() -> Iterator[None]:
    """Make the guards allow the connections and processes that this block opens."""
    token = _opening.set(True)
    try:
        yield
    finally:
        _opening.reset(token)


class Work(Protocol):
    """The work that the requests of one test start, or that the test itself starts."""

    is_over: bool
    """Whether the test is over."""

    def note_failure(self, error: Exception) -> None:
        """Note an error that no code of the app retrieves."""


# The `Work` to which the running code belongs, in any thread. It stays set after the test.
WORK: ContextVar[Work | None] = ContextVar(
    "arena: the work that this is a part of", default=None
)


# The logins that the current task or thread performs. A request of a login must not wait for that
# login. There may be several, because a login may use another client, which logs in first.
LOGINS: ContextVar[tuple[object, ...]] = ContextVar(
    "arena: logins under way", default=()
)


# The `RequestAnswer` of the request to which the running code belongs. It stays set after the
# answer.
REQUEST: ContextVar[Any] = ContextVar(
    "arena: the request that this is a part of", default=None
)


class BackgroundJob:
    """Work of a test: a thread, or a job of a pool."""

    def __init__(
        self,
        work: Work | None,
        function: Any,
        cancel: Callable[[], object] = bool,
    ) -> None:
        self.work = work
        self._function = function
        self.cancel = cancel
        self.thread = 0
        self.request = REQUEST.get()
        BACKGROUND_JOBS[self] = user_line() or line_of_function(function)

    def cancel_by(self, cancel: Callable[[], object]) -> None:
        """Note the function that cancels the job."""
        self.cancel = cancel

    def __call__(self, *args: object, **kwargs: object) -> object:
        """Do the work. Further work that it starts belongs to the same test."""
        self.thread = get_ident()
        token = WORK.set(self.work)
        request_token = REQUEST.set(self.request)
        try:
            return self._function(*args, **kwargs)
        except ArenaError as error:
            _end_at_user_line(error)  # Python prints the whole traceback of a thread
            raise
        finally:
            REQUEST.reset(request_token)
            WORK.reset(token)
            BACKGROUND_JOBS.pop(self, None)


class _ThreadRun:
    """Runs a thread without pytest-arena's context variables, such as the test of its starter.

    Usually a thread begins with an empty context. In free-threaded Python 3.14, or if a library
    patches ``Thread.start`` (pytest-check, OpenTelemetry), it inherits the context of its starter.
    Without this class, a thread of aiosqlite would then belong to its first test forever.
    """

    def __init__(self, run: Callable[[], object]) -> None:
        self.run = run

    def __call__(self, thread: Thread) -> object:
        context = copy_context()
        of_arena = {name for name in context if name.name.startswith("arena")}
        try:
            if not of_arena:
                return self.run()
            own_context = Context()
            for variable, value in context.items():
                if variable not in of_arena:
                    own_context.run(variable.set, value)
            return own_context.run(self.run)
        finally:
            # Without this attribute, the thread has the method of its class and no reference cycle.
            vars(thread).pop("run", None)
            del self.run


def _end_at_user_line(error: BaseException) -> None:
    """Remove the frames of libraries from the end of a traceback."""
    last = None
    step = error.__traceback__
    while step is not None:
        if not is_library(step.tb_frame.f_code.co_filename):
            last = step
        step = step.tb_next
    if last is not None:
        last.tb_next = None


# All jobs that wait or run. The value is the user's line that began the job.
BACKGROUND_JOBS: WeakKeyDictionary[BackgroundJob, CodeLine | None] = WeakKeyDictionary()


def background_job_here() -> BackgroundJob | None:
    """Return the innermost job that this thread does now, or None."""
    here = get_ident()
    for job in reversed(alive(BACKGROUND_JOBS)):
        if job.thread == here:
            return job
    return None


# The fixture of a wider scope whose set-up or tear-down runs, or that started the running task.
OF_WIDE_FIXTURE: ContextVar["ThreadOwner | None"] = ContextVar(
    "arena: of a wider fixture", default=None
)


def wide_fixture_here() -> "ThreadOwner | None":
    """Return the wider fixture whose set-up, tear-down or task runs here, even if it has ended.

    An ``asyncio.Runner`` may outlive a fixture. Its later coroutines have the fixture's context,
    and do not belong to the fixture.
    """
    owner = OF_WIDE_FIXTURE.get()
    if owner is None or owner.is_up or running_loop() is None:
        return owner
    return None if is_driven_here() else owner


# True in a task that the set-up of a wider fixture started, and in tasks that this task starts.
_IN_TASK_OF_WIDE_FIXTURE: ContextVar[bool] = ContextVar(
    "arena: in a task of a wider fixture", default=False
)


def keep_for_wide_fixture(task: AnyTask) -> None:
    """Mark a task that a wider fixture started. Tasks that this task starts get the mark too."""
    context = context_of(task)
    # The task of anyio's runner also runs tests.
    is_runner = getattr(task.get_coro(), "__name__", "") == "_run_tests_and_fixtures"
    if not is_runner and context.get(WORK) is None:
        is_marked = True
        with suppress(RuntimeError):  # the task is the caller, so its context is in use
            context.run(_IN_TASK_OF_WIDE_FIXTURE.set, is_marked)


def is_in_task_of_wide_fixture() -> bool:
    """Return whether the running code belongs to a task of a wider fixture, and to no test."""
    return _IN_TASK_OF_WIDE_FIXTURE.get() and WORK.get() is None


def is_of_wide_fixture(task: AnyTask | None) -> bool:
    """Return whether a wider fixture, or one of its tasks, has started this unfinished task.

    Return False if the task does a job for a test.
    """
    if task is None or task.done():
        return False
    context = context_of(task)
    return context.get(_IN_TASK_OF_WIDE_FIXTURE, False) and context.get(WORK) is None


class ThreadOwner(Protocol):
    """A lifespan of the app, or a wider fixture. Its threads get no connection after its end."""

    name: str
    end: str  # the code that must end the threads
    is_lifespan: bool
    request: object  # the record of the lifespan in the report of lost writes

    @property
    def is_up(self) -> bool:
        """Whether the app has started and is not stopping, or the fixture has not ended."""


# The lifespans and wider fixtures to which a thread, a task or a job may still refer.
OWNERS: WeakSet[ThreadOwner] = WeakSet()


@dataclass(frozen=True, slots=True)
class ThreadStart:
    """A record of the code that started a thread, in the thread's attribute ``arena_start``."""

    work: Work | None = None
    """The work of a test that started the thread, or None."""
    starter: int = 0
    """The number of the starting thread. 0 for the main thread, and for a test's work."""
    owner: ThreadOwner | None = None
    """The lifespan or the wider fixture that started the thread, or gave its job to a pool."""


_UNKNOWN_START = ThreadStart()


def start_of(thread: Thread) -> ThreadStart:
    """Return the record of a thread's start. Empty if pytest-arena did not see the start."""
    start: ThreadStart = getattr(thread, "arena_start", _UNKNOWN_START)
    return start


# The lifespan that started the running task, thread or job.
LIFESPAN: ContextVar["ThreadOwner | None"] = ContextVar(
    "arena: the lifespan that this is a part of", default=None
)


def lifespan_here() -> ThreadOwner | None:
    """Return the lifespan that started this task, thread or job, if the lifespan is up.

    Return None in a job that a worker of the lifespan does for a request.
    """
    lifespan = _owner_here()
    if lifespan is None or not lifespan.is_up or not lifespan.is_lifespan:
        return None
    request = REQUEST.get()
    is_of_lifespan = request is None or request is lifespan.request
    return lifespan if is_of_lifespan else None


OUR_TASK = "pytest-arena: an internal task"
SERVER_THREAD = "pytest-arena-live-server"
# a2wsgi calls WSGI apps in threads of these names.
A2WSGI_PREFIX = "WSGI"
A2WSGI_THREADS = tuple(f"{A2WSGI_PREFIX}_{number}" for number in range(10))
# Names of threads that outlive tests and belong to no fixture. They run the server and endpoints.
SHARED_THREADS = (SERVER_THREAD, "AnyIO worker thread", *A2WSGI_THREADS)


def has_starter_in(thread: int, others: Container[int]) -> bool:
    """Return whether a thread is one of ``others``, or one of them started it.

    The start may be indirect, through other threads. No thread counts as the starter of a thread
    that the main thread or a test's work started.
    """
    starters = {}
    for running_thread in all_threads():
        starters[running_thread.ident] = start_of(running_thread).starter
    while thread and thread not in others:
        # Use each starter once. Python reuses thread numbers, so the starters may form a circle.
        thread = starters.pop(thread, 0)
    return bool(thread)


def watch_background_work(undo: ExitStack) -> None:
    """Patch classes to watch the work that the user's code gives to threads and pools.

    Threads of libraries do not count. ``undo`` restores the classes.
    """
    _watch_threads(undo)
    submit = ThreadPoolExecutor.submit

    def watched_submit(
        pool: ThreadPoolExecutor, function: Any, /, *args: object, **kwargs: object
    ) -> Future[object]:
        work = WORK.get()
        if work is not None:
            job = BackgroundJob(work, function)
            future = submit(pool, job, *args, **kwargs)
            job.cancel_by(future.cancel)
            return future
        owner = _owner_here(is_users=line_of_function(function) is not None)
        if owner is not None:
            function = partial(_run_for_owner, owner, function)
            OWNERS.add(owner)
        return submit(pool, function, *args, **kwargs)

    replace_attribute(undo, ThreadPoolExecutor, "submit", watched_submit)


def _watch_threads(undo: ExitStack) -> None:
    """Note the starter of each thread. Run each thread outside of its starter's test context."""
    initialize = Thread.__init__
    start = Thread.start

    @wraps(initialize)
    def watched_init(thread: Any, *args: Any, **kwargs: Any) -> None:
        initialize(thread, *args, **kwargs)
        thread.arena_run = _ThreadRun(thread.run)
        # Sentry calls `thread.run.__func__` with the thread.
        thread.run = MethodType(thread.arena_run, thread)

    def watched_start(thread: Any) -> None:
        own: Any = getattr(thread, "arena_run", thread)
        function = getattr(thread, "function", None) or thread._target or own.run  # noqa: SLF001 - no other name
        work = WORK.get()
        starter = get_ident()
        if work or starter == main_thread().ident:
            starter = 0
        is_users = line_of_function(function) is not None
        if not is_users:
            # A library's function may call the user's, such as `asyncio.run` or `Context.run`.
            is_users = any(map(_is_of_user, getattr(thread, "_args", ())))
        owner = _owner_here(is_users=is_users)
        module = getattr(function, "__module__", None) or ""
        if module.partition(".")[0] in _LIBRARIES_WITH_WORKERS:
            owner = None
        thread.arena_start = ThreadStart(work, starter, owner)
        if work and is_users:
            own.run = BackgroundJob(work, own.run, getattr(thread, "cancel", bool))
        elif owner:
            own.run = partial(_run_for_owner, owner, own.run)
            OWNERS.add(owner)
        start(thread)

    replace_attribute(undo, Thread, "__init__", watched_init)
    replace_attribute(undo, Thread, "start", watched_start)


def _is_of_user(argument: object) -> bool:
    """Return whether an argument is a function or a coroutine of the user."""
    # The type is compared, because an attribute of a lazy proxy may raise any error.
    if type(argument) not in {CoroutineType, FunctionType, MethodType, partial}:
        return False
    return bool(line_of_function(argument) or line_of_coroutine(argument))


# A thread of these libraries does jobs of any test.
_LIBRARIES_WITH_WORKERS = {"aiosqlite", "anyio", "concurrent", "multiprocessing"}


def _owner_here(*, is_users: bool = False) -> ThreadOwner | None:
    """Return the lifespan or wider fixture whose code runs here, even if it has ended.

    This is the lifespan that started the present task, or the owner of the present thread.

    ``is_users`` means that the caller starts a thread or job of the user's function. Then the owner
    may also be the wider fixture that started the task, or whose set-up or tear-down runs. A
    library's thread does not get this owner, because the library may share it between tests.
    """
    owner = LIFESPAN.get() or start_of(current_thread()).owner
    if owner is None and is_users:
        owner = wide_fixture_here()
    return owner


def _run_for_owner(
    owner: ThreadOwner, function: Callable[..., object], *args: object
) -> object:
    """Run the function of a thread or job that a lifespan or wider fixture started."""
    thread: Any = current_thread()
    before = start_of(thread)
    thread.arena_start = replace(before, owner=owner)
    try:
        return function(*args)
    except ArenaError as error:
        _end_at_user_line(error)
        raise
    finally:
        thread.arena_start = before


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
            work = context_of(source).get(WORK)
            if work is not None:
                work.note_failure(error)
        original(loop, details)

    replace_attribute(undo, loops, "call_exception_handler", watched)


def _unwrapped(function: object) -> object:
    """Return the function inside of a ``partial`` or a decorator's wrapper, or the function."""
    return getattr(function, "func", getattr(function, "__wrapped__", function))

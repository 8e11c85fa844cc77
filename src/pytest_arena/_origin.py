"""Finds the user's line, the request or the test that caused an event."""

import gc
import inspect
from asyncio import all_tasks, current_task
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from types import (
    AsyncGeneratorType,
    CoroutineType,
    FrameType,
)
from typing import Any
from weakref import ref

import greenlet

from pytest_arena._config._load import is_library
from pytest_arena._ledger import Request
from pytest_arena._process import AnyTask, innermost_frames, running_loop
from pytest_arena._values import CodeLine

NO_LINE = "a line that cannot be seen"


def user_line() -> CodeLine | None:
    """Return the innermost line of the user's code that led to this call, or None.

    In a greenlet of SQLAlchemy's async engines, the search continues in the coroutine that waits
    for the greenlet. The search takes some microseconds.
    """
    return line_of(user_frame())


def shown_line(otherwise: str = NO_LINE) -> str:
    """Return the innermost line of the user's code for a message, else this text."""
    return str(user_line() or otherwise)


@cache
def is_of_tests(file: str) -> bool:
    """Return whether a file has tests, fixtures or their helpers, by its path in the project."""
    path = Path(CodeLine(file, 0).shown_file)
    is_test_module = path.stem == "conftest" or "test" in path.stem.split("_")
    return is_test_module or not {"test", "tests", "testing"}.isdisjoint(path.parts)


def is_importing() -> bool:
    """Return whether this thread imports a module."""
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def line_of_coroutine(coroutine: object) -> CodeLine | None:
    """Return the innermost line of the user's code at which a coroutine waits."""
    innermost = None
    for frame in _awaited(coroutine):
        if not is_library(frame.f_code.co_filename):
            innermost = frame
    return line_of(innermost)


def is_in_use(session: object) -> bool:
    """Return whether a task of this loop waits in a method of a session, called in a greenlet."""
    return any(
        getattr(frame.f_locals.get("fn"), "__self__", None) is session
        for task in all_tasks()
        for frame in _awaited(task.get_coro())
    )


def line_of_task(task: AnyTask) -> CodeLine | str:
    """Return the innermost line of the user's code at which a task waits, else its name."""
    return line_of_coroutine(task.get_coro()) or task.get_name()


def line_of_thread(thread: int) -> CodeLine | None:
    """Return the innermost line of the user's code in a thread."""
    frame = innermost_frames().get(thread)
    while frame is not None and is_library(frame.f_code.co_filename):
        frame = frame.f_back
    return line_of(frame)


def line_of(frame: FrameType | None) -> CodeLine | None:
    """Return the present line of a frame."""
    if frame is None:
        return None
    return CodeLine(frame.f_code.co_filename, frame.f_lineno)


def user_frame() -> FrameType | None:
    """Return the innermost frame of the user's code on the logical call stack, or None.

    At the end of the stack of a greenlet or a task, continue with the frames that wait for it. End
    at pytest's `main`. This must be fast: each checkout of a connection walks some twenty frames.
    """
    frame = inspect.currentframe()
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
        if is_of_library and not has_stack_switches:
            frame = frame.f_back
            continue
        if not (is_of_library or is_library(frame.f_code.co_filename)):
            return frame
        if has_stack_switches and frame.f_code.co_name.endswith("main"):
            frame = None  # what has called pytest is no part of the run
            continue
        outer = frame.f_back
        if has_stack_switches and frame.f_code.co_name == "greenlet_spawn":
            # The greenlet that it runs waits for a coroutine.
            inner = getattr(frame.f_locals.get("context"), "gr_frame", None)
            waiting += [outer, inner]
            outer = None
        elif has_stack_switches and module["__name__"] == "asyncio.events":
            waiting += [outer, *_frames_behind_step()]
            outer = None
        frame = outer
    return None


# The files of SQLAlchemy's `greenlet_spawn` and of a step of asyncio's loop. At their frames the
# logical stack continues in another stack. At pytest's `main` it ends.
_FILES_WITH_STACK_SWITCHES = (
    "/_pytest/config/__init__.py",
    "/sqlalchemy/util/concurrency.py",
    "/sqlalchemy/util/_concurrency_py3k.py",
    "/asyncio/events.py",
)


class _Modules(dict[str, tuple[bool, bool]]):
    """For each file, whether it belongs to a library, and whether it has a stack switch."""

    def __missing__(self, file: str) -> tuple[bool, bool]:
        path = file.replace("\\", "/")
        has_stack_switches = path.endswith(_FILES_WITH_STACK_SWITCHES)
        facts = (is_library(file), has_stack_switches)
        self[file] = facts
        return facts


_modules = _Modules()


def _frames_behind_step() -> list[FrameType]:
    """Return the frames that wait for the present step of the loop, the innermost last.

    In the loop of connections they are of the task that has called the loop. SQLAlchemy also closes
    the session of an ``async with`` in a task of its own.
    """
    loop = running_loop()
    reference = CALLER.get()
    caller = reference() if reference is not None else None
    if loop is None or caller is None or caller is current_task(loop):
        return []
    return [*_awaited(caller.get_coro())]


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


# True while pytest-arena itself opens a connection, starts a process or changes a variable. The
# guards of drivers and child processes allow these.
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


# The task that waits for a call in the loop of connections. A connection keeps the context in which
# it was opened. A strong reference there would keep the task alive.
CALLER: ContextVar[ref[AnyTask] | None] = ContextVar("arena: the caller", default=None)


def this_task() -> ref[AnyTask] | None:
    """Return a reference to the running task, None outside of tasks."""
    task = current_task()
    return None if task is None else ref(task)


# The request, or the lifespan, to which the running code belongs. In the tasks, threads and jobs
# that it has begun, it stays set after the app has returned.
REQUEST: ContextVar[Request | None] = ContextVar("arena: the request", default=None)


def request_here() -> Request | None:
    """Return the request that runs here, None if the app has returned from it."""
    request = REQUEST.get()
    return None if request is None or request.is_over else request


OUR_TASK = "pytest-arena: an internal task"

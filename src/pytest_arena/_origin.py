"""Which line of the user's code is behind what happens, or is it arena itself?"""

from __future__ import annotations

import asyncio
import gc
import sys
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from types import AsyncGeneratorType, CoroutineType
from typing import TYPE_CHECKING, Any

import greenlet

from pytest_arena._config._load import is_library
from pytest_arena._values import CodeLine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

__all__ = ["as_own", "frames", "is_own", "line_of_coroutine", "user_line"]


def user_line() -> CodeLine | None:
    """Return the innermost line of the user's code that led here, None if there is none.

    Follows greenlets (SQLAlchemy's async engines) to the coroutine that awaits them, and a
    worker thread of aiosqlite to the task that waits for it. Costs some microseconds.
    """
    frame: Any = sys._getframe(1)  # noqa: SLF001 - the documented way to a caller's frame
    current: Any = greenlet.getcurrent()
    line = _line_from(frame)
    while line is None and (current := current.parent) is not None:
        line = _line_from(current.gr_frame)
    return line


def _line_from(frame: FrameType | None) -> CodeLine | None:
    # Not by `_chain`, where nobody waits: each checkout walks some twenty frames.
    while frame is not None:
        if not _is_library(frame.f_code.co_filename):
            return CodeLine(frame.f_code.co_filename, frame.f_lineno)
        if frame.f_code.co_name in _DOORS:
            return _line_in(_chain(frame))
        frame = frame.f_back
    return None


def _line_in(found: Iterator[FrameType]) -> CodeLine | None:
    users = (one for one in found if not _is_library(one.f_code.co_filename))
    frame = next(users, None)
    return CodeLine(frame.f_code.co_filename, frame.f_lineno) if frame else None


def line_of_coroutine(coroutine: object) -> CodeLine | None:
    """Return the innermost line of the user's code at which a coroutine stands."""
    return _line_in(reversed(list(_awaited(coroutine))))


_is_library = cache(is_library)


def frames() -> Iterator[FrameType]:
    """Yield the frames that led to the caller, innermost first, across greenlets and tasks."""
    yield from _chain(sys._getframe(2))  # noqa: SLF001 - the documented way to a caller's frame
    current: Any = greenlet.getcurrent()
    while (current := current.parent) is not None:
        yield from _chain(current.gr_frame)


def _chain(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        if frame.f_code.co_name in _DOORS:
            yield from _behind(frame)
        frame = frame.f_back


# Functions behind which others wait: SQLAlchemy's way into sync code, and aiosqlite's worker by
# its names since 0.20.
_DOORS = {"greenlet_spawn", "run", "_connection_worker_thread"}


def _behind(frame: FrameType) -> Iterator[FrameType]:
    future = frame.f_locals.get("future") if _is_worker(frame) else None
    if isinstance(future, asyncio.Future):
        yield from _waiting(future)
    yield from _suspended(frame)


def _suspended(frame: FrameType) -> Iterator[FrameType]:
    """Yield the frames of the sync code, SQLAlchemy's, that waits for what this frame awaits."""
    if frame.f_code.co_name == "greenlet_spawn":
        context = frame.f_locals.get("context")
        yield from _chain(getattr(context, "gr_frame", None))


def _is_worker(frame: FrameType) -> bool:
    return frame.f_globals.get("__name__") == "aiosqlite.core"


def _waiting(future: asyncio.Future[Any]) -> Iterator[FrameType]:
    """Yield the frames, innermost first, of the task that awaits this future."""
    for task in asyncio.all_tasks(future.get_loop()):
        # Private, and the only thing that tells which of the tasks it is; without it the
        # message just has no line.
        if getattr(task, "_fut_waiter", None) is future:
            for frame in reversed(list(_awaited(task.get_coro()))):
                yield frame
                yield from _suspended(frame)


def _awaited(awaitable: Any) -> Iterator[FrameType]:
    while awaitable is not None:
        if frame := getattr(awaitable, "cr_frame", None) or getattr(awaitable, "ag_frame", None):
            yield frame
        awaitable = _next(awaitable)


def _next(awaitable: Any) -> Any:
    for name in ("cr_await", "ag_await"):
        if hasattr(awaitable, name):
            return getattr(awaitable, name)
    # What `__await__` and `async with` put in between shows what it stands for only to the
    # garbage collector.
    inner = (CoroutineType, AsyncGeneratorType)
    return next((one for one in gc.get_referents(awaitable) if isinstance(one, inner)), None)


# The guards look at connections that no engine opens, and at child processes. They know by this
# which are arena's own.
_opening: ContextVar[bool] = ContextVar("arena_opens_its_own", default=False)


def is_own() -> bool:
    """Whether the connection that is being opened here is arena's own."""
    return _opening.get()


@contextmanager
def as_own() -> Iterator[None]:
    """In this block, what is opened is arena's own, and the guard lets it be."""
    token = _opening.set(True)
    try:
        yield
    finally:
        _opening.reset(token)

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
    from collections.abc import Iterable, Iterator
    from types import FrameType

__all__ = ["as_own", "frames", "is_own", "line_of_coroutine", "user_line"]


def user_line() -> CodeLine | None:
    """Return the innermost line of the user's code that led here, None if there is none.

    Follows greenlets (SQLAlchemy's async engines) to the coroutine that awaits them, and a
    worker thread of aiosqlite to the task that waits for it. Costs some microseconds.
    """
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - the documented way to a caller's frame
    current: Any = greenlet.getcurrent()
    while True:
        # Not by `_chain`, where nobody waits: each checkout walks some twenty frames.
        while frame is not None and frame.f_code.co_name not in _DOORS:
            if not _is_library(frame.f_code.co_filename):
                return CodeLine(frame.f_code.co_filename, frame.f_lineno)
            frame = frame.f_back
        if (line := _line_in(_chain(frame))) is not None:
            return line
        if (current := current.parent) is None:
            return None
        frame = current.gr_frame


def _line_in(found: Iterable[FrameType]) -> CodeLine | None:
    for frame in found:
        if not _is_library(frame.f_code.co_filename):
            return CodeLine(frame.f_code.co_filename, frame.f_lineno)
    return None


def line_of_coroutine(coroutine: object) -> CodeLine | None:
    """Return the innermost line of the user's code at which a coroutine stands."""
    return _line_in(reversed([*_awaited(coroutine)]))


_is_library = cache(is_library)


def frames() -> Iterator[FrameType]:
    """Yield the frames that led to the caller, innermost first, across greenlets and tasks."""
    yield from _chain(sys._getframe(2))  # noqa: SLF001 - the documented way to a caller's frame
    current: Any = greenlet.getcurrent()
    while (current := current.parent) is not None:
        yield from _chain(current.gr_frame)


def _chain(frame: FrameType | None) -> Iterator[FrameType]:
    """Yield the frames from here outwards, and after each door those that wait behind it."""
    following = [frame]
    while following:
        if (frame := following.pop()) is not None:
            yield frame
            following.append(frame.f_back)
            if frame.f_code.co_name in _DOORS:
                following += _behind(frame)


# Functions behind which others wait: SQLAlchemy's way into sync code, and aiosqlite's worker by
# its names since 0.20.
_DOORS = {"greenlet_spawn", "run", "_connection_worker_thread"}


def _behind(frame: FrameType) -> list[FrameType | None]:
    """Return the frames that wait for what this one does, the innermost last."""
    if frame.f_code.co_name == "greenlet_spawn":
        return [getattr(frame.f_locals.get("context"), "gr_frame", None)]
    is_worker = frame.f_globals.get("__name__") == "aiosqlite.core"
    future = frame.f_locals.get("future") if is_worker else None
    if not isinstance(future, asyncio.Future):
        return []
    # Private, and the only thing that tells which of the tasks it is; without it the message just
    # has no line.
    tasks = asyncio.all_tasks(future.get_loop())
    waiting = [task for task in tasks if getattr(task, "_fut_waiter", None) is future]
    return [each for task in waiting for each in _awaited(task.get_coro())]


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

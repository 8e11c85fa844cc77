"""Which line of the user's code is behind a connection?"""

from __future__ import annotations

import asyncio
import gc
import sys
from functools import cache
from types import AsyncGeneratorType, CoroutineType
from typing import TYPE_CHECKING, Any

import greenlet

from pytest_arena._load import is_library
from pytest_arena._values import CodeLine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

__all__ = ["an_engine_opens", "user_line"]


def user_line() -> CodeLine | None:
    """Return the innermost line of the user's code that led here, None if there is none.

    Follows greenlets (SQLAlchemy's async engines) to the coroutine that awaits them, and a
    worker thread of aiosqlite to the task that waits for it. Costs some microseconds.
    """
    for frame in _frames():
        if not _is_library(frame.f_code.co_filename):
            return CodeLine(frame.f_code.co_filename, frame.f_lineno)
    return None


def an_engine_opens() -> bool:
    """Whether a pool opens the connection, by a creator or a listener of the app's own."""
    inner = ""
    for frame in _frames():
        module = frame.f_globals.get("__name__", "")
        if module == "sqlalchemy.pool.base" and frame.f_code.co_name == "__connect":
            return inner != "sqlalchemy.event.attr"  # a `connect` listener opens one for itself
        inner = module
    return False


_is_library = cache(is_library)


def _frames() -> Iterator[FrameType]:
    yield from _chain(sys._getframe(2))  # noqa: SLF001 - the documented way to a caller's frame
    current: Any = greenlet.getcurrent()
    while (current := current.parent) is not None:
        yield from _chain(current.gr_frame)


def _chain(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        future = frame.f_locals.get("future") if _is_worker(frame) else None
        if isinstance(future, asyncio.Future):
            yield from _waiting(future)
        yield from _suspended(frame)
        frame = frame.f_back


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

"""Which line of the user's code is behind what happens, which test's request, or arena itself?"""

from __future__ import annotations

import asyncio
import gc
import sys
from concurrent.futures import Future
from concurrent.futures.thread import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache, partial
from threading import Thread, get_ident, main_thread
from threading import enumerate as all_threads
from types import AsyncGeneratorType, CodeType, CoroutineType, FrameType
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import greenlet

from pytest_arena._config._load import is_library
from pytest_arena._process import alive, running_loop
from pytest_arena._values import CodeLine
from pytest_arena.errors import ArenaError

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator


def user_line() -> CodeLine | None:
    """Return the innermost line of the user's code that led here, None if there is none.

    Follows greenlets (SQLAlchemy's async engines) to the coroutine that awaits them, and a
    worker thread of aiosqlite to the task that waits for it. Costs some microseconds.
    """
    return line_of(next(frames(of_users=True), None))


def line_of_function(function: object) -> CodeLine | None:
    """Return the first line of a function of the user's code, None for any other callable."""
    code = getattr(_unwrapped(function), "__code__", None)
    if not isinstance(code, CodeType) or _is_library(code.co_filename):
        return None
    return CodeLine(code.co_filename, code.co_firstlineno)


def who_connects() -> str:
    """Return that line, as the cause in a message; in words where there is none."""
    unseen = "no line of yours is on the stack: a pool's own task, a thread or an extension module"
    return str(user_line() or f"{unseen} connects")


def line_of_coroutine(coroutine: object) -> CodeLine | None:
    """Return the innermost line of the user's code at which a coroutine stands."""
    found = [
        one for one in _awaited(coroutine) if not _is_library(one.f_code.co_filename)
    ]
    return line_of(found[-1] if found else None)


def users_frames(frame: FrameType | None) -> list[FrameType]:
    """Return the frames of the user's code on a thread's stack, innermost first."""
    found = []
    while frame is not None:
        # As in `frames`. A stack's lines are worked out one by one: nobody asks for them here.
        file = frame.f_globals.get("__file__") or "<"
        if not _is_library(file) and not _is_library(frame.f_code.co_filename):
            found.append(frame)
        frame = frame.f_back
    return found


def outermost(frame: FrameType) -> FrameType:
    """Return the first frame of a thread's stack."""
    while (caller := frame.f_back) is not None:
        frame = caller
    return frame


def line_of(frame: FrameType | None) -> CodeLine | None:
    """Return the line at which a frame stands."""
    return (
        CodeLine(frame.f_code.co_filename, frame.f_lineno)
        if frame is not None
        else None
    )


def line_in_users_code(frame: FrameType) -> CodeLine | None:
    """Return the line at which a frame stands, None if its code is a library's."""
    return None if _is_library(frame.f_code.co_filename) else line_of(frame)


_is_library = cache(is_library)


def frames(*, of_users: bool = False) -> Iterator[FrameType]:
    """Yield the frames that led to the caller, innermost first, across greenlets and tasks.

    Of the user's code alone, where they are asked for: each checkout walks some twenty.
    """
    current: Any = greenlet.getcurrent()
    waiting: list[Any] = [sys._getframe(1)]  # noqa: SLF001 - the documented way to a caller's frame
    while (current := current.parent) is not None:
        waiting.insert(0, current.gr_frame)
    while waiting:
        frame = waiting.pop()
        while frame is not None:
            # To read a frame's code is an event for the audit hooks of the whole process.
            is_passed, has_doors = _module_in(frame.f_globals.get("__file__") or "<")
            if not of_users or not (is_passed or _is_library(frame.f_code.co_filename)):
                yield frame
            if has_doors and frame.f_code.co_name in _DOORS:
                waiting += [frame.f_back, *_behind(frame)]
                break
            frame = frame.f_back


# Functions behind which others wait: SQLAlchemy's way into sync code, a step of asyncio's loop, and
# aiosqlite's worker by its names since 0.20.
_DOORS = {"greenlet_spawn", "_run", "run", "_connection_worker_thread"}
_WITH_DOORS = (
    *("/sqlalchemy/util/concurrency.py", "/sqlalchemy/util/_concurrency_py3k.py"),
    *("/asyncio/events.py", "/aiosqlite/core.py"),
)


@cache
def _module_in(file: str) -> tuple[bool, bool]:
    """Whether a file is a library's, and whether others wait behind functions in it."""
    return is_library(file), file.replace("\\", "/").endswith(_WITH_DOORS)


def _behind(frame: FrameType) -> list[Any]:
    """Return the frames, the innermost last, that wait for what is done here.

    That is SQLAlchemy's sync code, which waits for what ``greenlet_spawn`` awaits; whoever leaves
    a block of its sessions, which ends in a task of its own; or the task that awaits the answer of
    aiosqlite's worker.
    """
    name = frame.f_code.co_name
    if name == "greenlet_spawn":
        return [getattr(frame.f_locals.get("context"), "gr_frame", None)]
    if name == "_run":
        loop = running_loop()
        return (
            _shielding(asyncio.current_task(loop), asyncio.all_tasks(loop))
            if loop
            else []
        )
    is_worker = frame.f_globals.get("__name__") == "aiosqlite.core"
    future = frame.f_locals.get("future") if is_worker else None
    tasks = (
        asyncio.all_tasks(future.get_loop())
        if isinstance(future, asyncio.Future)
        else ()
    )
    # Private, and the only thing that tells which of the tasks it is; without it the message just
    # has no line.
    waiting = [task for task in tasks if getattr(task, "_fut_waiter", None) is future]
    shielding = [one for task in waiting for one in _shielding(task, tasks)]
    return [*shielding, *(one for task in waiting for one in _awaited(task.get_coro()))]


def _shielding(inner: object, tasks: Iterable[Any]) -> list[FrameType]:
    """Return the frames that wait for a task behind ``asyncio.shield``, the innermost last.

    Which those are, a callback of the future between the two knows alone.
    """
    found: list[FrameType] = []
    for task in tasks:
        callbacks = (
            getattr(getattr(task, "_fut_waiter", None), "_callbacks", None) or ()
        )
        cells = (
            cell
            for one, *_ in callbacks
            for cell in getattr(one, "__closure__", None) or ()
        )
        if any(cell.cell_contents is inner for cell in cells):
            found += _awaited(task.get_coro())
    return found


def _awaited(awaitable: Any) -> Iterator[FrameType]:
    while awaitable is not None:
        if frame := getattr(awaitable, "cr_frame", None) or getattr(
            awaitable, "ag_frame", None
        ):
            yield frame
        awaitable = _next(awaitable)


def _next(awaitable: Any) -> Any:
    for name in ("cr_await", "ag_await"):
        if hasattr(awaitable, name):
            return getattr(awaitable, name)
    # What `__await__` and `async with` put in between shows what it stands for only to the
    # garbage collector.
    inner = (CoroutineType, AsyncGeneratorType)
    return next(
        (one for one in gc.get_referents(awaitable) if isinstance(one, inner)), None
    )


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


# For which test's requests is something done, whichever thread does it, and whenever?

WORK: ContextVar[Any] = ContextVar(
    "arena: the `LateWork` that this is a part of", default=None
)


# The logins that the current task or thread performs. Requests of a login must not wait for it.
# A login may use another client, which logs in by itself.
LOGINS: ContextVar[tuple[Any, ...]] = ContextVar("arena: logins under way", default=())


# The `RequestAnswer` of the request that has begun this, also where it goes on after the answer.
REQUEST: ContextVar[Any] = ContextVar(
    "arena: the request that this is a part of", default=None
)


class Piece:
    """What is to be done: all that a thread does, one job of a pool's, a call at some time."""

    def __init__(self, work: Any, function: Any, cancel: Any = bool) -> None:
        self.work, self._function, self.cancel, self.thread = work, function, cancel, 0
        self.request = REQUEST.get()
        self.is_job = False  # of a pool: cancelling it wakes the coroutine or thread that awaits it
        # A loop may call `call_later` by itself, as `call_soon(loop.call_later, …)` asks it to.
        PIECES[self] = user_line() or line_of_function(function)

    @property
    def is_ended(self) -> bool:
        """Whether nothing does it any more, though it is still known."""
        return False

    def is_done_in(self, thread: int) -> bool:
        """Return whether a thread does it now."""
        return bool(self.thread == thread)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Do it. What it begins is a part of the same work."""
        self.thread, token = get_ident(), WORK.set(self.work)
        request_token = REQUEST.set(self.request)
        try:
            return self._function(*args, **kwargs)
        except ArenaError as error:
            _end_at_user_line(error)  # a thread's traceback is printed whole
            raise
        finally:
            REQUEST.reset(request_token)
            WORK.reset(token)
            PIECES.pop(self, None)


def _end_at_user_line(error: BaseException) -> None:
    """Take the frames of libraries from the end of a traceback."""
    last = None
    step = error.__traceback__
    while step is not None:
        if not _is_library(step.tb_frame.f_code.co_filename):
            last = step
        step = step.tb_next
    if last is not None:
        last.tb_next = None


# All that has begun, or waits for its turn, and in which line.
PIECES: WeakKeyDictionary[Piece, object] = WeakKeyDictionary()

# The threads and tasks that wait for the next job of an app's queue.
IDLE_WORKERS: WeakKeyDictionary[Any, None] = WeakKeyDictionary()


@dataclass(frozen=True, slots=True)
class ChildProcess:
    """A child process that knows the test's database, and the work that has begun it."""

    work: Any
    line: CodeLine
    is_running: Callable[[], bool]


# Until their test ends.
CHILDREN: list[ChildProcess] = []


def piece_here() -> Piece | None:
    """Return what this thread does for a test, the innermost; None for nothing, or for a task."""
    here = get_ident()
    return next(
        (piece for piece in reversed(alive(PIECES)) if piece.is_done_in(here)), None
    )


# Whether a wider fixture has begun this.
OF_WIDE_FIXTURE: ContextVar[bool] = ContextVar(
    "arena: of a wider fixture", default=False
)

# Whether this is the app's start-up that runs once for all tests, in a loop that is no test's.
IN_SESSION_LIFESPAN: ContextVar[bool] = ContextVar(
    "arena_session_lifespan", default=False
)
OUR_TASK = "pytest-arena: a task of its own"
SERVER_THREAD = "pytest-arena-live-server"
# Threads that go on over the tests, and are no fixture's: the server's, and its endpoints'.
# a2wsgi calls WSGI apps in threads of these names: pytest-arena's, and those of a mounted app.
A2WSGI_PREFIX = "WSGI"
A2WSGI_THREADS = tuple(f"{A2WSGI_PREFIX}_{number}" for number in range(10))
NOBODYS = (SERVER_THREAD, "AnyIO worker thread", *A2WSGI_THREADS)


def is_of(thread: int, others: Container[int]) -> bool:
    """Whether a thread is one of these, or one of them has started it, as a pool that grows does.

    What the main thread has started, or any in a test's request, is nobody's else.
    """
    starters = {one.ident: getattr(one, "arena_starter", 0) for one in all_threads()}
    while thread and thread not in others:
        thread = starters.pop(thread, 0)  # numbers are given anew
    return bool(thread)


def watch_what_is_begun() -> Callable[[], None]:
    """Know what is given, as a part of some work, to threads, to pools of them, to a loop's clock.

    A library's own threads and callbacks are none. Costs 0.1 µs where no request is under way.

    Returns:
        What leaves the classes as they were.
    """
    loops: Any = asyncio.BaseEventLoop
    kept: Any = (
        Thread.start,
        ThreadPoolExecutor.submit,
        loops.call_at,
        loops.call_soon_threadsafe,
        Future.add_done_callback,
    )

    def start(thread: Any) -> None:
        task = getattr(thread, "function", None) or thread._target or thread.run  # noqa: SLF001 - no other name
        work, here = WORK.get(), get_ident()
        thread.arena_starter = 0 if work or here == main_thread().ident else here
        thread.arena_work = work
        if work and _is_the_users(task):
            thread.run = Piece(work, thread.run, getattr(thread, "cancel", bool))
        kept[0](thread)

    def call_soon_threadsafe(
        loop: Any, callback: Any, *args: Any, **kwargs: Any
    ) -> Any:
        work = WORK.get()
        if work is not None and work.is_given_to(loop):
            # Never cancelled: it may wake a task there.
            callback = Piece(work, callback)
        return kept[3](loop, callback, *args, **kwargs)

    def add_done_callback(future: Any, fn: Any) -> None:
        work = WORK.get()
        # The thread that ends the future calls it, in a context of no test.
        if work is not None and line_of_function(fn) is not None:
            fn = Piece(work, fn)
        kept[4](future, fn)

    def put(
        start: Any,
        submit: Any,
        call_at: Any,
        call_soon_threadsafe: Any,
        add_done_callback: Any,
    ) -> None:
        Thread.start = start  # type: ignore[method-assign] # put back at the end
        ThreadPoolExecutor.submit = submit  # type: ignore[method-assign] # as above
        loops.call_at = call_at
        loops.call_soon_threadsafe = call_soon_threadsafe
        Future.add_done_callback = add_done_callback  # type: ignore[method-assign] # as above

    put(
        start,
        _giving(kept[1], 1),
        _giving(kept[2], 2, is_clock=True),
        call_soon_threadsafe,
        add_done_callback,
    )
    return partial(put, *kept)


def _giving(give: Any, place: int, *, is_clock: bool = False) -> Any:
    """As ``give``, whose argument at this place somebody is to call."""

    def given(*args: Any, **kwargs: Any) -> Any:
        work = args[place:] and WORK.get()
        # What a library has a pool do may be what the user has asked for; a loop's clock wakes all.
        if not work or (is_clock and not _is_the_users(args[place])):
            return give(*args, **kwargs)
        piece = Piece(work, args[place])
        piece.is_job = not is_clock
        begun = give(*args[:place], piece, *args[place + 1 :], **kwargs)
        piece.cancel = begun.cancel
        return begun

    return given


def _is_the_users(function: Any) -> bool:
    code = getattr(_unwrapped(function), "__code__", None)
    return not _is_library(getattr(code, "co_filename", "<"))


def _unwrapped(function: Any) -> Any:
    """Return the function inside of a ``partial`` or a decorated one, else the function."""
    return getattr(function, "func", getattr(function, "__wrapped__", function))

"""The time, event loops, threads and folders of this process."""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import sys
import threading
import time
import traceback
from asyncio import new_event_loop
from contextlib import closing, suppress
from contextvars import Context
from functools import cache, partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pytest_arena._interpreter import patch, when_imported

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from types import FrameType
    from weakref import WeakKeyDictionary, WeakSet


AnyTask = asyncio.Task[Any]
Answer = TypeVar("Answer")
_Key = TypeVar("_Key")

_LONGEST_STEP = 0.05

# Set after Ctrl-C. Then pytest-arena leaves slow clean-up to a later run.
interrupted = threading.Event()

# `time.perf_counter`, `time.sleep` and `asyncio.sleep`, also if a test freezes or replaces them.
# The first two are partials, because freezegun replaces the clocks that it finds in modules.
seconds = partial(time.perf_counter)
rest = partial(time.sleep)
async_rest = asyncio.sleep


# Returns the event loop that runs in this thread, or None. asyncio exports it under this name.
running_loop = asyncio._get_running_loop  # noqa: SLF001 - see above


def lock_here(
    locks: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock],
) -> asyncio.Lock:
    """Return the running loop's lock. A lock belongs to the first loop in which a task waits."""
    # `setdefault` is atomic.
    return locks.setdefault(asyncio.get_running_loop(), asyncio.Lock())


@cache
def run_id() -> str:
    """Return an id of this run of pytest, which the workers of pytest-xdist share."""
    return os.environ.get("PYTEST_XDIST_TESTRUNUID") or os.urandom(16).hex()


def is_own_folder(folder: Path) -> bool:
    """Return whether a folder belongs to this process' user. Another user may have created it."""
    if not hasattr(os, "getuid"):
        return True
    return not folder.is_symlink() and folder.lstat().st_uid == os.getuid()


def has_room(folder: Path, needed: int) -> bool:
    """Return whether this user may write so many bytes into a folder."""
    return os.access(folder, os.W_OK) and shutil.disk_usage(folder).free >= needed


_collector_lock = threading.RLock()


def innermost_frames() -> dict[int, FrameType]:
    """Return the innermost frame of each thread by the thread's number. Takes 1 µs for each.

    Python 3.11 deadlocks if the collector runs during the call, and collects a
    ``threading.local``: https://github.com/python/cpython/issues/106883.
    """
    # Without the lock, a second thread would find the collector disabled, and leave it disabled.
    with _collector_lock:
        was_on = gc.isenabled()
        gc.disable()
        try:
            return sys._current_frames()  # noqa: SLF001 - the documented way to other threads' frames
        finally:
            if was_on:
                gc.enable()


def until(ask: Callable[[], Answer], *, within: float) -> Answer:
    """Call ``ask`` until its answer is true or the time is up. Return the last answer.

    ``ask`` is called at least once. The first pause takes 1 ms. Each later pause is twice as
    long, up to 50 ms.
    """
    end = seconds() + within
    step = 0.001
    while True:
        answer = ask()
        if answer or seconds() >= end:
            return answer
        rest(step)
        step = min(step * 2, _LONGEST_STEP)


def alive(known: WeakKeyDictionary[_Key, Any] | WeakSet[_Key]) -> list[_Key]:
    """Return the keys of a weak collection, while other threads add and remove keys.

    The inner dictionary is copied in one step. An iteration over the weak collection would run
    Python code between two keys, and raise if the dictionary has changed.
    """
    data = known.data  # type: ignore[union-attr] # typeshed lacks the attribute
    keys = []
    for reference in [*data]:
        key = reference()
        if key is not None:
            keys.append(key)
    return keys


def context_of(task: object) -> Context:
    """Return the context in which a task, or a callback of a loop, runs."""
    # Python 3.12 has task.get_context().
    for referent in gc.get_referents(task):
        if isinstance(referent, Context):
            return referent
    return Context()


def has_other_work() -> bool:
    """Return whether another thread of this process runs, or could run. Only Linux shows it."""
    own = str(threading.get_native_id())
    for task in Path("/proc/self/task").glob("*/stat"):
        with suppress(OSError):  # the thread has ended
            _, _, state = task.read_text(encoding="utf-8").rpartition(") ")
            if state.startswith("R") and task.parent.name != own:
                return True
    return False


def by_timeout(error: BaseException) -> bool:
    """Return whether pytest-timeout has raised an error, to interrupt a test."""
    frames = traceback.walk_tb(error.__traceback__)
    return "pytest_timeout" in [frame.f_globals.get("__name__") for frame, _ in frames]


def is_interruption(error: BaseException) -> bool:
    """Return whether an error ends the work, as of Ctrl-C, and is no outcome of a test."""
    if isinstance(error, Exception):
        return False
    is_outcome = hasattr(error, "pytrace")  # of `pytest.fail()`, which pytest-timeout calls, too
    return not is_outcome or by_timeout(error)


def run_in_new_loop(coroutine: Coroutine[object, object, Answer]) -> Answer:
    """Run a coroutine in a thread without a running loop. Return its result.

    Unlike asyncio.run, it leaves the main thread's event loop to the user.
    """
    with closing(new_event_loop()) as loop:
        return loop.run_until_complete(coroutine)


def before_spawn(call: Callable[[], None]) -> None:
    """Call a function before each spawn of a process by multiprocessing. Not before a fork."""

    def change(module: Any) -> None:
        prepare = module.get_preparation_data

        @wraps(prepare)
        def get_preparation_data(name: str) -> dict[str, Any]:
            call()
            data: dict[str, Any] = prepare(name)
            return data

        patch(module, "get_preparation_data", get_preparation_data)

    when_imported("multiprocessing.spawn", change)

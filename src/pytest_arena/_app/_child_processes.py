"""Records the child processes of a test, so that a note can name those that outlive it.

pytest-arena cannot refuse the connections of another process.
"""

from __future__ import annotations

import multiprocessing.process
import os
import subprocess
from concurrent.futures import ProcessPoolExecutor
from contextvars import ContextVar, copy_context
from functools import partial, wraps
from typing import TYPE_CHECKING, Any

from pytest_arena._origin import (
    CHILDREN,
    OF_WIDE_FIXTURE,
    WORK,
    ChildProcess,
    is_own,
    user_line,
)
from pytest_arena._process import replace_attribute

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextlib import ExitStack

__tracebackhide__ = True  # a traceback of the app or of a test ends at its own line


_in_multiprocessing: ContextVar[bool] = ContextVar(
    "arena: multiprocessing starts a process", default=False
)


def watch_child_processes(
    undo: ExitStack, names_test_database: Callable[[Iterable[str]], bool]
) -> None:
    """Record the child processes that a test, its request or a wider fixture begins.

    Args:
        undo: restores the methods when it is closed.
        names_test_database: returns whether one of some texts names a database of the tests.
    """
    watched: list[tuple[object, str, Callable[[Any], Any]]] = [
        (subprocess.Popen, "__init__", partial(_starting_program, names_test_database)),
        (multiprocessing.process.BaseProcess, "start", _starting_process),
        (ProcessPoolExecutor, "submit", _submitting),
    ]
    if hasattr(os, "fork"):
        watched.append((os, "fork", _forking))
    for owner, name, wrap in watched:
        original = getattr(owner, name)
        replace_attribute(undo, owner, name, wraps(original)(wrap(original)))
    undo.callback(CHILDREN.clear)


def _note(is_running: Callable[[], bool]) -> None:
    owner = WORK.get() or OF_WIDE_FIXTURE.get()
    line = user_line()
    if owner is not None and line is not None and not is_own():
        CHILDREN.append(ChildProcess(owner, line, is_running))


def _starting_program(
    names_test_database: Callable[[Iterable[str]], bool], original: Any
) -> object:
    def start(self: Any, args: Any, *others: object, **named: Any) -> None:
        original(self, args, *others, **named)
        if WORK.get() is None and OF_WIDE_FIXTURE.get() is None:
            return
        words = [args] if isinstance(args, str | bytes | os.PathLike) else args
        variables = named.get("env")
        if variables is None:
            variables = os.environ
        texts = [*map(os.fsdecode, words), *map(os.fsdecode, variables.values())]
        if names_test_database(texts):
            _note(partial(_is_running, self.pid))

    return start


def _starting_process(original: Callable[..., Any]) -> Callable[..., object]:
    def start(self: Any) -> None:
        token = _in_multiprocessing.set(True)
        try:
            original(self)
        finally:
            _in_multiprocessing.reset(token)
        _note(partial(_is_running, self.pid))

    return start


def _submitting(original: Any) -> Any:
    def submit(self: Any, *job: Any, **named: Any) -> Any:
        # The processes of a pool outlive the test, so only the job is noted.
        # A forked worker inherits the app's own context variables.
        context = copy_context()
        context.run(WORK.set, None)
        context.run(OF_WIDE_FIXTURE.set, None)
        future = context.run(original, self, *job, **named)

        def is_running() -> bool:
            return not future.done()

        _note(is_running)
        return future

    return submit


def _forking(original: Any) -> Any:
    def fork() -> int:
        pid: int = original()
        if pid == 0:
            CHILDREN.clear()
        elif not _in_multiprocessing.get():
            _note(partial(_is_running, pid))
        return pid

    return fork


def _is_running(pid: int) -> bool:
    """Return whether a child runs, and leave its exit status to the code that started it.

    False on systems without this call: Windows, macOS before Python 3.13.
    """
    if not hasattr(os, "waitid"):
        return False
    try:
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, pid, flags) is None
    except ChildProcessError:
        return False  # its exit status was read

"""Run a build so that it leaves nothing behind in the process but the template."""

from __future__ import annotations

import contextlib
import contextvars
import logging
import os
import sys
import threading
from typing import TYPE_CHECKING, Any
from unittest import mock

from pytest_arena._loop import running_loop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["run_apart"]


def run_apart(call: Callable[[], None]) -> None:
    """Call in a thread of its own, and give the process back as it was.

    In a thread, since a builder may call ``asyncio.run`` (Alembic's async ``env.py`` does): that
    is forbidden where a loop runs, and elsewhere takes the main thread's loop away. Back as it
    was, since the next run finds the template in the cache and must not meet another process.

    In this thread where it is importing a module: another one that imports it too would wait for
    this one, which waits for the build.
    """
    with _process_as_it_was():
        if _is_importing() and running_loop() is None:
            call()
        else:
            _call_in_thread(call)


def _call_in_thread(call: Callable[[], None]) -> None:
    failed: list[BaseException] = []
    context = contextvars.copy_context()

    def run() -> None:
        try:
            context.run(call)
        except BaseException as error:  # noqa: BLE001 - raised again in the waiting thread
            failed.append(error)

    # A daemon: after Ctrl-C nobody waits for it.
    thread = threading.Thread(target=run, name="pytest-arena-build", daemon=True)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]


def _is_importing() -> bool:
    frame = sys._getframe()  # noqa: SLF001 - the documented way to a caller's frame
    while frame.f_back is not None:
        frame = frame.f_back
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
    return False


@contextlib.contextmanager
def _process_as_it_was() -> Iterator[None]:
    folder, path, variables = os.getcwd(), sys.path[:], dict(os.environ)  # noqa: PTH109 - as chdir
    with _logging_as_it_was():
        try:
            yield
        finally:
            os.chdir(folder)
            sys.path[:] = path
            _restore(variables)


def _restore(variables: dict[str, str]) -> None:
    for name in os.environ.keys() - variables.keys():
        del os.environ[name]
    for name, value in variables.items():
        if os.environ.get(name) != value:
            os.environ[name] = value


@contextlib.contextmanager
def _logging_as_it_was() -> Iterator[None]:
    """Take back a ``dictConfig`` or ``fileConfig``: they disable every logger of the app.

    And they close every handler first, pytest's as well, by ``logging.shutdown``.
    """
    before = {logger: _state(logger) for logger in _loggers()}
    try:
        with mock.patch.object(logging, "shutdown"):
            yield
    finally:
        for logger in _loggers():
            _set_back(logger, *before.get(logger, _NEW))


_NEW: tuple[list[logging.Handler], int, bool, bool] = ([], logging.NOTSET, False, True)


def _set_back(logger: logging.Logger, *state: Any) -> None:
    logger.handlers[:], level, logger.disabled, logger.propagate = state
    logger.setLevel(level)


def _loggers() -> list[logging.Logger]:
    known = list(logging.root.manager.loggerDict.values())
    return [logging.root, *(item for item in known if isinstance(item, logging.Logger))]


def _state(logger: logging.Logger) -> tuple[list[logging.Handler], int, bool, bool]:
    return logger.handlers[:], logger.level, logger.disabled, logger.propagate

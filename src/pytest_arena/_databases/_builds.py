"""How is a template built: which engines land in it, and what is left of the process?"""

from __future__ import annotations

import contextvars
import logging
import os
import sys
import threading
import weakref
from contextlib import chdir, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import wraps
from typing import TYPE_CHECKING
from unittest.mock import patch

from pytest_arena._process import running_loop
from pytest_arena.errors import TemplateError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_arena._product import Aim, Database, Key, Target


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


@contextmanager
def _process_as_it_was() -> Iterator[None]:
    """Take back what a builder does to the process.

    A ``dictConfig`` or ``fileConfig`` of logging disables every logger of the app, and closes every
    handler first, pytest's as well, by ``logging.shutdown``.
    """
    variables = dict(os.environ)
    states = {logger: _state(logger) for logger in _loggers()}
    try:
        with chdir("."), patch.object(sys, "path", sys.path[:]), patch.object(logging, "shutdown"):
            yield
    finally:
        for name in os.environ.keys() - variables.keys():
            del os.environ[name]
        os.environ.update(variables)
        for logger in _loggers():
            state = states.get(logger, ([], logging.NOTSET, False, True))
            logger.handlers[:], level, logger.disabled, logger.propagate = state
            logger.setLevel(level)


def _loggers() -> list[logging.Logger]:
    known = list(logging.root.manager.loggerDict.values())
    return [logging.root, *(item for item in known if isinstance(item, logging.Logger))]


def _state(logger: logging.Logger) -> tuple[list[logging.Handler], int, bool, bool]:
    return logger.handlers[:], logger.level, logger.disabled, logger.propagate


@dataclass(slots=True, eq=False)
class BuildAim:
    """A template in the making. ``others`` stand for the app's other databases meanwhile."""

    database: Database
    options: str  # as they were given
    target: Target
    others: dict[Database, Target] = field(default_factory=dict)

    def aim(self, other: Database | None) -> Aim:
        """Return where an engine lands that the builder uses.

        One on another database of the app lands in an empty one, which is thrown away: a template
        is one database's.
        """
        if other is None or other is self.database:
            return self.target.aim
        if other not in self.others:
            self.others[other] = other.product.shelves(other.dialect).scratch()
        return self.others[other].aim

    def current(self, key: Key) -> Aim | None:
        """Return where a connection that was opened with this key lands now."""
        aims = [target.aim for target in (self.target, *self.others.values())]
        return next((aim for aim in aims if aim.key == key), None)

    def check(self) -> None:
        """Raise a TemplateError where the builder has made tables in another database."""
        written = [other.name for other, target in self.others.items() if target.has_tables()]
        for target in self.others.values():
            target.remove()
        if written:
            raise TemplateError(
                f"building {self.database.name} made tables in another database: "
                f"{', '.join(written)}",
                why="each database of the app is built by itself, and kept by itself",
                cause=f"{self.options} works on another engine as well, or on an attached file",
                fix="arena_schema =   (and arena_seed alike: a line for each database)\n"
                + "\n".join(
                    f"    {name} = module:its_function" for name in (self.database.name, *written)
                ),
            )


class Builds:
    """The builds that are under way, and whose they are.

    A build's own context knows it. A thread that a builder starts has no context of its own, and
    is marked when it starts. Anybody else waits for the template.
    """

    def __init__(self) -> None:
        self._context: ContextVar[BuildAim | None] = ContextVar("arena_build", default=None)
        self.running: list[BuildAim] = []
        self._threads: weakref.WeakKeyDictionary[threading.Thread, BuildAim] = (
            weakref.WeakKeyDictionary()
        )
        self._changing = threading.Lock()
        self._marking = patch.object(threading.Thread, "start", self._marked_start())

    def now(self) -> BuildAim | None:
        """Return the build that the caller is a part of."""
        build = self._context.get() or self._threads.get(threading.current_thread())
        return build if build in self.running else None

    @contextmanager
    def around(self, build: BuildAim) -> Iterator[None]:
        """Around a build."""
        token = self._context.set(build)
        with self._changing:
            self.running.append(build)
            if len(self.running) == 1:
                self._marking.start()
        try:
            yield
            build.check()
        finally:
            with self._changing:
                self.running.remove(build)
                if not self.running:
                    self._marking.stop()
            self._context.reset(token)

    def _marked_start(self) -> Callable[[threading.Thread], None]:
        start = threading.Thread.start

        @wraps(start)
        def marked(thread: threading.Thread) -> None:
            if (build := self.now()) is not None:
                self._threads[thread] = build
            start(thread)

        return marked

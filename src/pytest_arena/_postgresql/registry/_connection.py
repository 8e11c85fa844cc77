"""A control connection that is made anew when it was lost, and what was written by it."""

from __future__ import annotations

import os
import threading
from bisect import bisect_right, insort
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_arena import _clock
from pytest_arena._postgresql._control import Failed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_arena._postgresql._control import Control

__all__ = ["Line", "Writes"]

# A server that is restarted is back within some seconds.
_RESTART_SECONDS, _RESTART_STEP = 10.0, 0.05


@dataclass(slots=True)
class Write:
    """A statement that is under way; it may turn out to have written nothing."""

    counts: bool = True


class Writes:
    """How many transactions of arena's own have written, since a mark.

    A lower bound: a statement is counted when it has succeeded, and each that is counted takes
    one transaction id at least. It is what a test has not written.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._begun = 0
        self._open = 0
        self._ended: list[int] = []

    def mark(self) -> int:
        """Return the mark of now: what begins after it is counted, what is under way is not."""
        with self._lock:
            return self._begun

    def since(self, mark: int) -> int:
        """Return how many have begun after a mark and have ended."""
        with self._lock:
            return len(self._ended) - bisect_right(self._ended, mark)

    def is_under_way(self) -> bool:
        """Whether one has begun that is not known to have ended."""
        with self._lock:
            return self._open > 0

    @contextmanager
    def one(self) -> Iterator[Write]:
        """Count one, if it succeeds and ``counts``."""
        with self._lock:
            self._begun += 1
            self._open += 1
            number, write = self._begun, Write()
        try:
            yield write
        except BaseException:
            write.counts = False
            raise
        finally:
            with self._lock:
                self._open -= 1
                if write.counts:
                    insort(self._ended, number)


class Line:
    """A control connection. Where it was lost, the statement is said once more on a new one.

    So whatever is said has to bear being said twice. A forked child opens one of its own.
    """

    def __init__(self, connect: Callable[[], Control]) -> None:
        self._connect = connect
        self._turn = threading.RLock()
        self._control: Control | None = None
        self._abandoned: list[Control] = []  # a parent's: closing them here would end its session
        self._process = os.getpid()
        self.pid = 0
        self.times = 0  # how often it was made
        self._is_given_up = False  # it was waited for in vain: it is tried, and not waited for

    @property
    def is_open(self) -> bool:
        """Whether it is in use by this process."""
        return self._control is not None and self._process == os.getpid()

    def run(self, sql: str) -> None:
        """Execute one statement, or several in one transaction."""
        self._said(lambda control: control.run(sql))

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Execute one statement and return its rows."""
        found: list[tuple[Any, ...]] = self._said(lambda control: control.rows(sql))
        return found

    def ask(self, sql: str) -> str | None:
        """Execute one statement that takes no time, and return its only value, a text."""
        text: str | None = self._said(lambda control: control.ask(sql))
        return text

    def _said(self, say: Callable[[Control], Any]) -> Any:
        with self._turn:
            try:
                return say(self._open())
            except Failed as error:
                if not error.is_lost:
                    raise
            self._drop()
            self._open_with_patience()
            return say(self._open())

    def _open_with_patience(self) -> None:
        end = _clock.seconds() + _RESTART_SECONDS
        while True:
            try:
                self._open()
            except Failed as error:
                self._is_given_up |= error.is_lost and _clock.seconds() > end
                if self._is_given_up or not error.is_lost:
                    raise
                _clock.rest(_RESTART_STEP)
            else:
                return

    def _open(self) -> Control:
        with self._turn:
            if self._process != os.getpid():
                self._abandoned += [self._control] if self._control else []
                self._control, self._process = None, os.getpid()
            if self._control is None:
                self._control = self._connect()
                self.pid = self._control.pid
                self.times += 1
                self._is_given_up = False
            return self._control

    def _drop(self) -> None:
        control, self._control = self._control, None
        if control is not None:
            with suppress(Exception):  # it is gone anyway
                control.close()

    def close(self) -> None:
        """Close it. Idempotent; a forked child leaves its parent's alone."""
        if self._process == os.getpid():
            self._drop()

"""How a run speaks to its server: by control connections, in the foreground and behind it."""

from __future__ import annotations

import os
import threading
from bisect import bisect_right, insort
from collections import deque
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_arena._postgresql._control import ControlFailure
from pytest_arena._process import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_arena._postgresql._control import Control

__all__ = ["Background", "ControlLine", "Writes"]

# A server that is restarted is back within some seconds.
_RESTART_SECONDS = 10.0
# When as many wait, they go first: a suite that dirties databases faster than they are dropped
# would fill the disk.
_BACKLOG = 8


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


class ControlLine:
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
        self._do(lambda control: control.run(sql))

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Execute one statement and return its rows."""
        found: list[tuple[Any, ...]] = self._do(lambda control: control.rows(sql))
        return found

    def ask(self, sql: str) -> str | None:
        """Execute one statement that takes no time, and return its only value, a text."""
        text: str | None = self._do(lambda control: control.ask(sql))
        return text

    def _do(self, say: Callable[[Control], Any]) -> Any:
        with self._turn:
            try:
                return say(self._open())
            except ControlFailure as error:
                if not error.is_lost:
                    raise
            self._drop()
            if not until(self._is_back, within=0 if self._is_given_up else _RESTART_SECONDS):
                self._is_given_up = True
            return say(self._open())

    def _is_back(self) -> bool:
        try:
            self._open()
        except ControlFailure as error:
            if not error.is_lost:
                raise
            return False
        return True

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


class Background:
    """A thread that works jobs off, and is there from the first one to ``close``.

    Jobs are expected to deal with their failures: ``notes`` get those of one that does not.
    """

    def __init__(self, notes: list[str]) -> None:
        self._notes = notes
        self._urgent: deque[Callable[[], object]] = deque()
        self._later: deque[Callable[[], object]] = deque()
        self._news = threading.Condition()
        self._is_working = self._is_closed = False
        self._thread: threading.Thread | None = None

    def do(self, job: Callable[[], object], *, urgent: bool = False) -> bool:
        """Have a job done by and by. Returns whether it will be: not after ``close``."""
        with self._news:
            if self._is_closed:
                return False
            (self._urgent if urgent else self._later).append(job)
            self._news.notify_all()
            if self._thread is None:
                # A daemon: whatever the server does, the process ends.
                self._thread = threading.Thread(
                    target=self._work, name="pytest-arena-background", daemon=True
                )
                self._thread.start()
            return True

    def rest(self, seconds: float) -> bool:
        """Wait until nothing is left to do. Returns whether that came in time."""
        with self._news:
            return self._news.wait_for(self._is_idle, seconds)

    def close(self, seconds: float) -> bool:
        """Forget what has not begun, and wait for what has. Idempotent."""
        with self._news:
            self._is_closed = True
            self._urgent.clear()
            self._later.clear()
            self._news.notify_all()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(seconds)
            return not self._thread.is_alive()
        return True

    def _is_idle(self) -> bool:
        return not (self._urgent or self._later or self._is_working)

    def _next(self) -> Callable[[], object] | None:
        with self._news:
            self._is_working = False
            self._news.notify_all()
            self._news.wait_for(lambda: self._is_closed or self._urgent or self._later)
            if self._is_closed:
                return None
            is_urgent = self._urgent and len(self._later) < _BACKLOG
            self._is_working = True
            return (self._urgent if is_urgent else self._later).popleft()

    def _work(self) -> None:
        while (job := self._next()) is not None:
            try:
                job()
            except BaseException as error:  # noqa: BLE001 - the next job may be luckier than this one
                self._notes.append(f"{type(error).__name__}: {error}")

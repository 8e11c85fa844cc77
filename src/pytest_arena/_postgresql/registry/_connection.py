"""How a run speaks to its server: by control connections, in the foreground and behind it."""

from __future__ import annotations

import threading
from bisect import bisect_right, insort
from concurrent.futures import Future
from contextlib import contextmanager
from queue import Queue
from typing import TYPE_CHECKING, Any, TypeVar

from pytest_arena._postgresql._control import Control, ControlFailure, Reconnecting
from pytest_arena._process import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


# A server that is restarted is back within some seconds.
_RESTART_SECONDS = 10.0

_Answer = TypeVar("_Answer")


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
    def one(self) -> Iterator[None]:
        """Count one, if it succeeds."""
        with self._lock:
            self._begun += 1
            self._open += 1
            number = self._begun
        try:
            yield
            with self._lock:
                insort(self._ended, number)
        finally:
            with self._lock:
                self._open -= 1


class ControlLine(Reconnecting["Control"]):
    """A control connection that waits for a server which is restarted."""

    def __init__(
        self, connect: Callable[[], Control], *, patience: float = 0.0
    ) -> None:
        super().__init__(connect, self._wait, patience=patience)
        self._waited_in_vain = (
            -1
        )  # for which connection: another one is tried, and not waited for

    def run(self, sql: str) -> None:
        """Execute one statement, or several in one transaction."""
        self.call(lambda control: control.run(sql))

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Execute one statement and return its rows."""
        return self.call(lambda control: control.rows(sql))

    def _wait(self) -> None:
        is_given_up = self._waited_in_vain == self.connects
        if not until(self._is_back, within=0 if is_given_up else _RESTART_SECONDS):
            self._waited_in_vain = self.connects

    def _is_back(self) -> bool:
        try:
            self.opened()
        except ControlFailure as error:
            if not error.is_lost:
                raise
            return False
        return True


class Background:
    """A thread that works jobs off, one after the other: from the first one to ``close``.

    It calls ``at_end`` when it ends, which may be after ``close`` has given up waiting.
    """

    def __init__(self, *, at_end: Callable[[], object] = lambda: None) -> None:
        self._at_end = at_end
        self._jobs: Queue[tuple[Future[Any], Callable[[], Any]] | None] = Queue()
        self._turn = threading.Lock()
        self._is_closed = False
        self._thread: threading.Thread | None = None

    def do(self, job: Callable[[], _Answer]) -> Future[_Answer]:
        """Have a job done by and by; after ``close`` it is cancelled."""
        future: Future[_Answer] = Future()
        with self._turn:
            if self._is_closed:
                future.cancel()
                return future
            self._jobs.put((future, job))
            if self._thread is None:
                # A daemon: whatever the server does, the process ends.
                self._thread = threading.Thread(
                    target=self._work, name="pytest-arena-background", daemon=True
                )
                self._thread.start()
        return future

    def rest(self, seconds: float) -> bool:
        """Wait until nothing is left to do. Returns whether that came in time."""
        return until(lambda: not self._jobs.unfinished_tasks, within=seconds)

    def close(self, seconds: float) -> bool:
        """Cancel what has not begun, and wait for what has. Idempotent."""
        with self._turn:
            self._is_closed = True
            self._jobs.put(None)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(seconds)
            return not self._thread.is_alive()
        return True

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, call = job
            if self._is_closed:
                future.cancel()
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(call())
                except BaseException as error:  # noqa: BLE001 - whoever waits for it is told
                    future.set_exception(error)
            self._jobs.task_done()
        self._at_end()


def at_once(jobs: list[Callable[[], _Answer]]) -> list[_Answer]:
    """Run all jobs at once, each in a thread that does not keep the process from ending.

    Raises:
        RuntimeError: the interpreter is shutting down, and starts no threads.
    """
    threads = [Background() for _ in jobs]
    futures = [thread.do(job) for thread, job in zip(threads, jobs, strict=True)]
    answers = [future.result() for future in futures]
    for thread in threads:
        thread.close(0)
    return answers

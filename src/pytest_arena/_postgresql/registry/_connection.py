"""The connections of a run to its server, and its background threads."""

from __future__ import annotations

import threading
from bisect import bisect_right, insort
from concurrent.futures import Future
from contextlib import contextmanager
from queue import Queue
from threading import Thread
from typing import TYPE_CHECKING, Any, TypeVar

from pytest_arena._postgresql._control import Control, ControlFailure, Reconnecting
from pytest_arena._process import interrupted, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


_RESTART_SECONDS = 10.0  # that a restarted server may take

_ResultT = TypeVar("_ResultT")


class Writes:
    """Counts pytest-arena's transactions that have written, since a mark.

    The count is a lower bound: a statement counts when it has succeeded, and takes at least one
    transaction id. ``clone`` subtracts these from the ids that a server has given out.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._begun = 0
        self._open = 0
        self._ended: list[int] = []

    def mark(self) -> int:
        """Return a mark. Only statements that begin after it are counted."""
        with self._lock:
            return self._begun

    def since(self, mark: int) -> int:
        """Return how many statements have begun after a mark and have ended."""
        with self._lock:
            return len(self._ended) - bisect_right(self._ended, mark)

    def is_under_way(self) -> bool:
        """Whether a statement has begun and has not ended."""
        with self._lock:
            return self._open > 0

    @contextmanager
    def one(self) -> Iterator[None]:
        """Count the statement of this block if it succeeds."""
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
    """A control connection that waits for a restarted server."""

    def __init__(
        self, connect: Callable[[], Control], *, patience: float = 0.0
    ) -> None:
        super().__init__(connect, self._wait, patience=patience)
        self._waited_in_vain = -1  # the number of the connection that did not come back

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
    """A thread that runs jobs one after the other, until ``close``.

    It calls ``at_end`` when it ends, which may be after ``close`` has stopped waiting.
    """

    def __init__(self, *, at_end: Callable[[], object] = lambda: None) -> None:
        self._at_end = at_end
        self._jobs: Queue[tuple[Future[Any], Callable[[], Any]] | None] = Queue()
        self._lock = threading.Lock()
        self._is_closed = False
        self._thread: threading.Thread | None = None

    def do(self, job: Callable[[], _ResultT]) -> Future[_ResultT]:
        """Add a job. After ``close`` it is cancelled."""
        future: Future[_ResultT] = Future()
        with self._lock:
            if self._is_closed:
                future.cancel()
                return future
            self._jobs.put((future, job))
            if self._thread is None:
                # A daemon thread does not keep the process alive if the server hangs.
                self._thread = Thread(
                    target=self._work, name="pytest-arena-background", daemon=True
                )
                self._thread.start()
        return future

    def rest(self, seconds: float, *, most: int = 0) -> bool:
        """Wait until at most ``most`` jobs are not done. Return whether that is so in time.

        Ctrl-C ends the wait if ``most`` is more than 0.
        """
        return until(
            lambda: (
                self._jobs.unfinished_tasks <= most
                or (most > 0 and interrupted.is_set())
            ),
            within=seconds,
        )

    def close(self, seconds: float) -> bool:
        """Cancel jobs that have not begun. Wait for the running one; return whether it ended."""
        with self._lock:
            self._is_closed = True
            self._jobs.put(None)
        if self._thread is None or self._thread is threading.current_thread():
            return True
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, call = job
            if self._is_closed:
                future.cancel()
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(call())
                except BaseException as error:  # noqa: BLE001 - the future raises it
                    future.set_exception(error)
            self._jobs.task_done()
        self._at_end()


def run_concurrently(jobs: Sequence[Callable[[], _ResultT]]) -> list[_ResultT]:
    """Run each job in a daemon thread, and return their results.

    Raises:
        RuntimeError: the interpreter is shutting down, and starts no threads.
    """
    threads = [Background() for _ in jobs]
    futures = [thread.do(job) for thread, job in zip(threads, jobs, strict=True)]
    results = [future.result() for future in futures]
    for thread in threads:
        thread.close(0)
    return results

"""A thread for pytest-arena's work, for which no test waits."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import Queue
from typing import Any, TypeVar

from pytest_arena._process import interrupted, until

_ResultT = TypeVar("_ResultT")


class Background:
    """A thread that runs jobs one after the other, until ``close``.

    The thread calls ``at_end`` when it ends. ``close`` may stop waiting before that.
    """

    def __init__(self, *, at_end: Callable[[], object] = lambda: None) -> None:
        self._at_end = at_end
        self._jobs: Queue[tuple[Future[Any], Callable[[], Any]] | None] = Queue()
        self._lock = threading.Lock()
        self._is_closed = False
        self._thread: threading.Thread | None = None

    def do(self, job: Callable[[], _ResultT]) -> Future[_ResultT]:
        """Add a job. After ``close`` the job is cancelled at once."""
        future: Future[_ResultT] = Future()
        with self._lock:
            if self._is_closed:
                future.cancel()
                return future
            self._jobs.put((future, job))
            if self._thread is None:
                # A daemon thread does not keep the process alive if the server hangs.
                self._thread = threading.Thread(
                    target=self._work, name="pytest-arena-background", daemon=True
                )
                self._thread.start()
        return future

    def wait_for_jobs(self, seconds: float, *, most: int = 0) -> bool:
        """Wait until at most ``most`` jobs are left. Return False if the time is over before."""
        return until(
            lambda: (
                self._jobs.unfinished_tasks <= most
                or (most > 0 and interrupted.is_set())
            ),
            within=seconds,
        )

    def close(self, seconds: float) -> bool:
        """Cancel jobs that have not begun. Return whether the running job ended in time."""
        with self._lock:
            self._is_closed = True
            self._jobs.put(None)
        if self._thread is None or self._thread is threading.current_thread():
            return True
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while True:
            job = self._jobs.get()
            if job is None:
                break
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

"""Counts the writes of a run, and runs several jobs at the same time."""

import threading
from bisect import bisect_right, insort
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from pytest_arena._product._background import Background

_ResultT = TypeVar("_ResultT")


class Writes:
    """Counts pytest-arena's transactions that have written, since a mark.

    The count is a lower bound. A statement counts when it has succeeded, and uses at least one
    transaction id. ``clone`` subtracts the count from the ids that the server has assigned.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._begun = 0
        self._open = 0
        self._ended: list[int] = []

    def mark(self) -> int:
        """Return a mark for ``since``, which counts only statements that begin later."""
        with self._lock:
            return self._begun

    def since(self, mark: int) -> int:
        """Return how many statements have begun after a mark and have ended."""
        with self._lock:
            return len(self._ended) - bisect_right(self._ended, mark)

    @contextmanager
    def count(self) -> Iterator[None]:
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


def run_concurrently(jobs: Sequence[Callable[[], _ResultT]]) -> list[_ResultT]:
    """Run each job in a daemon thread, and return their results.

    Raises:
        RuntimeError: the interpreter is shutting down, and starts no threads.
    """
    threads = [Background() for _ in jobs]
    try:
        futures = [thread.do(job) for thread, job in zip(threads, jobs, strict=True)]
        return [future.result() for future in futures]
    finally:
        for thread in threads:
            thread.close(0)

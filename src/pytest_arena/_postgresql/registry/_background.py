"""What is done meanwhile: clones made ahead, databases dropped, by one thread beside the tests."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Background"]

# When as many wait, they go first: a suite that dirties databases faster than they are dropped
# would fill the disk.
_BACKLOG = 8


class Background:
    """A thread that works jobs off, and is there from the first one to ``close``.

    Jobs are expected to fail by themselves: ``failed`` is told of one that does not.
    """

    def __init__(self, failed: Callable[[BaseException], None]) -> None:
        self._failed = failed
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
                self._start()
            return True

    def _start(self) -> None:
        # A daemon: whatever the server does, the process ends.
        self._thread = threading.Thread(
            target=self._work, name="pytest-arena-background", daemon=True
        )
        self._thread.start()

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
                self._failed(error)

"""What must not be broken off in the middle, whoever rings: Ctrl-C, or the alarm of a timeout."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["unbroken"]

_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGALRM") if hasattr(signal, name)]


@contextmanager
def unbroken() -> Iterator[None]:
    """Have whoever rings wait until the block is done; who rings twice does not wait.

    A database that is brought back by halves would be the next test's. Cost: some microseconds.

    Example::

        with unbroken():
            isolation.leave()
    """
    if threading.current_thread() is not threading.main_thread():  # a handler never runs in others
        yield
        return
    rung: dict[int, Any] = {}
    kept = {number: signal.getsignal(number) for number in _SIGNALS}

    def wait(number: int, frame: Any) -> None:
        if number in rung:
            _ring(kept, {number: frame})
        rung[number] = frame

    try:
        for number in _heard(kept):
            signal.signal(number, wait)
        yield
    finally:
        for number in _heard(kept):
            signal.signal(number, kept[number])
        _ring(kept, rung)


def _heard(handlers: dict[int, Any]) -> list[int]:
    """Those that lead into Python: what the system does itself cannot wait."""
    return [number for number, handler in handlers.items() if callable(handler)]


def _ring(handlers: dict[int, Any], rung: dict[int, Any]) -> None:
    for number, frame in rung.items():
        handlers[number](number, frame)

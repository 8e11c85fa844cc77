"""Delays Ctrl-C and timeouts while pytest-arena restores a database."""

# The module without enums: those of `signal` take ten times as long.
import _signal as signal  # type: ignore[import-not-found]  # typeshed has no stub for it
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pytest_arena._process import interrupted

_SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGALRM") if hasattr(signal, name)
]


@contextmanager
def delayed_signals() -> Iterator[None]:
    """Delay SIGINT and SIGALRM until the block ends. A second signal is delivered at once.

    Otherwise the next test could get a database that is only half restored. Cost: some
    microseconds.

    Example::

        with delayed_signals():
            isolation.leave()
    """
    handlers: dict[int, Any] = {}
    # Python runs handlers in the main thread only.
    if threading.get_ident() == threading.main_thread().ident:
        for number in _SIGNALS:
            handler = signal.getsignal(number)
            # pytest-arena cannot delay the default action of the system.
            if callable(handler):
                handlers[number] = handler
    delayed: dict[int, object] = {}

    def delay(number: int, frame: object) -> None:
        if number == signal.SIGINT:
            interrupted.set()
        if number in delayed:
            handlers[number](number, frame)
        delayed[number] = frame

    try:
        for number in handlers:
            signal.signal(number, delay)
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number, frame in delayed.items():
            handlers[number](number, frame)

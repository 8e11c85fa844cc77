"""How long did it take, and how does one wait, whatever a test makes of time?"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["rest", "seconds", "until"]

_Answer = TypeVar("_Answer")

# In a tuple: freezegun looks through all modules for clocks, and puts its own in their places.
_REAL = (time.perf_counter, time.sleep)
_LONGEST_STEP = 0.05


def seconds() -> float:
    """As ``time.perf_counter``, which a test may have frozen."""
    return _REAL[0]()


def rest(seconds: float) -> None:
    """As ``time.sleep``, which a test may have replaced."""
    _REAL[1](seconds)


def until(ask: Callable[[], _Answer], *, within: float, step: float = 0.001) -> _Answer:
    """Ask until the answer is true or the time is up. Returns the last answer.

    Asks at least once. The first pause takes ``step`` seconds, each later one twice as long as the
    one before, up to 50 ms.
    """
    end = seconds() + within
    while not (answer := ask()) and seconds() < end:
        rest(step)
        step = min(step * 2, _LONGEST_STEP)
    return answer

"""How long did it take, and how does one wait, whatever a test makes of time?"""

from __future__ import annotations

import time

__all__ = ["rest", "seconds"]

# In a tuple: freezegun looks through all modules for clocks, and puts its own in their places.
_REAL = (time.perf_counter, time.sleep)


def seconds() -> float:
    """As ``time.perf_counter``, which a test may have frozen."""
    return _REAL[0]()


def rest(seconds: float) -> None:
    """As ``time.sleep``, which a test may have replaced."""
    _REAL[1](seconds)

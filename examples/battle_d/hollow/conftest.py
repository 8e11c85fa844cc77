"""The same data as the honest tests begin with."""

from tests.conftest import queue, summer_battle

__all__ = ["queue", "summer_battle"]

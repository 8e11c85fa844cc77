"""Who conducts a test through all the rooms, and what does it show to the test?"""

from __future__ import annotations

from pytest_arena._arena._facade import Arena, Refused
from pytest_arena._arena._run import ArenaRun

__all__ = ["Arena", "ArenaRun", "Refused"]

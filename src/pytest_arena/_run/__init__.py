"""Who conducts a test through all the rooms, and what does it show to the test?"""

from __future__ import annotations

from pytest_arena._databases._resolver import Level
from pytest_arena._run._apps import Apps
from pytest_arena._run._facade import Arena
from pytest_arena._run._fixture_levels import WideFixture
from pytest_arena._run._levels import LevelHooks
from pytest_arena._run._run import ArenaRun, conducted
from pytest_arena._run._summary import FactsOfProcesses, summarized
from pytest_arena._run._test import RunningTest

__all__ = [
    "Apps",
    "Arena",
    "ArenaRun",
    "FactsOfProcesses",
    "Level",
    "LevelHooks",
    "RunningTest",
    "WideFixture",
    "conducted",
    "summarized",
]

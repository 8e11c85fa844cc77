"""Who conducts a test through all the rooms, and what does it show to the test?"""

from __future__ import annotations

from pytest_arena._arena._apps import Apps
from pytest_arena._arena._calls import conducted
from pytest_arena._arena._facade import Arena
from pytest_arena._arena._instruments import Instruments, NotWritten, Scenario
from pytest_arena._arena._run import ArenaRun
from pytest_arena._arena._sabotage import KINDS, Breaking, SabotageKind, sabotaged
from pytest_arena._arena._state import Level
from pytest_arena._arena._wide import WideFixture

__all__ = [
    "KINDS",
    "Apps",
    "Arena",
    "ArenaRun",
    "Breaking",
    "Instruments",
    "Level",
    "NotWritten",
    "SabotageKind",
    "Scenario",
    "WideFixture",
    "conducted",
    "sabotaged",
]

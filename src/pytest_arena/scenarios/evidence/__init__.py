"""Is a scenario proven, by what a test did in this run?"""

from pytest_arena.scenarios.evidence._baseline import Baseline
from pytest_arena.scenarios.evidence._document import (
    Document,
    JudgedScenario,
    JudgedStep,
    JudgedTest,
    Standing,
    Status,
)
from pytest_arena.scenarios.evidence._facts import (
    Asserted,
    Facts,
    Mapping,
    Outcome,
    Requested,
    Sabotage,
    StepFacts,
    Try,
)
from pytest_arena.scenarios.evidence._json import as_json, from_json
from pytest_arena.scenarios.evidence._judge import judge, listed
from pytest_arena.scenarios.evidence._lock import Lock, Locked
from pytest_arena.scenarios.evidence._merge import merged
from pytest_arena.scenarios.evidence._rules import EVIDENCE, Rules
from pytest_arena.scenarios.evidence._shapes import from_shape, to_shape
from pytest_arena.scenarios.evidence._verdict import row_verdict
from pytest_arena.scenarios.evidence._waivers import Waiver, waivers

__all__ = [
    "EVIDENCE",
    "Asserted",
    "Baseline",
    "Document",
    "Facts",
    "JudgedScenario",
    "JudgedStep",
    "JudgedTest",
    "Lock",
    "Locked",
    "Mapping",
    "Outcome",
    "Requested",
    "Rules",
    "Sabotage",
    "Standing",
    "Status",
    "StepFacts",
    "Try",
    "Waiver",
    "as_json",
    "from_json",
    "from_shape",
    "judge",
    "listed",
    "merged",
    "row_verdict",
    "to_shape",
    "waivers",
]

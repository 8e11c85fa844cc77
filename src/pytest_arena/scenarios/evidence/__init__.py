"""Is a scenario proven, by what a test did in this run?"""

from pytest_arena.scenarios.evidence._agreed import (
    AgreedGap,
    Lock,
    Locked,
    baseline_text,
    read_baseline,
    read_waivers,
)
from pytest_arena.scenarios.evidence._document import (
    Asserted,
    Document,
    Facts,
    JudgedScenario,
    JudgedStep,
    JudgedTest,
    Mapping,
    Outcome,
    Requested,
    Sabotage,
    Status,
    StepFacts,
    Try,
)
from pytest_arena.scenarios.evidence._json import as_json, from_json, from_shape, to_shape
from pytest_arena.scenarios.evidence._judge import EVIDENCE, Rules, judge, listed, merged
from pytest_arena.scenarios.evidence._verdicts import row_verdict

__all__ = [
    "EVIDENCE",
    "AgreedGap",
    "Asserted",
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
    "Status",
    "StepFacts",
    "Try",
    "as_json",
    "baseline_text",
    "from_json",
    "from_shape",
    "judge",
    "listed",
    "merged",
    "read_baseline",
    "read_waivers",
    "row_verdict",
    "to_shape",
]

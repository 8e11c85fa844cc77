"""Is a scenario proven, by what a test did in this run?"""

from pytest_arena._evidence._document import (
    Document,
    JudgedScenario,
    JudgedStep,
    JudgedTest,
    Status,
)
from pytest_arena._evidence._facts import (
    Asserted,
    Facts,
    Mapping,
    Outcome,
    Requested,
    Sabotage,
    StepFacts,
    Try,
)

__all__ = [
    "Asserted",
    "Document",
    "Facts",
    "JudgedScenario",
    "JudgedStep",
    "JudgedTest",
    "Mapping",
    "Outcome",
    "Requested",
    "Sabotage",
    "Status",
    "StepFacts",
    "Try",
]

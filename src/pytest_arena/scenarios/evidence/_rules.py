"""What does a project ask of its scenarios, and what has it agreed to?"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_arena.scenarios.evidence._baseline import Baseline
from pytest_arena.scenarios.evidence._lock import Lock

if TYPE_CHECKING:
    from datetime import date

    from pytest_arena.scenarios.evidence._waivers import Waiver

__all__ = ["EVIDENCE", "Rules"]

EVIDENCE = ("seeded", "requested", "asserted")
"""What can be asked for, in the order in which it happens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """By what a run is judged."""

    today: date
    """Waivers run out."""
    evidence: tuple[str, ...] = EVIDENCE
    """Of a test that passed; nothing is asked for that is not named here."""
    waivers: tuple[Waiver, ...] = ()
    baseline: Baseline = field(default_factory=Baseline)
    lock: Lock = field(default_factory=Lock)
    lists_only: bool = False
    """Nothing was to be run: mapped scenarios are NOT-RUN, and that is no gap."""

"""What is known of a specification at the end of a run: every output is made from this value."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_arena.scenarios.evidence._facts import Facts, Sabotage
    from pytest_arena.scenarios.specs import Problem, Scenario

__all__ = ["Document", "JudgedScenario", "JudgedStep", "JudgedTest", "Standing", "Status"]


class Status(Enum):
    """Worst first; a scenario has the worst that applies. WAIVED is outside of the order."""

    MALFORMED = "MALFORMED"
    UNMAPPED = "UNMAPPED"
    FAILED = "FAILED"
    DRIFTED = "DRIFTED"
    STUB = "STUB"
    XFAIL = "XFAIL"
    XPASS = "XPASS"
    SKIPPED = "SKIPPED"
    NOT_RUN = "NOT-RUN"
    FLAKY = "FLAKY"
    HOLLOW = "HOLLOW"
    UNKNOWN = "UNKNOWN"
    PARTIAL = "PARTIAL"
    PROVEN = "PROVEN"
    WAIVED = "WAIVED"


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedTest:
    """One test of a scenario: its last try, and what that is worth."""

    test: str
    place: str
    status: Status
    reason: str = ""
    row: tuple[tuple[str, str], ...] = ()
    facts: Facts | None = None
    sabotages: tuple[Sabotage, ...] = ()
    also: tuple[Status, ...] = ()
    """Further statuses that apply, the worst first."""
    warnings: tuple[str, ...] = ()
    """Of its scenario's, those that hold for this test."""
    rev: str = ""
    """The reviewed version that its marker names."""
    source: str = ""
    """The hash of its own code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedStep:
    """One step of a scenario, by the blocks of its tests: the best that one of them shows."""

    status: Status | None
    """PROVEN, HOLLOW; None where no test has a block for it."""
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What holds for a scenario whatever its tests do: all that is needed to judge it again."""

    malformed: str = ""
    drifted: str = ""
    drifted_place: str = ""
    """The line in the tests that names the older version, where one does."""
    waived: str = ""
    """The waiver that it is under: ``until 2027-03-31: bought in May``."""
    expired: str = ""
    """The same, of one that has run out."""
    known: Status | None = None
    """As what it stands in the baseline."""
    known_place: str = ""
    """The line of the baseline: ``scenarios.baseline:3``."""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedScenario:
    """One scenario and its verdict."""

    scenario: Scenario
    status: Status
    reason: str = ""
    """Why it is not PROVEN, with the test's line where there is one; of a proven one empty."""
    place: str = ""
    """The line in the tests that the reason is about."""
    also: tuple[Status, ...] = ()
    """Further statuses that apply, the worst first."""
    warnings: tuple[str, ...] = ()
    """What the gate does not ask for: E3b, E4, E5b, E6, E7, a changed test."""
    is_excused: bool = False
    """Whether it stands in the baseline: known, and no failure of the gate."""
    tests: tuple[JudgedTest, ...] = ()
    steps: tuple[JudgedStep, ...] = ()
    """As many as the scenario has."""
    standing: Standing = Standing()
    is_judged: bool = True
    """Whether the gate asks for it: in a partial run, of those alone whose tests all ran."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """The whole of it. The same run gives the same document, whatever the order of its tests."""

    scenarios: tuple[JudgedScenario, ...] = ()
    """By path and line."""
    problems: tuple[Problem, ...] = ()
    """Of the specifications, the markers (orphans), the lock file and the baseline."""
    gaps: tuple[str, ...] = ()
    """Why the gate would fail: a line for each reason. Empty: it passes."""
    partial: str = ""
    """Why not all tests were run, ``-k start``; empty where all were."""
    is_sabotaged: bool = False
    is_list: bool = False
    """Whether no test was to be run: ``--collect-only``, ``arena scenarios check`` and ``list``."""
    specs: tuple[str, ...] = ()
    """The files that were read."""

    def counts(self) -> dict[Status, int]:
        """How many scenarios there are of each status that occurs, worst first."""
        found = [one.status for one in self.scenarios]
        return {status: found.count(status) for status in Status if status in found}

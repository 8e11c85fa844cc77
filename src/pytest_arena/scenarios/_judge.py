"""Decides which scenarios the tries of tests prove. All runs use this one function."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from pytest_arena._values import counted
from pytest_arena.scenarios._markers import NO_REQUEST, needs_seed
from pytest_arena.scenarios._records import noticed_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_arena.scenarios._records import Json
    from pytest_arena.scenarios._specs import Lock, ScenarioSpec, Specification


class Status(StrEnum):
    """The status of a scenario after a run."""

    UNMAPPED = "UNMAPPED"
    FAILED = "FAILED"
    DRIFTED = "DRIFTED"
    SKIPPED = "SKIPPED"
    NOT_RUN = "NOT-RUN"
    HOLLOW = "HOLLOW"
    ASSERTED = "ASSERTED"
    PROVEN = "PROVEN"


# The reasons of proofs without a noticed value: none was noticed, or none could be tried.
_CRASH_ALONE = {noticed_text({"wrong": False, "500": True}), noticed_text({"500": True})}
# A run with only a part of the tests says nothing about these.
UNKNOWN_IN_PART = {Status.UNMAPPED, Status.NOT_RUN}


@dataclass(frozen=True, slots=True)
class Judged:
    """A scenario with its status, and the last tries of its tests."""

    scenario: ScenarioSpec
    status: Status
    reason: str = ""
    tries: tuple[Json, ...] = ()
    gap: str = ""
    """The agreed gap of the lock file, if its day has not passed."""
    is_open: bool = False
    """Whether a strict run fails because of it."""

    @property
    def is_weak(self) -> bool:
        """Whether its tests have noticed an error 500, and no other wrong answer."""
        return self.reason in _CRASH_ALONE


@dataclass(frozen=True, slots=True)
class Results:
    """The judged scenarios of a run, or of several runs."""

    specification: Specification
    scenarios: tuple[Judged, ...]
    tests: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """The keys of the scenarios of each collected test."""
    tries: Sequence[Json] = ()
    partial: str = ""
    """Why the run left out tests, "" if it left out none."""
    is_sabotaged: bool = False

    @property
    def known(self) -> list[Judged]:
        """The scenarios of which the run says something."""
        unknown = UNKNOWN_IN_PART if self.partial else ()
        return [judged for judged in self.scenarios if judged.status not in unknown]

    @property
    def open(self) -> list[Judged]:
        """The scenarios that fail a strict run."""
        return [judged for judged in self.scenarios if judged.is_open]

    @property
    def best(self) -> Status:
        """The best status that a scenario of this run can have."""
        return Status.PROVEN if self.is_sabotaged else Status.ASSERTED

    def totals(self) -> str:
        """Return the number of scenarios of each status, the best status first."""
        counts = Counter(judged.status for judged in self.known)
        best = self.best
        words = [f"{counts[best]} of {len(self.known)} {best.lower()}"]
        weak = sum(judged.is_weak for judged in self.scenarios)
        if weak:
            words.append(f"{weak} for crashes only")
        for status in reversed(Status):
            if counts[status] and status is not best:
                words.append(f"{counts[status]} {status.lower()}")
        return ", ".join(words)


def judge(
    specification: Specification,
    tests: Mapping[str, Sequence[str]],
    tries: Sequence[Json],
    lock: Lock,
    *,
    partial: str = "",
    is_sabotaged: bool = False,
) -> Results:
    """Judge all scenarios by the last try of each test. The arguments are those of `Results`."""
    today = datetime.now(tz=UTC).date().isoformat()
    last = {each["test"]: each for each in tries}
    judged = []
    for scenario in specification.scenarios:
        named = [test for test, keys in tests.items() if scenario.key in keys]
        done = tuple(last[test] for test in sorted(named) if test in last)
        status, reason = _status(scenario, named, done, is_sabotaged=is_sabotaged)
        locked = lock.get(scenario.key)
        is_changed = locked is not None and locked.revision != scenario.revision
        if is_changed and done and status is not Status.FAILED:
            status = Status.DRIFTED
            reason = "its steps have changed since the team accepted them"
        # Without a request there is no answer to break.
        is_enough = status is Status.ASSERTED and NO_REQUEST in scenario.tags
        is_proven = is_enough or status is Status.PROVEN
        gap = ""
        if locked and locked.until and not is_proven:
            gap = locked.gap
            if locked.until < today:
                gap = ""
                reason = f"{reason}; the agreed gap ended on {locked.until}".lstrip("; ")
        is_unknown = bool(partial) and status in UNKNOWN_IN_PART
        is_open = not (is_proven or gap or is_unknown)
        judged.append(Judged(scenario, status, reason, done, gap, is_open))
    return Results(specification, tuple(judged), tests, tries, partial, is_sabotaged)


def _status(
    scenario: ScenarioSpec,
    tests: Sequence[str],
    tries: Sequence[Json],
    *,
    is_sabotaged: bool,
) -> tuple[Status, str]:
    if not tests:
        return Status.UNMAPPED, "no test names it"
    for each in tries:
        if each["outcome"] == "failed":
            return Status.FAILED, each["reason"]
    if not tries:
        return Status.NOT_RUN, f"{tests[0]} was not run"
    passed = [each for each in tries if each["outcome"] == "passed"]
    if not passed:
        return Status.SKIPPED, tries[0]["reason"]
    verdicts = [_verdict(scenario, each, is_sabotaged=is_sabotaged) for each in passed]
    order = [*Status]
    return max(verdicts, key=lambda each: (order.index(each[0]), each[1] not in _CRASH_ALONE))


def _verdict(scenario: ScenarioSpec, attempt: Json, *, is_sabotaged: bool) -> tuple[Status, str]:
    """Return what one passed test shows about a scenario."""
    sabotage = attempt.get("sabotage") or {}
    is_noticed = sabotage.get("result") == "noticed"
    facts = attempt["facts"]
    lost = "; ".join(facts["lost"])
    blind = sabotage["why"] if sabotage.get("result") == "unnoticed" else ""
    lacking = lost or what_is_lacking(scenario, facts, is_noticed=is_noticed)
    if blind or lacking:
        return Status.HOLLOW, "; ".join(filter(None, (blind, lacking)))
    if is_noticed:
        unproven = []  # the Then steps in whose blocks no assertion has failed
        for each in sabotage["steps"]:
            if each["scenario"] == scenario.key and not each["by"]:
                why = f", {each['why']} stops it" if each["why"] else ""
                line = scenario.steps[each["step"]].line
                unproven.append(f"{each['text']} ({scenario.spec}:{line}{why})")
        if unproven:
            return Status.HOLLOW, (
                f"would stay green if the app answered wrongly: {'; '.join(unproven)}. "
                "next: assert an answer there, or write the test without Then blocks"
            )
        return Status.PROVEN, noticed_text(sabotage["kinds"])
    if is_sabotaged:
        why = f"its test sends no request, as {NO_REQUEST} allows, so no answer can be made wrong"
        if facts["requests"]:
            why = "no answer was made wrong"  # such as by a worker that was stopped
        return Status.ASSERTED, sabotage.get("why", why)
    return Status.ASSERTED, ""


def what_is_lacking(scenario: ScenarioSpec, facts: Json, *, is_noticed: bool = False) -> str:
    """Return what a test lacks to prove a scenario, "" if it lacks nothing.

    ``is_noticed`` says whether a broken answer has failed an assertion.
    """
    requests = facts["requests"]
    if NO_REQUEST not in scenario.tags and not requests:
        return "its test sends no request"
    is_prepared = facts["seeded"] or len(requests) > 1 or any(each["role"] for each in requests)
    if needs_seed(scenario) and not is_prepared:
        return (
            f"{counted(len(scenario.kinds('given')), 'Given step')}, "
            "and no data, login or earlier request prepares it"
        )
    thens = scenario.kinds("then")
    steps = {
        each["step"]: each["assertions"]
        for each in facts["steps"]
        if each["scenario"] == scenario.key
    }
    if any(number in steps for number in thens):
        for number in thens:
            if not steps.get(number):
                step = scenario.steps[number]
                return f"its test checks nothing for: {step} ({scenario.spec}:{step.line})"
        return ""
    after = [each for each in facts["assertions"] if each["after"] or not requests]
    # pytest reports no call of a mock, and no block of pytest.raises.
    is_seen = bool(facts["assertions"]) or not is_noticed
    if len(after) < max(len(thens), 1) and is_seen:
        return (
            f"{counted(len(thens), 'Then step')}, {counted(len(after), 'check')} after the answer"
        )
    return ""


def document(results: Results) -> Json:
    """Return the results as plain values, for JSON."""
    return {
        "version": 1,
        "partial": results.partial,
        "is_sabotaged": results.is_sabotaged,
        "totals": results.totals(),
        "scenarios": [
            {
                **asdict(judged.scenario),
                "key": judged.scenario.key,
                "revision": judged.scenario.revision,
                "row": dict(judged.scenario.row),
                "status": judged.status,
                "reason": judged.reason,
                "gap": judged.gap,
                "fails_strict": judged.is_open,
                "tests": [each["test"] for each in judged.tries],
            }
            for judged in results.scenarios
        ],
        "collected": results.tests,
        "tries": results.tries,
    }

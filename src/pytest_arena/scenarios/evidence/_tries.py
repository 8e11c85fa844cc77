"""What is a test worth for its scenario, after all of its tries?"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pytest_arena.errors import redact
from pytest_arena.scenarios.evidence._blocks import judged_steps
from pytest_arena.scenarios.evidence._document import JudgedTest, Status
from pytest_arena.scenarios.evidence._flags import Flag, others, rank, worst
from pytest_arena.scenarios.evidence._lacking import lacking
from pytest_arena.scenarios.evidence._remarks import remarks
from pytest_arena.scenarios.evidence._sabotaged import sabotaged

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pytest_arena.scenarios.evidence._facts import Facts, Mapping, Outcome, Try
    from pytest_arena.scenarios.specs import Scenario

__all__ = ["Asked", "judged_test"]

_ENDINGS: dict[Outcome, tuple[Status, str]] = {
    "failed": (Status.FAILED, "failed"),
    "unfinished": (Status.FAILED, "its process ended during the test"),
    "skipped": (Status.SKIPPED, "skipped"),
    "xfailed": (Status.XFAIL, "failed, as expected"),
    "xpassed": (Status.XPASS, "passed, though expected to fail"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is asked of one test, for one scenario."""

    scenario: Scenario
    mapping: Mapping
    evidence: Sequence[str]
    is_sabotaged: bool

    @property
    def tags(self) -> frozenset[str]:
        """Those of the scenario, and of the row that the test proves."""
        rows = [row.tags for row in self.scenario.rows if row.values == self.mapping.row]
        return frozenset(self.scenario.tags).union(*rows)

    @property
    def of_row(self) -> Scenario:
        """The scenario, with the row alone that the test proves: others' values are not asked."""
        mine = tuple(row for row in self.scenario.rows if row.values == self.mapping.row)
        return replace(self.scenario, rows=mine) if mine else self.scenario

    def flag(self, status: Status, reason: str) -> Flag:
        """Say something of the test as a whole."""
        return Flag(status, reason, self.mapping.place)


def judged_test(asked: Asked, unordered: Sequence[Try]) -> JudgedTest:
    """Judge one test by its tries, in whatever order they come.

    One that failed and passed when it was run again is FLAKY. Where several processes ran it, the
    worst of them counts.
    """
    tries = sorted(unordered, key=repr) if len(unordered) > 1 else unordered
    flags = _flags(asked, tries)
    verdict, shown = worst(flags), _shown(asked, tries)
    facts = shown.facts if shown else None
    return JudgedTest(
        test=asked.mapping.test,
        place=verdict.place or asked.mapping.place,
        status=verdict.status,
        reason=verdict.reason,
        row=asked.mapping.row,
        facts=facts,
        sabotages=shown.sabotages if shown else (),
        also=others((flag.status for flag in flags), verdict.status),
        warnings=remarks(asked.of_row, facts) if shown and facts and _passed(shown) else (),
        rev=asked.mapping.rev,
        source=asked.mapping.source,
    )


def _flags(asked: Asked, tries: Sequence[Try]) -> list[Flag]:
    if not tries:
        why = "deselected" if asked.mapping.is_deselected else "not run"
        return [asked.flag(Status.NOT_RUN, why)]
    failed = [flag for one in tries if _failed(one) for flag in _of_one(asked, one)]
    ended = [one for one in tries if not _failed(one)]
    flags = [flag for one in ended for flag in _of_one(asked, one)]
    # Each process that began the test has one last try, and reruns end with the first that is no
    # failure: fewer of those than processes means that one of them has failed for good.
    if len(ended) < max(1, sum(not one.is_rerun for one in tries)):
        return [*flags, *failed]
    if failed or any(one.is_rerun for one in ended):
        reasons = "; ".join(dict.fromkeys(flag.reason for flag in failed))
        told = f"passed only when run again, after: {reasons}" if reasons else "passed on a rerun"
        flags.append(asked.flag(Status.FLAKY, told))
    return flags


def _of_one(asked: Asked, one: Try) -> list[Flag]:
    if one.is_stub and _failed(one):
        return [Flag(Status.STUB, redact(one.reason) or "not written yet", one.place)]
    if not _passed(one):
        status, told = _ENDINGS[one.outcome]
        return [Flag(status, redact(one.reason) or told, one.place)]
    found = [*_of_facts(asked, one.facts), *_of_sabotages(asked, one)]
    if not found and asked.is_sabotaged and not one.sabotages:
        return [asked.flag(Status.UNKNOWN, "it was not run again with something broken")]
    return found


def _of_facts(asked: Asked, facts: Facts | None) -> list[Flag]:
    if facts is None:
        is_asked = bool(asked.evidence)
        return [asked.flag(Status.UNKNOWN, "nothing is known of what it did")] * is_asked
    tags, place = asked.tags, asked.mapping.place
    steps = judged_steps(asked.scenario, facts, asked.evidence, tags=tags)
    return [
        *lacking(asked.scenario, facts, asked.evidence, tags=tags, place=place),
        *(Flag(one.status, one.reason, place) for one in steps if one.status and one.reason),
    ]


def _of_sabotages(asked: Asked, one: Try) -> Iterable[Flag]:
    return sabotaged(one.sabotages, tags=asked.tags, place=asked.mapping.place)


def _shown(asked: Asked, tries: Sequence[Try]) -> Try | None:
    """The try that is shown: a last one, the worst, and of several alike always the same."""
    if len(tries) == 1:
        return tries[0]
    last = [one for one in tries if not _failed(one)]
    if len(last) < max(1, sum(not one.is_rerun for one in tries)):
        last = [one for one in tries if _failed(one)]
    return min(
        last, key=lambda one: (rank(worst(_of_one(asked, one)).status), repr(one)), default=None
    )


def _passed(one: Try) -> bool:
    return one.outcome == "passed"


def _failed(one: Try) -> bool:
    return one.outcome in {"failed", "unfinished"}

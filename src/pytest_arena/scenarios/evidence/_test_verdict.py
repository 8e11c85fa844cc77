"""What is a test worth for its scenario, after all of its tries?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_arena.errors import redact
from pytest_arena.scenarios.evidence._claim import StatusReason, other_statuses, worst
from pytest_arena.scenarios.evidence._document import JudgedTest, Status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_arena.scenarios.evidence._claim import Claim
    from pytest_arena.scenarios.evidence._document import Outcome, Try

__all__ = ["judged_test"]

_ENDINGS: dict[Outcome, tuple[Status, str]] = {
    "failed": (Status.FAILED, "failed"),
    "unfinished": (Status.FAILED, "its process ended during the test"),
    "skipped": (Status.SKIPPED, "skipped"),
    "xfailed": (Status.XFAIL, "failed, as expected"),
    "xpassed": (Status.XPASS, "passed, though expected to fail"),
}


def judged_test(claim: Claim, tries: Sequence[Try]) -> JudgedTest:
    """Judge one test by its tries, in whatever order they come.

    A test that failed and passed when it was run again is FLAKY. Where several processes ran it,
    the worst of them counts.
    """
    tries = sorted(tries, key=repr) if len(tries) > 1 else tries
    failed = [attempt for attempt in tries if _has_failed(attempt)]
    ended = [attempt for attempt in tries if not _has_failed(attempt)]
    # Each process that began the test has one last try, and reruns end with the first that is no
    # failure: fewer of those than processes means that one of them has failed for good.
    is_failed = len(ended) < max(1, sum(not attempt.is_rerun for attempt in tries))
    flags = _flags(claim, ended, failed, is_failed=is_failed)
    verdict = worst(flags)
    # Shown is a last try, the worst, and of several alike always the same.
    shown = min(
        failed if is_failed else ended,
        key=lambda attempt: (worst(_try_flags(claim, attempt)).status.rank, repr(attempt)),
        default=None,
    )
    facts = shown.facts if shown else None
    has_passed = shown is not None and shown.outcome == "passed"
    return JudgedTest(
        test=claim.mapping.test,
        place=verdict.place or claim.mapping.place,
        status=verdict.status,
        reason=verdict.reason,
        row=claim.mapping.row,
        facts=facts,
        sabotages=shown.sabotages if shown else (),
        also=other_statuses((flag.status for flag in flags), verdict.status),
        warnings=claim.warnings(facts) if facts and has_passed else (),
        rev=claim.mapping.rev,
        source=claim.mapping.source,
    )


def _has_failed(attempt: Try) -> bool:
    return attempt.outcome in {"failed", "unfinished"}


def _flags(
    claim: Claim, ended: Sequence[Try], failed: Sequence[Try], *, is_failed: bool
) -> list[StatusReason]:
    if not (ended or failed):
        why = "deselected" if claim.mapping.is_deselected else "not run"
        return [claim.flag(Status.NOT_RUN, why)]
    flags = [flag for attempt in ended for flag in _try_flags(claim, attempt)]
    failures = [flag for attempt in failed for flag in _try_flags(claim, attempt)]
    if is_failed:
        return [*flags, *failures]
    if failures or any(attempt.is_rerun for attempt in ended):
        reasons = "; ".join(dict.fromkeys(flag.reason for flag in failures))
        after = f"passed only when run again, after: {reasons}" if reasons else "passed on a rerun"
        flags.append(claim.flag(Status.FLAKY, after))
    return flags


def _try_flags(claim: Claim, attempt: Try) -> list[StatusReason]:
    if attempt.is_stub and _has_failed(attempt):
        return [
            StatusReason(Status.STUB, redact(attempt.reason) or "not written yet", attempt.place)
        ]
    if attempt.outcome != "passed":
        status, ending = _ENDINGS[attempt.outcome]
        return [StatusReason(status, redact(attempt.reason) or ending, attempt.place)]
    flags = [*claim.missing(attempt.facts), *claim.unnoticed(attempt.sabotages)]
    if not flags and claim.is_sabotaged and not attempt.sabotages:
        return [claim.flag(Status.UNKNOWN, "it was not run again with something broken")]
    return flags

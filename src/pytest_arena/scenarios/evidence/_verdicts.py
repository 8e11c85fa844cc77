"""What is a test worth for its scenario, the scenario by its tests, and is it a gap?"""

from collections.abc import Iterable, Iterator, Sequence

from pytest_arena.errors import redact
from pytest_arena.scenarios.evidence._claim import (
    Claim,
    StatusReason,
    other_statuses,
    worst,
)
from pytest_arena.scenarios.evidence._document import (
    FINE,
    PASSED,
    Document,
    JudgedScenario,
    JudgedStep,
    JudgedTest,
    Outcome,
    Standing,
    Status,
    Try,
)
from pytest_arena.scenarios.specs._specification import (
    Pairs,
    Row,
    ScenarioSpec,
    grouped_by,
)

# A test, after all of its tries.

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
        key=lambda attempt: (
            worst(_try_flags(claim, attempt)).status.rank,
            repr(attempt),
        ),
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
        after = (
            f"passed only when run again, after: {reasons}"
            if reasons
            else "passed on a rerun"
        )
        flags.append(claim.flag(Status.FLAKY, after))
    return flags


def _try_flags(claim: Claim, attempt: Try) -> list[StatusReason]:
    reason = redact(attempt.reason)
    if attempt.is_stub and _has_failed(attempt):
        return [StatusReason(Status.STUB, reason or "not written yet", attempt.place)]
    if attempt.outcome != "passed":
        status, ending = _ENDINGS[attempt.outcome]
        return [StatusReason(status, reason or ending, attempt.place)]
    flags = [*claim.missing(attempt.facts), *claim.unnoticed(attempt.sabotages)]
    if not flags and claim.is_sabotaged and not attempt.sabotages:
        return [
            claim.flag(Status.UNKNOWN, "it was not run again with something broken")
        ]
    return flags


# A scenario, by its tests and by what holds without them.

# In a run of some tests the others may map a scenario, run, or prove its other rows.
_NOT_OF_A_PART = {Status.UNMAPPED, Status.NOT_RUN, Status.PARTIAL}
_MOST_ROWS = 3  # as many as fit a line


def judged_scenario(
    scenario: ScenarioSpec,
    standing: Standing,
    tests: Sequence[JudgedTest],
    steps: tuple[JudgedStep, ...],
    *,
    is_partial: bool,
    is_list: bool = False,
) -> JudgedScenario:
    """Judge a scenario by its tests: FAILED if one has, PROVEN if one proves it, else the worst.

    Each row of a Scenario Outline with more than one asks for a test of its own: a parameter set,
    or ``row=`` in the marker. One test of the Outline as a whole, which may run through its rows
    or not, makes it PARTIAL. So does, in a list of tests that were not to run, a row that no test
    names.
    """
    flags = []
    if standing.malformed:
        flags.append(StatusReason(Status.MALFORMED, standing.malformed))
    if standing.drifted:
        flags.append(
            StatusReason(Status.DRIFTED, standing.drifted, standing.drifted_place)
        )
    if is_list and (lacking := _rows_without_test(scenario.rows, tests)):
        flags.append(StatusReason(Status.PARTIAL, lacking))
    else:
        flags += _test_flags(scenario, tests, standing)
    verdict = worst(flags)
    if standing.waived and verdict.status is not Status.PROVEN:
        verdict = StatusReason(Status.WAIVED, standing.waived)
    statuses = {flag.status for flag in flags}
    statuses |= {status for test in tests for status in (test.status, *test.also)}
    has_run = bool(tests) and all(test.status is not Status.NOT_RUN for test in tests)
    known = standing.known if verdict.status not in FINE else None
    return JudgedScenario(
        scenario=scenario,
        status=verdict.status,
        reason=verdict.reason,
        place=verdict.place,
        also=other_statuses(statuses, verdict.status),
        warnings=tuple(_warnings(verdict.status, standing, tests)),
        is_excused=known is not None and verdict.status.rank >= known.rank,
        tests=tuple(tests),
        steps=steps,
        standing=standing,
        is_judged=not is_partial or bool(standing.malformed) or has_run,
    )


def best_steps(
    scenario: ScenarioSpec, many: Iterable[tuple[JudgedStep, ...]]
) -> tuple[JudgedStep, ...]:
    """Return the best that is shown of each step, whatever the order; of none that nothing is."""
    nothing = (JudgedStep(),) * len(scenario.steps)
    return tuple(
        max(
            shown,
            key=lambda step: (step.status.rank if step.status else -1, step.reason),
        )
        for shown in zip(nothing, *many, strict=True)
    )


def row_verdict(judged: JudgedScenario, row: Row) -> tuple[Status, str]:
    """Return what one row of an Outline is worth by its tests, and why it is not proven.

    As the whole: FAILED if one has, PROVEN if one for this row proves it, else the worst. A test
    of the Outline as a whole proves a row where there is but one.
    """
    tests = [test for test in judged.tests if test.row in {(), row.values}]
    own = [test for test in tests if test.row or len(judged.scenario.rows) == 1]
    if not tests:
        return Status.UNMAPPED, "no test for this row"
    failed = _failed(tests)
    if own and not failed and not _alternatives(own):
        return Status.PROVEN, ""
    flag = _worst_test(failed or tests)
    if flag.status is Status.PROVEN:
        return (
            Status.PARTIAL,
            "its test is one for the whole outline, and for no row of it",
        )
    return flag.status, flag.reason


def gaps(document: Document) -> tuple[str, ...]:
    """Return a line for each reason why the gate would fail.

    In a partial run only what its tests can tell counts, and what is wrong in a specification.
    """
    return tuple(dict.fromkeys([*_problem_gaps(document), *_scenario_gaps(document)]))


def _problem_gaps(document: Document) -> Iterator[str]:
    if not document.scenarios:
        yield "no scenario was found"
    malformed = {it.scenario.key for it in document.scenarios if it.standing.malformed}
    for problem in document.problems:
        is_of_a_spec = problem.spec in document.specs
        is_gap_already = problem.scenario in malformed and is_of_a_spec
        if (
            problem.is_error
            and not is_gap_already
            and (is_of_a_spec or not document.partial)
        ):
            yield f"{problem}"


def _scenario_gaps(document: Document) -> Iterator[str]:
    exempt = set(FINE)
    if document.partial:
        exempt |= _NOT_OF_A_PART
    if document.is_list:
        exempt.add(Status.NOT_RUN)
    for judged in document.scenarios:
        scenario, standing, status = (
            judged.scenario,
            judged.standing,
            judged.status.value,
        )
        if not judged.is_judged:
            continue
        if judged.status in FINE and standing.known:
            place = standing.known_place or "the baseline"
            now = f"{scenario.key} is {status} ({scenario.place})"
            yield f"{place}: {standing.known.value} no longer: {now}, so remove this line"
        elif judged.status not in exempt and not judged.is_excused:
            place = f" ({judged.place})" if judged.place else ""
            yield f"{scenario.place}: {status}: {scenario.name}: {judged.reason}{place}"


def _test_flags(
    scenario: ScenarioSpec, tests: Sequence[JudgedTest], standing: Standing
) -> list[StatusReason]:
    if not tests:
        over = f"no test names it, and its waiver has run out ({standing.expired})"
        return [
            StatusReason(
                Status.UNMAPPED, over if standing.expired else "no test names it"
            )
        ]
    return (
        _row_flags(scenario.rows, tests)
        if len(scenario.rows) > 1
        else _alternatives(tests)
    )


def _failed(tests: Sequence[JudgedTest]) -> list[JudgedTest]:
    return [test for test in tests if test.status is Status.FAILED]


def _alternatives(tests: Sequence[JudgedTest]) -> list[StatusReason]:
    """The flag that counts of tests which all prove the same: none if it is proven."""
    failed = _failed(tests)
    if not failed and any(test.status is Status.PROVEN for test in tests):
        return []
    return [_worst_test(failed or tests)]


def _worst_test(tests: Sequence[JudgedTest]) -> StatusReason:
    """The worst, and of several alike always the same one."""
    test = min(
        tests, key=lambda test: (test.status.rank, test.place, test.test, test.row)
    )
    return StatusReason(test.status, test.reason, test.place)


def _row_flags(rows: Sequence[Row], tests: Sequence[JudgedTest]) -> list[StatusReason]:
    by_row = grouped_by(tests, lambda test: test.row)
    own = {row.values: by_row.pop(row.values, []) for row in rows}
    lacking = [
        values for values, of_row in own.items() if not of_row or _alternatives(of_row)
    ]
    whole = [test for of_row in by_row.values() for test in of_row]
    failed = _failed(tests)
    if failed or not lacking:
        return [_worst_test(failed)] if failed else []
    flags = [
        flag
        for group in (whole, *own.values())
        if group
        for flag in _alternatives(group)
    ]
    if not all(own.values()):
        reason = f"{len(own) - len(lacking)} of {len(own)} rows proven, not: {_some_rows(lacking)}"
        hint = (
            " (a test of the whole Outline proves no row: row=, or parametrize)"
            if whole
            else ""
        )
        flags.append(StatusReason(Status.PARTIAL, reason + hint))
    return flags


def _rows_without_test(rows: Sequence[Row], tests: Sequence[JudgedTest]) -> str:
    named = {test.row for test in tests}
    lacking = [row.values for row in rows if row.values not in named]
    if len(rows) <= 1 or not named or not lacking:
        return ""
    return f"{len(rows) - len(lacking)} of {len(rows)} rows have a test, not: {_some_rows(lacking)}"


def _some_rows(rows: Sequence[Pairs]) -> str:
    shown = [
        ", ".join(f"{name}={value}" for name, value in row) for row in sorted(rows)
    ]
    more = f" and {len(shown) - _MOST_ROWS} more" * (len(shown) > _MOST_ROWS)
    return f"{' | '.join(shown[:_MOST_ROWS])}{more}"


def _warnings(
    status: Status, standing: Standing, tests: Sequence[JudgedTest]
) -> Iterator[str]:
    yield from standing.warnings
    if standing.waived and status is Status.PROVEN:
        yield f"proven: its waiver is not needed any more ({standing.waived})"
    if standing.known and status not in FINE and status.rank > standing.known.rank:
        yield f"better than the baseline says: {standing.known.value}"
    # What no test of it did: another test may have done what one did not.
    passed = [test.warnings for test in tests if test.status in PASSED]
    for text in dict.fromkeys(sum(passed, ())):
        if all(text in warnings for warnings in passed):
            yield text

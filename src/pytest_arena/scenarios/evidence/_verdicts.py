"""Judges one test and one scenario."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from pytest_arena.errors import redact
from pytest_arena.scenarios.evidence._claim import (
    Claim,
    StatusReason,
    other_statuses,
    worst,
)
from pytest_arena.scenarios.evidence._document import (
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
    row_text,
)

_ENDINGS: dict[Outcome, tuple[Status, str]] = {
    "failed": (Status.FAILED, "failed"),
    "unfinished": (Status.FAILED, "its process ended during the test"),
    "skipped": (Status.SKIPPED, "skipped"),
    "xfailed": (Status.XFAIL, "failed, as expected"),
    "xpassed": (Status.XPASS, "passed, though expected to fail"),
}
NO_TEST = "no test names it"
"""The reason of a scenario without a test."""

# Tests that a partial run left out may change these statuses.
UNKNOWN_IN_PARTIAL_RUN = frozenset({Status.UNMAPPED, Status.NOT_RUN, Status.PARTIAL})
_MOST_ROWS = 3  # as many as fit into a line

# One test.


def judged_test(claim: Claim, tries: Sequence[Try]) -> JudgedTest:
    """Judge one test by its tries. The result does not depend on their order.

    A test that failed and passed in a rerun is FLAKY. If several processes ran the test, the worst
    result counts.
    """
    failed = []
    ended = []
    failures = []
    flags = []
    for attempt in sorted(tries, key=repr):
        try_flags = _try_flags(claim, attempt)
        if attempt.has_failed:
            failed.append((attempt, try_flags))
            failures += try_flags
        else:
            ended.append((attempt, try_flags))
            flags += try_flags
    # Each process makes one first try, and reruns the test until its first success. With fewer
    # successes than processes, all tries of one process have failed.
    processes = sum(not attempt.is_rerun for attempt in tries)
    is_failed = len(ended) < max(1, processes)
    if not tries:
        why = "not run"
        if claim.mapping.is_deselected:
            why = "deselected"
        flags.append(claim.flag(Status.NOT_RUN, why))
    elif is_failed:
        flags += failures
    elif failures:
        reasons = "; ".join(dict.fromkeys(flag.reason for flag in failures))
        flaky = f"passed only in a rerun, after: {reasons}"
        flags.append(claim.flag(Status.FLAKY, flaky))
    elif any(attempt.is_rerun for attempt in tries):
        flags.append(claim.flag(Status.FLAKY, "passed in a rerun"))
    verdict = worst(flags)
    judged = JudgedTest(
        test=claim.mapping.test,
        place=verdict.place or claim.mapping.place,
        status=verdict.status,
        reason=verdict.reason,
        row=claim.mapping.row,
        also=other_statuses((flag.status for flag in flags), verdict.status),
    )
    if not tries:
        return judged
    shown, _ = min(
        failed if is_failed else ended,
        key=lambda judged_try: worst(judged_try[1]).status.rank,
    )
    warnings: tuple[str, ...] = ()
    if shown.outcome == "passed" and shown.facts:
        warnings = claim.warnings(shown.facts)
    return replace(
        judged, facts=shown.facts, sabotages=shown.sabotages, warnings=warnings
    )


def _try_flags(claim: Claim, attempt: Try) -> list[StatusReason]:
    reason = redact(attempt.reason)
    if attempt.is_stub and attempt.has_failed:
        return [StatusReason(Status.STUB, reason or "not written yet", attempt.place)]
    if attempt.outcome != "passed":
        status, ending = _ENDINGS[attempt.outcome]
        return [StatusReason(status, reason or ending, attempt.place)]
    flags = claim.missing(attempt.facts)
    flags += claim.unnoticed(attempt.sabotages)
    if not flags and claim.is_sabotaged and not attempt.sabotages:
        untried = "it was not run again under sabotage"
        return [claim.flag(Status.UNKNOWN, untried)]
    return flags


# One scenario.


def judged_scenario(
    scenario: ScenarioSpec,
    standing: Standing,
    tests: Sequence[JudgedTest],
    steps: tuple[JudgedStep, ...],
    *,
    is_partial: bool,
    is_list: bool = False,
    without_test: str = NO_TEST,
) -> JudgedScenario:
    """Judge a scenario by its tests.

    It is FAILED if a test failed, PROVEN if a test proves it, and otherwise has the worst status.
    Each row of a Scenario Outline with several rows needs a test: a parameter set, or ``row=`` in
    the marker. A test of the whole Outline makes the scenario PARTIAL. In a list of tests, a row
    without a test makes it PARTIAL.
    """
    flags = []
    if standing.malformed:
        flags.append(StatusReason(Status.MALFORMED, standing.malformed))
    if standing.drifted:
        flags.append(StatusReason(Status.DRIFTED, standing.drifted))
    untested_rows = ""
    if is_list:
        untested_rows = _rows_without_test(scenario.rows, tests)
    if untested_rows:
        flags.append(StatusReason(Status.PARTIAL, untested_rows))
    elif not tests:
        flags.append(
            StatusReason(Status.UNMAPPED, _why_unmapped(standing, without_test))
        )
    elif len(scenario.rows) > 1:
        flags += _row_flags(scenario.rows, tests)
    else:
        flags += _alternatives(tests)
    verdict = worst(flags)
    is_proven = verdict.status is Status.PROVEN
    if standing.is_gap_over and not is_proven:
        verdict = replace(
            verdict, reason=f"{verdict.reason} (its {standing.gap} is over)"
        )
    statuses = {flag.status for flag in flags}
    for test in tests:
        statuses |= {test.status, *test.also}
    has_run = bool(tests) and Status.NOT_RUN not in {test.status for test in tests}
    return JudgedScenario(
        scenario=scenario,
        status=verdict.status,
        reason=verdict.reason,
        place=verdict.place,
        also=other_statuses(statuses, verdict.status),
        warnings=tuple(_warnings(verdict.status, standing, tests)),
        is_excused=bool(standing.gap) and not standing.is_gap_over and not is_proven,
        tests=tuple(tests),
        steps=steps,
        standing=standing,
        is_judged=not is_partial or bool(standing.malformed) or has_run,
    )


def _why_unmapped(standing: Standing, without_test: str) -> str:
    if standing.misfit:
        return f"no test has the values of a row: {standing.misfit}"
    return without_test


def best_steps(
    scenario: ScenarioSpec, steps_of_tests: Iterable[tuple[JudgedStep, ...]]
) -> tuple[JudgedStep, ...]:
    """Return the best verdict of several tests on each step."""
    best = [JudgedStep()] * len(scenario.steps)
    for steps in steps_of_tests:
        for number, step in enumerate(steps):
            if _step_order(step) > _step_order(best[number]):
                best[number] = step
    return tuple(best)


def _step_order(step: JudgedStep) -> tuple[int, str]:
    rank = step.status.rank if step.status is not None else -1
    return rank, step.reason


def row_verdict(judged: JudgedScenario, row: Row) -> tuple[Status, str]:
    """Return the status of one row of an Outline by its tests, and why it is not proven.

    The row is FAILED if a test failed, PROVEN if a test of this row proves it, and otherwise has
    the worst status. A test of the whole Outline proves a row only if the Outline has no other.
    """
    tests = [test for test in judged.tests if test.row in {(), row.values}]
    if not tests:
        return Status.UNMAPPED, "no test for this row"
    is_only_row = len(judged.scenario.rows) == 1
    own = [test for test in tests if test.row or is_only_row]
    failed = _failed(tests)
    if own and not failed and not _alternatives(own):
        return Status.PROVEN, ""
    flag = _worst_test(failed or tests)
    if flag.status is Status.PROVEN:
        return Status.PARTIAL, "its test names the whole outline, but none of its rows"
    return flag.status, flag.reason


def _failed(tests: Sequence[JudgedTest]) -> list[JudgedTest]:
    return [test for test in tests if test.status is Status.FAILED]


def _alternatives(tests: Sequence[JudgedTest]) -> list[StatusReason]:
    """Return the flag of tests of which one must prove. Empty without tests, or if one proves."""
    failed = _failed(tests)
    if not tests:
        return []
    if not failed and any(test.status is Status.PROVEN for test in tests):
        return []
    return [_worst_test(failed or tests)]


def _worst_test(tests: Sequence[JudgedTest]) -> StatusReason:
    """Return the flag of the worst test. Of equal tests, take the first by place and name."""
    test = min(
        tests, key=lambda test: (test.status.rank, test.place, test.test, test.row)
    )
    return StatusReason(test.status, test.reason, test.place)


def _row_flags(
    rows: Sequence[Row],
    tests: Sequence[JudgedTest],
) -> list[StatusReason]:
    failed = _failed(tests)
    if failed:
        return [_worst_test(failed)]
    tests_by_row = grouped_by(tests, lambda test: test.row)
    own = {row.values: tests_by_row[row.values] for row in rows}
    whole = []
    for values, row_tests in tests_by_row.items():
        if values not in own:
            whole += row_tests
    flags = _alternatives(whole)
    unproven = []
    flags_of_rows = []
    for values, row_tests in own.items():
        row_flags = _alternatives(row_tests)
        flags_of_rows += [(flag, values) for flag in row_flags]
        if row_flags or not row_tests:
            unproven.append(values)
    if not unproven:
        return []
    flags += _with_rows(flags_of_rows, len(own))
    if not all(own.values()):
        proven = len(own) - len(unproven)
        reason = (
            f"{proven} of {len(own)} rows are proven, but not: {_some_rows(unproven)}"
        )
        if whole:
            reason += " (a test of the whole Outline proves no row, so use row= or parametrize)"
        flags.append(StatusReason(Status.PARTIAL, reason))
    return flags


def _with_rows(
    flags: Sequence[tuple[StatusReason, Pairs]], count: int
) -> Iterator[StatusReason]:
    """Yield each flag once, with its rows unless it is about all rows."""
    for flag, pairs in grouped_by(flags, lambda pair: pair[0]).items():
        reason = flag.reason
        if len(pairs) < count:
            reason += f" ({_some_rows([row for _, row in pairs])})"
        yield replace(flag, reason=reason)


def _rows_without_test(rows: Sequence[Row], tests: Sequence[JudgedTest]) -> str:
    """Return a text about the rows without a test. "" if no test names a row, or for one row."""
    named = {test.row for test in tests}
    untested = [row.values for row in rows if row.values not in named]
    if not named or len(rows) <= 1 or not untested:
        return ""
    tested = len(rows) - len(untested)
    return f"{tested} of {len(rows)} rows have a test, but not: {_some_rows(untested)}"


def _some_rows(rows: Sequence[Pairs]) -> str:
    texts = [row_text(row) for row in sorted(rows)]
    shown = " | ".join(texts[:_MOST_ROWS])
    more = len(texts) - _MOST_ROWS
    if more > 0:
        return f"{shown} and {more} more"
    return shown


def _warnings(
    status: Status,
    standing: Standing,
    tests: Sequence[JudgedTest],
) -> Iterator[str]:
    yield from standing.warnings
    if standing.gap and status is Status.PROVEN:
        yield f"it is proven, so remove its {standing.gap}"
    for test in tests:
        is_silent = test.status in {Status.PROVEN, Status.NOT_RUN}
        if status is Status.PROVEN and not is_silent:
            verdict = f"{test.test} is {test.status.value}"
            yield f"{verdict}, but another test proves the scenario: {test.reason}"
    # Show a warning of a row or a scenario only if each of its passed tests has it.
    passed = [test for test in tests if test.status in PASSED]
    shown: dict[str, None] = {}
    for test in passed:
        others = [
            other for other in passed if not test.row or other.row in {(), test.row}
        ]
        for text in test.warnings:
            if all(text in other.warnings for other in others):
                shown[text] = None
    yield from shown


# The gate.


def gaps(document: Document) -> tuple[str, ...]:
    """Return a line for each reason why a strict run fails.

    In a partial run, only verdicts on tests that ran and errors in specifications count.
    """
    return tuple(dict.fromkeys([*_problem_gaps(document), *_scenario_gaps(document)]))


def _problem_gaps(document: Document) -> Iterator[str]:
    if not document.scenarios:
        yield "no scenario was found"
    malformed = {
        judged.scenario.key
        for judged in document.scenarios
        if judged.standing.malformed
    }
    for problem in document.problems:
        is_in_spec = problem.spec in document.specs
        if not problem.is_error or (document.partial and not is_in_spec):
            continue
        if not is_in_spec or problem.scenario not in malformed:
            yield str(problem)


def _scenario_gaps(document: Document) -> Iterator[str]:
    exempt = {Status.PROVEN}
    if document.partial:
        exempt |= UNKNOWN_IN_PARTIAL_RUN
    if document.is_list:
        exempt.add(Status.NOT_RUN)
    for judged in document.scenarios:
        if not judged.is_judged:
            continue
        scenario = judged.scenario
        if judged.status not in exempt and not judged.is_excused:
            status = judged.status.value
            gap = f"{scenario.place}: {status}: {scenario.name}: {judged.reason}"
            if judged.place:
                gap += f" ({judged.place})"
            yield gap

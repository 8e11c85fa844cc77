"""Writes the lines for a terminal."""

import shlex
from collections.abc import Iterator, Sequence
from itertools import groupby, zip_longest

from pytest_arena._values import counted
from pytest_arena.scenarios.evidence._document import (
    Asserted,
    Counts,
    Document,
    Facts,
    JudgedScenario,
    JudgedTest,
    Requested,
    Status,
)
from pytest_arena.scenarios.evidence._verdicts import UNKNOWN_IN_PARTIAL_RUN
from pytest_arena.scenarios.outputs import _phrases as phrases
from pytest_arena.scenarios.specs._specification import (
    Pairs,
    ScenarioSpec,
    Specification,
    row_text,
)

# The largest widths of columns. A wide terminal also shows the beginning of the reason.
_PLACE = 40
_STATUS = 9
_NAME = 48
_SABOTAGE_PAGE = "the page Sabotage of pytest-arena's documentation"
_QUIETER = -1  # the verbosity of -q
_NEXT = {
    Status.MALFORMED: "correct the specification: {place}",
    Status.UNMAPPED: "write a test (`arena scenarios stubs` writes a stub), or mark one:\n{marker}",
    Status.FAILED: "correct the test or the app",
    Status.DRIFTED: "check that the test fits the steps, then: arena scenarios accept {key}",
    Status.STUB: "write the test, which is still a stub",
    Status.XFAIL: "make the test pass, and remove its xfail",
    Status.XPASS: "remove its xfail, because the test passes",
    Status.SKIPPED: "remove the skip, or add a gap to its line in scenarios.lock",
    Status.NOT_RUN: "run its tests with --scenarios-out=json:scenarios.json. Then\n"
    "arena scenarios explain {key} --json scenarios.json   shows what they did",
    Status.FLAKY: "find out why its test does not always pass",
    Status.HOLLOW: "add what the test lacks: seed, request, then assert. Or tag the scenario:\n"
    "@no-seed if each test finds what its Given says, @no-request if it needs no request",
    Status.UNKNOWN: "remove the cause named above, so that pytest-arena can record the evidence",
    Status.PARTIAL: "prove each row: parametrize the test by the columns, or mark it:\n"
    "{marker}",
    Status.PROVEN: "nothing. --scenarios-sabotage also checks that its tests can fail",
}

# After a run.


def lines(
    document: Document,
    *,
    verbosity: int = 0,
    strict: str = "",
    shards: Sequence[str] = (),
) -> list[str]:
    """Return problems, a line for each scenario that is not proven, gaps, totals, next steps.

    ``-q`` (a verbosity of -1) leaves out the scenarios that a strict run accepts. ``-qq`` shows
    the totals only, unless gaps fail the run. ``-v`` adds proven scenarios, tests and warnings.

    Args:
        document: the judged scenarios.
        verbosity: pytest's verbosity.
        strict: the option that makes gaps fail this run.
        shards: the merged files, if they are of partial runs.
    """
    totals = _totals_line(document, strict)
    if verbosity < _QUIETER and not (strict and document.gaps):
        if document.problems:
            problems = counted(len(document.problems), "problem")
            totals += f"; {problems} (shown without -qq)"
        return [totals]
    text = [*_reported_lines(document, verbosity)]
    count = len(document.scenarios)
    judged = phrases.judged_count(document)
    if document.partial and f" {count} of {count} " not in judged:
        text.append(f"partial run ({phrases.one_line(document.partial)}): {judged}")
    return [*text, totals, *_next_lines(document, shards)]


def _reported_lines(document: Document, verbosity: int) -> Iterator[str]:
    """Yield the problems, the scenarios and the gaps, each once."""
    shown = []
    for judged in document.scenarios:
        is_left_out = verbosity < 0 and judged.is_excused
        if verbosity > 0 or (phrases.is_open(judged, document) and not is_left_out):
            shown.append(judged)
    reasons = {judged.scenario.key: judged.reason for judged in shown}
    for problem in document.problems:
        if problem.what not in reasons.get(problem.scenario, ""):
            yield phrases.problem_line(problem)
    yield from _scenario_lines(shown, verbosity)
    for gap in phrases.unsaid_gaps(document):
        yield f"gap: {gap}"


def _scenario_lines(shown: list[JudgedScenario], verbosity: int) -> Iterator[str]:
    """Yield the scenarios below their headings. ``-q`` leaves out the headings."""
    longest = max((len(judged.scenario.place) for judged in shown), default=0)
    width = min(longest, _PLACE)
    indent = ""
    if verbosity >= 0:
        indent = "  "
    for title, same in phrases.grouped(shown).items():
        if verbosity >= 0:
            yield title
        for judged in same:
            place = judged.scenario.place.ljust(width)
            status = judged.status.value.ljust(_STATUS)
            name = phrases.middle_cut(phrases.one_line(judged.scenario.name), _NAME)
            reason = phrases.reason(judged)
            yield f"{indent}{place}  {status}  {name}  {reason}".rstrip()
            if verbosity > 0:
                yield from _details(judged)


def _details(judged: JudgedScenario) -> Iterator[str]:
    for test in judged.tests:
        line = f"      {test.status.value:<{_STATUS}}  {test.test}"
        if test.reason and len(judged.tests) > 1:
            line += f"  {phrases.one_line(test.reason)}"
        yield line
    for warning in judged.warnings:
        yield f"      warning: {phrases.one_line(warning)}"


def _totals_line(document: Document, strict: str) -> str:
    line = f"scenarios: {phrases.totals(document)}"
    warnings = sum(len(judged.warnings) for judged in document.scenarios)
    if warnings:
        line += f"; {counted(warnings, 'warning')}: -v"
    if document.gaps:
        line += f"; {counted(len(document.gaps), 'gap')}"
        if strict:
            line += f": this run fails ({strict})"
        else:
            line += ", on which --scenarios=strict would fail"
    return line


def _next_lines(
    document: Document,
    shards: Sequence[str],
) -> Iterator[str]:
    """Yield the distinct next steps that no reason names."""
    reported = [
        judged
        for judged in document.scenarios
        if phrases.is_open(judged, document) and not judged.is_excused
    ]
    statuses = {judged.status for judged in reported}
    # The tests of such a scenario may have run in a shard that was not merged.
    if shards and statuses & UNKNOWN_IN_PARTIAL_RUN:
        merged = f"{', '.join(shards)} were merged"
        if len(shards) == 1:
            merged = f"only {shards[0]} was merged"
        yield f"next: name the JSON file of each CI job: {merged}"
    if Status.UNMAPPED in statuses:
        yield "next: arena scenarios stubs --write tests   writes the missing tests"
    text = phrases.stays_green(reported)
    if text:
        yield f"next: {text}. See {_SABOTAGE_PAGE}"
    if any(phrases.lacks_assertion(judged) for judged in reported):
        yield f"next: {phrases.WHAT_TO_ASSERT}"


# One scenario.


def explained(
    judged: JudgedScenario,
    *,
    marker: str,
    is_list: bool = False,
) -> list[str]:
    """Return the steps of a scenario, the verdict, the facts of each test, the next step.

    Args:
        judged: the scenario.
        marker: the decorator that maps a test to it.
        is_list: whether the tests were only listed.
    """
    scenario = judged.scenario
    tests = judged.tests
    verdict = _with_reason(judged.status, phrases.reason(judged))
    if is_list and judged.status is Status.NOT_RUN:
        count = counted(len(tests), "test")
        verdict = (
            f"has {count}. This command runs no test. "
            "--json FILE shows what they did in a run"
        )
    text = [
        phrases.one_line(scenario.name),
        f"  {scenario.place}  {phrases.heading(scenario)}",
        f"  key   {scenario.key}",
        f"  rev   {scenario.rev}",
    ]
    if scenario.tags:
        text.append(f"  tags  {' '.join(scenario.tags)}")
    text += ["", verdict, "", *_step_lines(judged)]
    # The tests of the whole Outline precede the tests of its rows.
    order = {row.values: number for number, row in enumerate(scenario.rows)}
    for test in sorted(tests, key=lambda test: order.get(test.row, -1)):
        text += _test_lines(test)
    if judged.warnings:
        text.append("")
    text += [f"warning: {phrases.one_line(warning)}" for warning in judged.warnings]
    hint = phrases.stays_green([judged]) or _NEXT[judged.status]
    if phrases.lacks_assertion(judged):
        hint = phrases.WHAT_TO_ASSERT
    if judged.status is Status.PROVEN and any(test.sabotages for test in tests):
        hint = "nothing. Its tests were run under sabotage too"
    misfit = judged.standing.misfit
    if misfit and judged.status in {Status.UNMAPPED, Status.PARTIAL}:
        hint = "give that test the values of a row"
    hint = hint.format(
        key=shlex.quote(scenario.key),
        place=scenario.place,
        marker=marker,
    )
    hint = hint.replace("\n", "\n      ")
    return [*text, "", *f"next: {hint}".split("\n")]


def _with_reason(status: Status, reason: str) -> str:
    if reason:
        return f"{status.value}: {reason}"
    return status.value


def _step_lines(judged: JudgedScenario) -> Iterator[str]:
    for step, verdict in zip_longest(judged.scenario.steps, judged.steps):
        line = f"  {step.line:>5}  {phrases.one_line(str(step))}"
        if verdict and verdict.status:
            line += f"  {verdict.status.value}"
            if verdict.reason:
                line += f" ({verdict.reason})"
        yield line
    for row in judged.scenario.rows:
        yield f"  {row.line:>5}  {_row(row.values)}"


def _row(values: Pairs) -> str:
    return phrases.one_line(row_text(values))


def _test_lines(test: JudgedTest) -> Iterator[str]:
    yield ""
    if test.row:
        yield f"{test.test}  [{_row(test.row)}]"
    else:
        yield test.test
    verdict = _with_reason(test.status, phrases.one_line(test.reason))
    yield f"  {test.place}  {verdict}"
    if test.facts:
        for name, text in _facts(test.facts):
            yield f"  {name:<9}  {text}"
    for sabotage in test.sabotages:
        line = f"  sabotage   {sabotage.kind}  {sabotage.result}"
        if sabotage.why:
            line += f": {phrases.one_line(sabotage.why)}"
        yield line


def _facts(facts: Facts) -> Iterator[tuple[str, str]]:
    if facts.seeded is None:
        yield "seeded", "not known"
    else:
        yield "seeded", _counts(facts.seeded)
    for request in facts.requests:
        yield "requested", _request(request)
    if not facts.requests:
        yield "requested", "nothing"
    for asserted in facts.asserted:
        yield "asserted", _assertion(asserted, len(facts.requests))
    if not facts.asserted:
        yield "asserted", "nothing"
    for name, why in facts.off:
        yield "off", f"{name}: {why}"


def _assertion(asserted: Asserted, requests: int) -> str:
    if not requests:
        after = "no request"
    elif not asserted.after:
        after = "before any request"
    elif asserted.after >= requests:
        after = "after the last request"
    else:
        after = f"after request {asserted.after} of {requests}"
    details = [asserted.place, after]
    if asserted.times > 1:
        details.append(f"{asserted.times} times")
    if asserted.is_constant:
        details.append("which cannot fail")
    return f"{phrases.one_line(asserted.text)}  ({', '.join(details)})"


def _counts(counts: Counts) -> str:
    return ", ".join(f"{table} {number}" for table, number in counts) or "nothing"


def _request(request: Requested) -> str:
    status = "no answer" if request.status is None else str(request.status)
    parts = [phrases.one_line(f"{request.method} {request.path}  {status}")]
    if request.route not in {"", request.path}:
        parts.append(f"route {request.route}")
    if request.role:
        parts.append(f"as {request.role}")
    if request.changed:
        parts.append(f"changed {_counts(request.changed)}")
    if request.read:
        parts.append(f"read {', '.join(request.read)}")
    return ", ".join(parts)


# Specifications.


def listing(specification: Specification) -> list[str]:
    """Return the scenarios below their features, the problems, and the totals."""
    scenarios = specification.scenarios
    problems = specification.problems
    width = max((len(scenario.place) for scenario in scenarios), default=0)
    text = []
    for (_, feature), same in groupby(
        scenarios, key=lambda scenario: (scenario.spec, scenario.feature)
    ):
        text.append(phrases.one_line(f"Feature: {feature}"))
        text += [_listed(scenario, width) for scenario in same]
    text += map(phrases.problem_line, problems)
    # The steps of an Outline count once, not for each row.
    steps = sum(len(scenario.steps) for scenario in scenarios)
    counts = [
        counted(len(specification.features), "feature"),
        counted(len(scenarios), "scenario"),
        counted(steps, "step"),
    ]
    files = counted(len(specification.files), "file")
    total = f"{', '.join(counts)} in {files}"
    if problems:
        total += f"; {counted(len(problems), 'problem')}"
    return [*text, total]


def _listed(scenario: ScenarioSpec, width: int) -> str:
    counts = counted(len(scenario.steps), "step")
    if scenario.is_outline:
        counts += f", {counted(len(scenario.rows), 'row')}"
    rules = []
    if scenario.requirement:
        rules.append(scenario.requirement)
    if scenario.rule:
        rules.append(f"rule {scenario.rule}")
    name = scenario.name
    if rules:
        name += f"  [{', '.join(rules)}]"
    return f"  {scenario.place:<{width}}  {counts}  {phrases.one_line(name)}"

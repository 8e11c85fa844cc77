"""Which lines does a person read: after a run, of one scenario, of what the specifications say?"""

import shlex
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from pytest_arena.scenarios.evidence._document import (
    Document,
    Facts,
    JudgedScenario,
    JudgedTest,
    Requested,
    Status,
)
from pytest_arena.scenarios.outputs import _phrases as phrases
from pytest_arena.scenarios.specs._specification import Specification

# The reason, which says most, begins where a wide terminal still shows it.
_PLACE, _STATUS, _NAME = 40, 9, 48
_RUN = "pytest --scenario={key}"
_NEXT = {
    Status.MALFORMED: "mend the specification: {place}",
    Status.UNMAPPED: "write its test, which `arena scenarios stubs` begins, or mark one:\n{marker}",
    Status.FAILED: f"{_RUN}   runs its tests alone",
    Status.DRIFTED: "look at the steps and at the test, then: arena scenarios accept {key}",
    Status.STUB: "write the test; it only begins",
    Status.XFAIL: "let the test pass, and take its xfail away",
    Status.XPASS: "it passes: take its xfail away",
    Status.SKIPPED: "take the skip away, or say until when it is waived: arena_scenario_waive",
    Status.NOT_RUN: f"{_RUN}   runs its tests; with --scenarios-out=json:scenarios.json,\n"
    "arena scenarios explain {key} --json scenarios.json   shows what they did",
    Status.FLAKY: "find out why its test passes at times only",
    Status.HOLLOW: "let the test itself do what is missing: seed, request, then assert; or tag\n"
    "it: @no-seed where all tests find what its Given says, @no-request where none is made",
    Status.UNKNOWN: "see that the instrument works which is named above",
    Status.PARTIAL: "have each row proven: parametrize the test by the columns, or mark it:\n"
    "{marker}",
    Status.PROVEN: f"nothing; {_RUN} --scenarios-sabotage   tries it harder",
    Status.WAIVED: "its waiver will run out",
}


def lines(
    document: Document,
    *,
    verbosity: int = 0,
    strict: str = "",
    specs: Sequence[str] = (),
) -> list[str]:
    """Return problems, a line for each scenario that is not proven, gaps, totals, next steps.

    With ``-q`` (a verbosity of -1) only what a strict run does not let pass, which part of the
    tests was run, the totals and the next steps; with ``-qq`` the totals alone, unless the run
    fails by its gaps; with ``-v`` proven ones too, with their tests, why these prove nothing, and
    warnings.

    Args:
        document: what was judged.
        verbosity: as pytest counts it.
        strict: the option by which gaps fail this run.
        specs: the specifications that a command has to name, as no configuration does.
    """
    shown = [
        it
        for it in document.scenarios
        if verbosity > 0 or phrases.is_open(it, document)
    ]
    gaps = [f"gap: {gap}" for gap in phrases.unsaid_gaps(document)]
    totals, further = _totals_line(document, strict), _next_lines(document, specs)
    end = [*_partial_lines(document), totals, *further]
    if verbosity < -1 and not (strict and document.gaps):
        return [totals]
    if verbosity < 0:
        shown = [
            it for it in shown if not it.is_excused and it.status is not Status.WAIVED
        ]
        if not document.gaps:
            return end
    problems = _problem_lines(document, shown, verbosity)
    return [*problems, *_scenario_lines(shown, verbosity), *gaps, *end]


def _problem_lines(
    document: Document, shown: list[JudgedScenario], verbosity: int
) -> Iterator[str]:
    """Those that the line of a scenario does not say; with ``-q`` errors alone."""
    reasons = {judged.scenario.key: judged.reason for judged in shown}
    for problem in document.problems:
        is_told = problem.is_error or verbosity >= 0
        if is_told and problem.what not in reasons.get(problem.scenario, ""):
            yield phrases.problem_line(problem)


def _scenario_lines(shown: list[JudgedScenario], verbosity: int) -> Iterator[str]:
    """Below their headings, which ``-q`` leaves out."""
    width = min(
        max((len(judged.scenario.place) for judged in shown), default=0), _PLACE
    )
    for title, same in phrases.grouped(shown).items():
        yield from [title] * (verbosity >= 0)
        for judged in same:
            name = phrases.middle_cut(phrases.one_line(judged.scenario.name), _NAME)
            line = f"{judged.scenario.place:<{width}}  {judged.status.value:<{_STATUS}}  {name}"
            line = f"{line}  {phrases.reason(judged)}".rstrip()
            yield f"  {line}" if verbosity >= 0 else line
            yield from _details(judged) if verbosity > 0 else ()


def _details(judged: JudgedScenario) -> Iterator[str]:
    for test in judged.tests:
        why = f"  {phrases.one_line(test.reason)}" * (
            len(judged.tests) > 1 and bool(test.reason)
        )
        yield f"      {test.status.value:<{_STATUS}}  {test.test}{why}"
    yield from (f"      warning: {phrases.one_line(text)}" for text in judged.warnings)


def _partial_lines(document: Document) -> Iterator[str]:
    whole, judged = len(document.scenarios), phrases.judged_count(document)
    # Where all were judged it is no news, and the reason is long.
    if document.partial and judged != f"{whole} of {whole} judged":
        yield f"partial run ({phrases.one_line(document.partial)}): {judged}"


def _totals_line(document: Document, strict: str) -> str:
    count = len(document.gaps)
    fails = (
        f": this run fails ({strict})"
        if strict
        else ", on which --scenarios=strict would fail"
    )
    gaps = f"; {phrases.counted(count, 'gap')}{fails}" * bool(count)
    odd = sum(len(judged.warnings) for judged in document.scenarios)
    warnings = f"; {phrases.counted(odd, 'warning')}: -v" * bool(odd)
    return f"scenarios: {phrases.totals(document)}{warnings}{gaps}"


def _next_lines(document: Document, specs: Sequence[str]) -> Iterator[str]:
    """What a person does next, where that is not said by the reason: once, not at each line."""
    shown = [
        it
        for it in document.scenarios
        if phrases.is_open(it, document) and not it.is_excused
    ]
    if any(judged.status is Status.UNMAPPED for judged in shown):
        stubs = " ".join(["stubs", *map(shlex.quote, specs), "--write tests"])
        yield f"next: arena scenarios {stubs}   begins the lacking tests"
    if text := phrases.stays_green(shown):
        yield f"next: {text}; see docs/explanation/sabotage.md of pytest-arena"


def explained(
    judged: JudgedScenario, *, marker: str, is_list: bool = False
) -> list[str]:
    """Return the steps of a scenario, the verdict and why, what each test did, the next step.

    ``marker`` is the decorator that maps a test to it; of a list nothing is known but which tests
    there are.
    """
    scenario = judged.scenario
    key = shlex.quote(scenario.key)
    tags = [f"  tags  {' '.join(scenario.tags)}"] if scenario.tags else []
    verdict = ": ".join(filter(None, [judged.status.value, phrases.reason(judged)]))
    if is_list and judged.status is Status.NOT_RUN:
        has = f"has {phrases.counted(len(judged.tests), 'test')}"
        verdict = f"{has}; none was run to explain it, and --json FILE shows what they did in a run"
    hint = phrases.stays_green([judged]) or _NEXT[judged.status]
    if judged.status is Status.PROVEN and any(test.sabotages for test in judged.tests):
        hint = "nothing: it was tried with things broken, too"
    hint = hint.format(key=key, place=scenario.place, marker=marker)
    order = [row.values for row in scenario.rows]
    # As the rows stand in the table.
    tests = sorted(
        judged.tests, key=lambda it: order.index(it.row) if it.row in order else -1
    )
    return [
        phrases.one_line(scenario.name),
        f"  {scenario.place}  {phrases.heading(scenario)}",
        f"  key   {scenario.key}",
        f"  rev   {scenario.rev}",
        *tags,
        "",
        verdict,
        "",
        *_step_lines(judged),
        *(line for test in tests for line in _test_lines(test)),
        *([""] if judged.warnings else []),
        *(f"warning: {phrases.one_line(text)}" for text in judged.warnings),
        "",
        *(f"next: {hint}".replace("\n", "\n      ").splitlines()),
    ]


def _step_lines(judged: JudgedScenario) -> Iterator[str]:
    for number, step in enumerate(judged.scenario.steps):
        verdict = judged.steps[number] if number < len(judged.steps) else None
        status = f"  {verdict.status.value}" if verdict and verdict.status else ""
        why = f" ({verdict.reason})" if status and verdict and verdict.reason else ""
        yield f"  {step.line:>5}  {phrases.one_line(str(step))}{status}{why}"
    for row in judged.scenario.rows:
        yield f"  {row.line:>5}  {_row(row.values)}"


def _row(values: Iterable[tuple[str, str]]) -> str:
    return phrases.one_line(", ".join(f"{name}={value}" for name, value in values))


def _test_lines(test: JudgedTest) -> Iterator[str]:
    yield ""
    yield f"{test.test}{f'  [{_row(test.row)}]' * bool(test.row)}"
    verdict = ": ".join(
        filter(None, [test.status.value, phrases.one_line(test.reason)])
    )
    yield f"  {test.place}  {verdict}"
    if test.facts is not None:
        yield from (f"  {name:<9}  {what}" for name, what in _facts(test.facts))
    for sabotage in test.sabotages:
        why = f": {phrases.one_line(sabotage.why)}" * bool(sabotage.why)
        yield f"  sabotage   {sabotage.kind}  {sabotage.result}{why}"


def _facts(facts: Facts) -> Iterator[tuple[str, str]]:
    yield "seeded", "not known" if facts.seeded is None else _counts(facts.seeded)
    if not facts.requests:
        yield "requested", "nothing"
    for request in facts.requests:
        yield "requested", _request(request)
    if not facts.asserted:
        yield "asserted", "nothing"
    count = len(facts.requests)
    for asserted in facts.asserted:
        after = f"after request {asserted.after} of {count}"
        if not count or not asserted.after:
            after = "before any request" if count else "no request"
        elif asserted.after >= count:
            after = "after the last request"
        times = f", {asserted.times} times" * (asserted.times > 1)
        constant = ", which cannot fail" * asserted.is_constant
        yield (
            "asserted",
            f"{phrases.one_line(asserted.text)}  ({asserted.place}, {after}{times}{constant})",
        )
    for name, why in facts.off:
        yield "off", f"{name}: {why}"


def _counts(counts: tuple[tuple[str, int], ...]) -> str:
    return ", ".join(f"{table} {number}" for table, number in counts) or "nothing"


def _request(request: Requested) -> str:
    status = "no answer" if request.status is None else str(request.status)
    parts = [phrases.one_line(f"{request.method} {request.path}  {status}")]
    parts += [f"route {request.route}"] * (request.route not in {"", request.path})
    parts += [f"as {request.role}"] * bool(request.role)
    parts += [f"changed {_counts(request.changed)}"] if request.changed else []
    parts += [f"read {', '.join(request.read)}"] if request.read else []
    return ", ".join(parts)


def listing(specification: Specification) -> list[str]:
    """Return the scenarios below their features, the problems, and how many there are of each."""
    scenarios, problems = specification.scenarios, specification.problems
    width = max((len(scenario.place) for scenario in scenarios), default=0)
    text = []
    for (_, feature), same in groupby(scenarios, key=lambda it: (it.spec, it.feature)):
        text.append(phrases.one_line(f"Feature: {feature}"))
        for it in same:
            rows = f", {phrases.counted(len(it.rows), 'row')}" * it.is_outline
            under = ", ".join(
                filter(None, [it.requirement, f"rule {it.rule}" * bool(it.rule)])
            )
            name = phrases.one_line(f"{it.name}  [{under}]" if under else it.name)
            text.append(
                f"  {it.place:<{width}}  {phrases.counted(len(it.steps), 'step')}{rows}  {name}"
            )
    counts = (
        phrases.counted(len(specification.features), "feature"),
        phrases.counted(len(scenarios), "scenario"),
        # An Outline's steps count once, however many rows there are.
        phrases.counted(sum(len(it.steps) for it in scenarios), "step"),
    )
    total = (
        f"{', '.join(counts)} in {phrases.counted(len(specification.files), 'file')}"
    )
    more = f"; {phrases.counted(len(problems), 'problem')}" * bool(problems)
    return [*text, *map(phrases.problem_line, problems), f"{total}{more}"]

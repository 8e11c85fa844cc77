"""What is known of one scenario, and what is to be done about it?"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from pytest_arena.scenarios.evidence import Status
from pytest_arena.scenarios.outputs._phrases import heading, one_line, reason, stays_green

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pytest_arena.scenarios.evidence import Facts, JudgedScenario, JudgedTest, Requested

__all__ = ["explained"]

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


def explained(one: JudgedScenario, *, marker: str, is_list: bool = False) -> list[str]:
    """Return the steps, the verdict and why, what each test did, and the next step.

    ``marker`` is the decorator that maps a test to it; of a list nothing is known but which tests
    there are.
    """
    verdict = _listed(one) if is_list and one.status is Status.NOT_RUN else _verdict(one)
    return [*_head(one), verdict, *_steps(one), *_tests(one), *_warnings(one), *_next(one, marker)]


def _listed(one: JudgedScenario) -> str:
    count = len(one.tests)
    has = f"has {count} test{'s' * (count != 1)}"
    return f"{has}; none was run to explain it, and --json FILE shows what they did in a run"


def _verdict(one: JudgedScenario) -> str:
    return ": ".join(filter(None, [one.status.value, reason(one)]))


def _head(one: JudgedScenario) -> Iterator[str]:
    scenario = one.scenario
    yield one_line(scenario.name)
    yield f"  {scenario.place}  {heading(scenario)}"
    yield f"  key   {scenario.key}"
    yield f"  rev   {scenario.rev}"
    if scenario.tags:
        yield f"  tags  {' '.join(scenario.tags)}"
    yield ""


def _steps(one: JudgedScenario) -> Iterator[str]:
    yield ""
    for number, step in enumerate(one.scenario.steps):
        judged = one.steps[number] if number < len(one.steps) else None
        status = judged.status.value if judged and judged.status else ""
        why = f" ({judged.reason})" if judged and judged.reason else ""
        yield f"  {step.line:>5}  {one_line(str(step))}{f'  {status}{why}' * bool(status)}"
    for row in one.scenario.rows:
        yield f"  {row.line:>5}  {_row(row.values)}"


def _row(values: Iterable[tuple[str, str]]) -> str:
    return one_line(", ".join(f"{name}={value}" for name, value in values))


def _tests(one: JudgedScenario) -> Iterator[str]:
    order = [row.values for row in one.scenario.rows]
    for test in sorted(one.tests, key=lambda test: _place_of(test.row, order)):
        row = f"  [{_row(test.row)}]" * bool(test.row)
        yield ""
        yield f"{test.test}{row}"
        verdict = ": ".join(filter(None, [test.status.value, one_line(test.reason)]))
        yield f"  {test.place}  {verdict}"
        yield from (f"  {name:<9}  {what}" for name, what in _did(test))


def _place_of(row: object, order: list[tuple[tuple[str, str], ...]]) -> int:
    """As the rows stand in the table."""
    return order.index(row) if row in order else -1


def _did(test: JudgedTest) -> Iterator[tuple[str, str]]:
    if test.facts is not None:
        yield from _facts(test.facts)
    for sabotage in test.sabotages:
        why = f": {one_line(sabotage.why)}" * bool(sabotage.why)
        yield "sabotage", f"{sabotage.kind}  {sabotage.result}{why}"


def _facts(facts: Facts) -> Iterator[tuple[str, str]]:
    yield "seeded", "not known" if facts.seeded is None else _counts(facts.seeded)
    if not facts.requests:
        yield "requested", "nothing"
    for request in facts.requests:
        yield "requested", _request(request)
    if not facts.asserted:
        yield "asserted", "nothing"
    for asserted in facts.asserted:
        times = f", {asserted.times} times" * (asserted.times > 1)
        constant = ", which cannot fail" * asserted.is_constant
        after = _after(asserted.after, len(facts.requests))
        yield "asserted", f"{one_line(asserted.text)}  ({asserted.place}, {after}{times}{constant})"
    for name, why in facts.off:
        yield "off", f"{name}: {why}"


def _after(ended: int, count: int) -> str:
    if not count:
        return "no request"
    if not ended:
        return "before any request"
    return "after the last request" if ended >= count else f"after request {ended} of {count}"


def _counts(counts: tuple[tuple[str, int], ...]) -> str:
    return ", ".join(f"{table} {number}" for table, number in counts) or "nothing"


def _request(request: Requested) -> str:
    status = "no answer" if request.status is None else str(request.status)
    told = [one_line(f"{request.method} {request.path}  {status}")]
    if request.route not in {"", request.path}:
        told.append(f"route {request.route}")
    if request.role:
        told.append(f"as {request.role}")
    if request.changed:
        told.append(f"changed {_counts(request.changed)}")
    if request.read:
        told.append(f"read {', '.join(request.read)}")
    return ", ".join(told)


def _warnings(one: JudgedScenario) -> Iterator[str]:
    if one.warnings:
        yield ""
        yield from (f"warning: {one_line(text)}" for text in one.warnings)


def _next(one: JudgedScenario, marker: str) -> Iterator[str]:
    key = shlex.quote(one.scenario.key)
    text = _next_text(one).format(key=key, place=one.scenario.place, marker=marker)
    first, *others = text.splitlines()
    yield ""
    yield f"next: {first}"
    yield from (f"      {line}" for line in others)


def _next_text(one: JudgedScenario) -> str:
    if one.status is Status.PROVEN and any(test.sabotages for test in one.tests):
        return "nothing: it was tried with things broken, too"
    return stays_green([one]) or _NEXT[one.status]

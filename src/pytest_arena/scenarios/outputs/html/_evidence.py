"""What did the tests of a scenario do? Folded out below it, for whoever wants to know."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_arena.scenarios.outputs.html._markup import Html, element, joined
from pytest_arena.scenarios.specs import literals

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pytest_arena.scenarios.evidence import (
        Asserted,
        Facts,
        JudgedScenario,
        JudgedTest,
        Requested,
        Sabotage,
        Status,
        StepFacts,
    )
    from pytest_arena.scenarios.specs import Scenario

__all__ = ["badge", "counted", "evidence"]

_MOST = 50  # of the requests of one test; more are counted
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})  # these are to change nothing
_SABOTAGES = {
    "seed": "what it had seeded removed",
    "commit": "the commit of the app rolled back",
    "empty": "the answer emptied",
    "500": "the answer turned into a 500",
}


def badge(status: Status) -> Html:
    """Return a status as a small label, by its name as well as by its colour."""
    return element("span", status.value, class_=f"badge is-{status.value.lower()}")


def counted(count: int, thing: str) -> str:
    """Return a number of things in words.

    >>> counted(1, "row"), counted(2, "request")
    ('1 row', '2 requests')
    """
    return f"{count:,} {thing}" + "s" * (count != 1)


def evidence(judged: JudgedScenario) -> Iterator[Html]:
    """Yield what is known of a scenario's tests, folded; nothing where there is nothing."""
    if not judged.tests and not judged.warnings:
        return
    yield element(
        "details",
        element("summary", ", ".join(_in_short(judged))),
        *_warnings(judged),
        *(_test(test, judged) for test in judged.tests),
        class_="evidence",
    )


def _in_short(judged: JudgedScenario) -> Iterator[str]:
    yield counted(len(judged.tests), "test")
    facts = [test.facts for test in judged.tests if test.facts]
    if facts:
        yield f"{counted(sum(_rows(one.seeded) for one in facts), 'row')} seeded"
        yield counted(sum(len(one.requests) for one in facts), "request")
        yield counted(sum(it.times for one in facts for it in one.asserted), "assertion")
    if judged.warnings:
        yield counted(len(judged.warnings), "warning")


def _rows(by_table: tuple[tuple[str, int], ...] | None) -> int:
    return sum(count for _, count in by_table or ())


def _warnings(judged: JudgedScenario) -> Iterator[Html]:
    for warning in judged.warnings:
        label = element("span", "warning", class_="badge warning")
        yield element("p", label, " ", warning, class_="note")


def _test(test: JudgedTest, judged: JudgedScenario) -> Html:
    place = element("code", test.place, class_="place")
    badges = joined(*map(badge, (test.status, *test.also)), by=" ")
    named = element("p", badges, " ", element("code", test.test), " ", place)
    return element(
        "section",
        named,
        # What the scenario's own reason says already is not said again.
        *(
            [element("p", test.reason, class_="reason")]
            if test.reason not in {"", judged.reason}
            else []
        ),
        element("dl", *_told(test, judged.scenario)),
        class_="test",
    )


def _told(test: JudgedTest, scenario: Scenario) -> Iterator[Html]:
    if test.row:
        yield from _term("Row", joined(", ".join(f"{name}: {value}" for name, value in test.row)))
    if test.facts is not None:
        yield from _facts(test.facts, scenario, test.row)
    if test.sabotages:
        yield from _listed("Run again with", map(_sabotage, test.sabotages))


def _facts(facts: Facts, scenario: Scenario, row: tuple[tuple[str, str], ...]) -> Iterator[Html]:
    off = dict(facts.off)
    yield from _term("Seeded", _tables(facts.seeded, off.get("seeded", "")))
    yield from _requests(facts, off)
    yield from _assertions(facts, off)
    steps = [one for one in facts.steps if one.scenario == scenario.key]
    yield from _listed("Steps", (_step(one, scenario) for one in steps))
    if unseen := [one for one in literals(scenario, (row,)) if one not in facts.seen]:
        shown = (element("code", one) for one in unseen)
        yield from _term("Never seen", joined(*shown, by=", "))
    yield from _listed("Not measured", (joined(f"{name}: {why}") for name, why in facts.off))


def _term(term: str, told: Html) -> Iterator[Html]:
    yield element("dt", term)
    yield element("dd", told)


def _listed(term: str, told: Iterable[Html]) -> Iterator[Html]:
    if items := [element("li", one) for one in told]:
        yield from _term(term, element("ul", *items))


def _tables(by_table: tuple[tuple[str, int], ...] | None, why: str = "") -> Html:
    if by_table is None:
        return joined(f"not known: {why}" if why else "not known")
    shown = [
        joined(element("code", table), " ", counted(count, "row")) for table, count in by_table
    ]
    return joined(*shown, by=", ") if shown else joined("nothing")


def _requests(facts: Facts, off: dict[str, str]) -> Iterator[Html]:
    if not facts.requests:
        yield from _term("Requests", _none("requested", off))
        return
    shown = [
        joined(_request(one), " · preparation" if place < facts.first else "")
        for place, one in enumerate(facts.requests[:_MOST])
    ]
    if more := len(facts.requests) - _MOST:
        shown += [joined(f"and {counted(more, 'request')} more")] * (more > 0)
    yield from _listed("Requests", shown)


def _none(instrument: str, off: dict[str, str]) -> Html:
    return joined(f"not known: {off[instrument]}" if instrument in off else "none")


def _request(request: Requested) -> Html:
    status = "no answer" if request.status is None else str(request.status)
    parts: list[str] = [
        joined(element("code", f"{request.method} {request.path}"), " → ", element("b", status))
    ]
    if request.role:
        parts.append(f"as {request.role}")
    if request.route and request.route != request.path:
        parts.append(joined("route ", element("code", request.route)))
    if request.changed or request.method not in _SAFE:
        parts.append(joined("changed ", _tables(request.changed)))
    if request.read:
        parts.append(joined("read what was seeded in ", element("code", ", ".join(request.read))))
    if request.observed is False:
        parts.append("the test did not look at the answer")
    return joined(*parts, by=" · ")


def _assertions(facts: Facts, off: dict[str, str]) -> Iterator[Html]:
    if not facts.asserted:
        yield from _term("Assertions", _none("asserted", off))
    yield from _listed("Assertions", map(_assertion, facts.asserted))


def _assertion(asserted: Asserted) -> Html:
    parts: list[str] = [
        joined(element("code", asserted.text), f" after {counted(asserted.after, 'request')}")
    ]
    if asserted.times > 1:
        parts.append(f"{asserted.times:,} times")
    if asserted.is_constant:
        parts.append("constant: it could not have failed")
    parts.append(element("code", asserted.place, class_="place"))
    return joined(*parts, by=" · ")


def _step(step: StepFacts, scenario: Scenario) -> Html:
    named = str(scenario.steps[step.step]) if step.step < len(scenario.steps) else "?"
    did = [
        *([f"{step.wrote:,} seeded"] if step.wrote else []),
        *([counted(len(step.requests), "request")] if step.requests else []),
        *([counted(step.assertions, "assertion")] if step.assertions else []),
    ]
    return joined(f"{named} · ", ", ".join(did) or "nothing")


def _sabotage(sabotage: Sabotage) -> Html:
    why = f" · {sabotage.why}" if sabotage.why else ""
    result = element("span", sabotage.result, class_=f"badge {sabotage.result.replace(' ', '-')}")
    return joined(f"{_SABOTAGES[sabotage.kind]}: ", result, why)

"""Documents to be written out: one of every status, and the values that they are made of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from pytest_arena.scenarios.evidence._document import (
    Asserted,
    Document,
    Facts,
    JudgedScenario,
    JudgedStep,
    JudgedTest,
    Requested,
    Sabotage,
    Status,
    StepFacts,
)
from pytest_arena.scenarios.outputs._targets import OutputTarget, write
from pytest_arena.scenarios.specs._specification import Problem, Row, ScenarioSpec, Step

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "a_scenario",
    "a_step",
    "a_test",
    "every_status",
    "judged",
    "messages",
    "outline",
    "page",
    "proven",
    "summary",
]


def output(form: str, document: Document, sources: Mapping[str, str]) -> str:
    """One output, written where the specifications have these texts."""
    with TemporaryDirectory() as name:
        root, path = Path(name), "out/put"
        for spec, text in sources.items():
            (root / spec).parent.mkdir(parents=True, exist_ok=True)
            (root / spec).write_bytes(text.encode())
        write([OutputTarget(form, path)], replace(document, specs=tuple(sources)), root=root)
        return (root / path).read_text(encoding="utf-8")


def page(document: Document, sources: Mapping[str, str]) -> str:
    """The page."""
    return output("html", document, sources)


def messages(document: Document, sources: Mapping[str, str]) -> str:
    """Cucumber Messages."""
    return output("messages", document, sources)


def summary(document: Document) -> str:
    """The summary of a CI job."""
    return output("md", document, {})


def a_step(keyword: str, text: str, line: int, **more: Any) -> Step:
    """A step whose kind is that of its keyword; And is a Then."""
    kinds: dict[str, Any] = {"Given": "given", "When": "when"}
    return Step(keyword=keyword, kind=kinds.get(keyword, "then"), text=text, line=line, **more)


def a_scenario(name: str, *, line: int = 10, **more: Any) -> ScenarioSpec:
    """A scenario of three steps, below a business rule."""
    told: dict[str, Any] = {
        "feature": "Battles",
        "rule": "",
        "requirement": "BR-BTL-001",
        "spec": "docs/battles.md",
        "rev": "1:3265ea09",
        "steps": (
            a_step("Given", "a battle exists with status PENDING", line + 1),
            a_step("When", "I POST to /battles/{battle_id}/start", line + 2),
            a_step("Then", "the battle status should change to ACTIVE", line + 3),
        ),
        **more,
    }
    key = " :: ".join(filter(None, [told["feature"], told["rule"], name]))
    return ScenarioSpec(name=name, line=line, key=key, **told)


FACTS = Facts(
    seeded=(("battles", 1), ("players", 4)),
    requests=(
        Requested(
            method="POST",
            path="/battles/7/start",
            route="/battles/{battle_id}/start",
            status=303,
            role="mc",
            changed=(("battles", 1),),
            read=("battles",),
            observed=True,
        ),
    ),
    asserted=(
        Asserted(place="tests/test_battles.py:31", text="battle.status == 'ACTIVE'", after=1),
    ),
    seen=("PENDING", "ACTIVE"),
)


def a_test(status: Status, name: str = "test_start", **more: Any) -> JudgedTest:
    """A test of the battles."""
    test = f"tests/test_battles.py::{name}"
    return JudgedTest(test=test, place="tests/test_battles.py:12", status=status, **more)


def judged(
    status: Status, reason: str = "", *, scenario: ScenarioSpec | None = None, **more: Any
) -> JudgedScenario:
    """A scenario of that status, with a test of it."""
    told: dict[str, Any] = {"tests": (a_test(status, reason=reason),), **more}
    scenario = scenario or a_scenario(f"One that is {status.value}")
    return JudgedScenario(scenario=scenario, status=status, reason=reason, **told)


def proven(scenario: ScenarioSpec, *blocks: int, **more: Any) -> JudgedScenario:
    """A proven scenario, with blocks for these of its steps."""
    facts = tuple(
        StepFacts(scenario=scenario.key, step=step, wrote=1, requests=(0,), assertions=1)
        for step in blocks
    )
    test = a_test(
        Status.PROVEN,
        facts=Facts(
            seeded=FACTS.seeded, requests=FACTS.requests, asserted=FACTS.asserted, steps=facts
        ),
        sabotages=(Sabotage(kind="empty", result="noticed", why="assert '' == 'ACTIVE'"),),
    )
    steps = tuple(
        JudgedStep(status=Status.PROVEN if number in blocks else None)
        for number in range(len(scenario.steps))
    )
    told: dict[str, Any] = {"tests": (test,), "steps": steps, **more}
    return JudgedScenario(scenario=scenario, status=Status.PROVEN, **told)


def outline(*, line: int = 100, **more: Any) -> ScenarioSpec:
    """An Outline of two rows, with a Background's step before its own."""
    background = a_step("Given", "a hall", 3, is_background=True)
    rows = tuple(
        Row(
            values=(("number", number), ("who", who)),
            line=line + 5 + place,
            name=f"{who} gets {number}",
            steps=(
                background,
                a_step("When", f"{who} asks for {number}", line + 1),
                a_step("Then", f"{who} has {number}", line + 2),
            ),
        )
        for place, (who, number) in enumerate([("ann", "1"), ("bob", "2")])
    )
    steps = (
        background,
        a_step("When", "<who> asks for <number>", line + 1),
        a_step("Then", "<who> has <number>", line + 2),
    )
    return a_scenario(
        "<who> gets <number>", line=line, steps=steps, rows=rows, is_outline=True, **more
    )


REASONS = {
    Status.MALFORMED: "it has no steps",
    Status.UNMAPPED: "no test names it",
    Status.FAILED: "assert 404 == 303 (tests/test_battles.py:30)",
    Status.DRIFTED: "its steps have changed since 1:00000000",
    Status.STUB: "its test is not written yet",
    Status.XFAIL: "expected to fail: later",
    Status.XPASS: "passed, though expected to fail",
    Status.SKIPPED: "needs a printer",
    Status.NOT_RUN: "its test was not run",
    Status.FLAKY: "passed on the second try only",
    Status.HOLLOW: "no assertion after POST /battles/7/start (tests/test_battles.py:31)",
    Status.UNKNOWN: "asserted: python -O",
    Status.PARTIAL: "1 of 2 rows proven",
    Status.PROVEN: "",
}


def every_status(**more: Any) -> Document:
    """One scenario of each status, in the order of their lines."""
    scenarios: list[JudgedScenario] = []
    for number, (status, reason) in enumerate(REASONS.items(), start=1):
        scenario = a_scenario(f"One that is {status.value}", line=number * 10)
        if status is Status.PROVEN:
            scenarios.append(proven(scenario, 0, 1, 2))
        else:
            tests = () if status is Status.UNMAPPED else (a_test(status),)
            scenarios.append(judged(status, reason, scenario=scenario, tests=tests))
    told: dict[str, Any] = {
        "scenarios": tuple(scenarios),
        "specs": ("docs/battles.md",),
        "problems": (
            Problem(spec="docs/battles.md", line=7, what="no keyword: 'Givn x'", hint="Given x"),
            Problem(spec="tests/test_x.py", line=3, what="no such scenario", is_error=False),
        ),
        "gaps": tuple(
            f"{one.scenario.place}: {one.status.value}: {one.scenario.name}"
            for one in scenarios
            if one.status is not Status.PROVEN
        ),
        **more,
    }
    return Document(**told)

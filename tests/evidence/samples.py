"""Scenarios, tests and tries to judge, as short as they can be said."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import TYPE_CHECKING, Any

from pytest_arena.scenarios.evidence._document import (
    Asserted,
    Document,
    Facts,
    JudgedScenario,
    Mapping,
    Requested,
    StepFacts,
    Try,
)
from pytest_arena.scenarios.evidence._judge import Rules, judge
from pytest_arena.scenarios.specs._specification import Kind, Row, ScenarioSpec, Specification, Step

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

SPEC = "docs/battles.md"
TODAY = date(2026, 11, 20)
RULES = Rules(today=TODAY)
KINDS: dict[str, Kind] = {"Given": "given", "When": "when", "Then": "then"}

Values = tuple[tuple[str, str], ...]


def step(text: str, line: int = 1, *, is_background: bool = False) -> Step:
    """``Given a battle`` as a step."""
    keyword, _, rest = text.partition(" ")
    return Step(
        keyword=keyword, kind=KINDS[keyword], text=rest, line=line, is_background=is_background
    )


START = (
    step("Given a battle is pending", 11),
    step("When I POST to /battles/{battle_id}/start", 12),
    step("Then its status is ACTIVE", 13),
)


def scenario(name: str = "Start", line: int = 10, **more: Any) -> ScenarioSpec:
    """A scenario of the feature Battles."""
    values: dict[str, Any] = {
        "feature": "Battles",
        "rule": "",
        "requirement": "BR-1",
        "spec": SPEC,
        "key": f"Battles :: {name}",
        "rev": "1:aaaaaaaa",
        "steps": START,
    }
    return ScenarioSpec(name=name, line=line, **{**values, **more})


def outline(*values: str, **more: Any) -> ScenarioSpec:
    """A Scenario Outline with a row for each value of ``p``."""
    rows = tuple(
        Row(values=(("p", one),), line=20 + number, name=f"Start {one}", steps=START)
        for number, one in enumerate(values)
    )
    return scenario(rows=rows, is_outline=True, **more)


def specification(*scenarios: ScenarioSpec, **more: Any) -> Specification:
    """What the files say."""
    return Specification(files=(SPEC,), scenarios=scenarios, **more)


def mapping(test: str = "test_start", one: ScenarioSpec | None = None, **more: Any) -> Mapping:
    """A test that proves a scenario, ``Start`` if none is named."""
    key = (one or scenario()).key
    return Mapping(
        **{
            "test": f"tests/test_b.py::{test}",
            "place": "tests/test_b.py:12",
            "scenario": key,
            **more,
        }
    )


POST = Requested(
    method="POST",
    path="/battles/7/start",
    route="/battles/{battle_id}/start",
    status=200,
    changed=(("battles", 1),),
    read=("battles",),
    observed=True,
)
CHECK = Asserted(place="tests/test_b.py:16", text="r.json() == 'ACTIVE'", after=1)
PROOF = Facts(seeded=(("battles", 1),), requests=(POST,), asserted=(CHECK,), seen=("ACTIVE",))


def attempt(test: str = "test_start", outcome: str = "passed", **more: Any) -> Try:
    """One try of a test; one that passed did all that is asked for."""
    values: dict[str, Any] = {
        "test": f"tests/test_b.py::{test}",
        "outcome": outcome,
        "place": "tests/test_b.py:12",
        "facts": PROOF,
    }
    return Try(**{**values, **more})


def failure(test: str = "test_start", **more: Any) -> Try:
    """A try that failed."""
    values: dict[str, Any] = {"reason": "assert 404 == 200", "place": "tests/test_b.py:16"}
    return attempt(test, "failed", **{**values, **more})


def facts(**more: Any) -> Facts:
    """The facts of a proof, but for these."""
    return replace(PROOF, **more)


def block(
    number: int, *, wrote: int = 0, requests: Sequence[int] = (), asserted: int = 0
) -> StepFacts:
    """What happened in the block of one step of ``Start``."""
    return StepFacts(
        scenario=scenario().key,
        step=number,
        wrote=wrote,
        requests=tuple(requests),
        assertions=asserted,
    )


BLOCKS = (block(0, wrote=1), block(1, requests=(0,)), block(2, asserted=1))


def judged(
    tries: Iterable[Try],
    mappings: Iterable[Mapping] | None = None,
    *,
    of: ScenarioSpec | None = None,
    **more: Any,
) -> JudgedScenario:
    """The verdict on one scenario, with one test unless more are named."""
    one = of or scenario()
    maps = [mapping(one=one)] if mappings is None else mappings
    return document(tries, maps, of=[one], **more).scenarios[0]


def document(
    tries: Iterable[Try],
    mappings: Iterable[Mapping],
    *,
    of: Sequence[ScenarioSpec] = (),
    **more: Any,
) -> Document:
    """The verdict on all scenarios."""
    scenarios = of or (scenario(),)
    return judge(specification(*scenarios), mappings, tries, **{"rules": RULES, **more})

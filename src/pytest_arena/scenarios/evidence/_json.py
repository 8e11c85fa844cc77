"""How is a document written as JSON, and read again?"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pytest_arena.errors import ScenarioError
from pytest_arena.scenarios.evidence._document import Document
from pytest_arena.scenarios.evidence._lacking import after_the_last
from pytest_arena.scenarios.evidence._shapes import from_shape, to_shape
from pytest_arena.scenarios.evidence._verdict import PASSED

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pytest_arena.scenarios.evidence._document import JudgedScenario, JudgedStep, JudgedTest
    from pytest_arena.scenarios.evidence._facts import Facts

__all__ = ["SCHEMA", "as_json", "from_json"]

SCHEMA = 1
"""The shape's version: it is counted up when a name gets another meaning, or goes."""


def as_json(document: Document) -> str:
    """Return the document as JSON, the same for the same document: one line for each scenario.

    It holds no time, and no path but those in the document, which begin at the root folder. A name
    whose value is the default is left out, but for those that every reader counts on.
    """
    extras = to_shape(document, but=("scenarios", "problems"))
    counts = {status.value: count for status, count in document.counts().items()}
    parts = [
        f'"schema": {SCHEMA}',
        _array("scenarios", (_scenario(one) for one in document.scenarios)),
        _array("problems", ({"spec": "", **to_shape(one)} for one in document.problems)),
        *(f'"{name}": {_line(held)}' for name, held in {"counts": counts, **extras}.items()),
    ]
    # Half of a surrogate pair, from a failure's message, is no text: as an escape JSON can hold it.
    return ("{" + ",\n".join(parts) + "}\n").encode(errors="backslashreplace").decode()


def from_json(text: str, *, where: str) -> Document:
    """Read what `as_json` wrote.

    Args:
        text: the JSON.
        where: the file, for messages.

    Raises:
        ScenarioError: it is no such document, or one of another version.
    """
    try:
        raw = json.loads(text.removeprefix("\ufeff"))
        schema = raw["schema"]
        return _document(raw) if schema == SCHEMA else _refuse(schema, where)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ScenarioError(
            f"{where} does not hold scenarios as JSON",
            why="verdicts that are not read in full would be other verdicts",
            cause=f"{type(error).__name__}: {error}",
            fix=f"write it anew: pytest --scenarios-out=json:{where}",
        ) from error


def _refuse(schema: object, where: str) -> Document:
    raise ScenarioError(
        f"{where} is of schema {schema!r}, and this version of pytest-arena reads {SCHEMA}",
        why="the same names may mean something else there",
        cause="it was written by another version of pytest-arena",
        fix=f"write it anew: pytest --scenarios-out=json:{where}",
    )


_line = json.JSONEncoder(ensure_ascii=False).encode


def _array(name: str, values: Iterable[object]) -> str:
    lines = ",\n".join(map(_line, values))
    return f'"{name}": [\n{lines}\n]' if lines else f'"{name}": []'


def _scenario(judged: JudgedScenario) -> dict[str, Any]:
    one = judged.scenario
    own = to_shape(judged, but=("scenario", "tests", "steps"))
    said = {**to_shape(one, but=("steps", "name", "feature", "rule", "spec", "line")), **own}
    steps = zip(one.steps, judged.steps or [None] * len(one.steps), strict=True)
    first = {
        "name": one.name,
        "feature": one.feature,
        "rule": one.requirement or one.rule,
        "spec": one.spec,
        "line": one.line,
        "status": judged.status.value,
        "reason": judged.reason,
        "steps": [to_shape(step) | _shown(shown) for step, shown in steps],
        "tests": [_test(test) for test in judged.tests],
        "evidence": _evidence(judged),
    }
    return {**first, "gherkin_rule": one.rule, **said}


def _shown(step: JudgedStep | None) -> dict[str, Any]:
    return {} if step is None or step.status is None else to_shape(step)


def _test(test: JudgedTest) -> dict[str, Any]:
    return {"test": "", "place": "", "status": "", "reason": "", **to_shape(test)}


def _evidence(judged: JudgedScenario) -> dict[str, Any]:
    """What the tests that passed did together, for readers: it is not read again."""
    found = [one.facts for one in judged.tests if one.facts and one.status in PASSED]
    return _summary(found) if found else {}


def _summary(found: list[Facts]) -> dict[str, Any]:
    requests = {
        f"{one.method} {one.route or one.path} {one.status}"
        for all_ in found
        for one in all_.requests
    }
    seeded: dict[str, int] = {}
    for table, count in (pair for one in found for pair in one.seeded or ()):
        seeded[table] = max(count, seeded.get(table, 0))
    return {
        "seeded": dict(sorted(seeded.items())),
        "requested": sorted(requests),
        "asserted": sorted({one.place for facts in found for one in after_the_last(facts)}),
    }


def _document(raw: dict[str, Any]) -> Document:
    scenarios = [_whole(one) for one in raw["scenarios"]]
    document: Document = from_shape(Document, {**raw, "scenarios": scenarios})
    return document


def _whole(raw: dict[str, Any]) -> dict[str, Any]:
    """What was said of the specification and of the verdict in one object, as two again."""
    scenario = {**raw, "rule": raw["gherkin_rule"]}
    return {**raw, "scenario": scenario, "steps": [{"status": None, **one} for one in raw["steps"]]}

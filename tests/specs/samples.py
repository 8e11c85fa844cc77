"""Specifications to read, as short as they can be said, and what is said of them.

They are read by `arena scenarios list --json`, which tells a file's scenarios and problems; what a
feature says of itself can be read through the package's entry points alone.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_arena.scenarios.specs._reader import parse
from tests.command import arena

if TYPE_CHECKING:
    from pytest_arena.scenarios.specs._specification import Feature

FEATURE = "Feature: Battles\n"
SCENARIO = "  Scenario: Start\n"
STEPS = "    Given a battle\n    When it starts\n    Then it runs\n"
GOOD = FEATURE + SCENARIO + STEPS


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step."""

    keyword: str
    kind: str
    text: str
    line: int
    doc_string: str | None = None
    media_type: str = ""
    table: Any = ()
    is_background: bool = False


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of an Outline."""

    values: dict[str, str]
    line: int
    name: str
    steps: tuple[Step, ...]
    tags: Any = ()


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One scenario."""

    name: str
    feature: str
    gherkin_rule: str
    requirement: str = ""
    spec: str
    line: int
    key: str
    rev: str
    steps: tuple[Step, ...]
    tags: Any = ()
    rows: tuple[Row, ...] = ()
    is_outline: bool = False
    description: str = ""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What is wrong with a specification."""

    spec: str
    line: int
    what: str
    hint: str = ""
    is_error: bool = True
    scenario: str = ""


@dataclass(frozen=True, kw_only=True)
class Listed:
    """What the command says of some files."""

    status: int
    errors: str
    files: tuple[str, ...]
    scenarios: tuple[Scenario, ...]
    problems: tuple[Problem, ...]
    features: tuple[Feature, ...] = ()


def listed(folder: Path, *patterns: str) -> Listed:
    """What stands in the files of a folder that patterns name."""
    called = arena("scenarios", "list", "--json", *patterns, folder=folder)
    document = json.loads(called.output)
    return Listed(
        status=called.status,
        errors=called.errors,
        files=tuple(document.get("specs", ())),
        scenarios=tuple(map(_scenario, document["scenarios"])),
        problems=tuple(_value(Problem, one) for one in document["problems"]),
    )


def _scenario(told: dict[str, Any]) -> Scenario:
    rows = tuple(_value(Row, {**row, "steps": _steps(row)}) for row in told.get("rows", ()))
    whole: Scenario = _value(Scenario, {**told, "steps": _steps(told), "rows": rows})
    return whole


def _steps(told: dict[str, Any]) -> tuple[Step, ...]:
    return tuple(_value(Step, step) for step in told["steps"])


def _value(kind: Any, told: dict[str, Any]) -> Any:
    return kind(**{one.name: _frozen(told[one.name]) for one in fields(kind) if one.name in told})


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def said(text: str, spec: str) -> Listed:
    """What the text of one file says; that no scenario is in it is told by the exit status."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, spec)
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(text.encode())
        whole = listed(Path(folder), ".")
    problems = tuple(one for one in whole.problems if one.spec)
    assert whole.status == int(not whole.scenarios)
    return replace(whole, problems=problems, features=parse(text, spec).features)


def gherkin(text: str) -> Listed:
    """What a ``.feature`` file says."""
    return said(text, "a.feature")


def markdown(text: str) -> Listed:
    """What a Markdown file says."""
    return said(text, "docs/a.md")


def mdg(text: str) -> Listed:
    """What a ``.feature.md`` file says."""
    return said(text, "a.feature.md")


def fenced(text: str, mark: str = "```", info: str = "gherkin") -> str:
    """A text in a fence."""
    return f"{mark}{info}\n{text}{mark}\n"


def only(specification: Listed) -> Scenario:
    """The one scenario there is."""
    (scenario,) = specification.scenarios
    return scenario


def problem(specification: Listed) -> Problem:
    """The one problem there is."""
    assert len(specification.problems) == 1, list(map(str, specification.problems))
    return specification.problems[0]


def errors(specification: Listed) -> list[tuple[int, str]]:
    """Lines of errors, with the scenario that each is about."""
    return [(one.line, one.scenario) for one in specification.problems if one.is_error]

"""A project whose tests seed, request and assert in many ways, and what was seen of each."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from tests.example import fastapi_example

if TYPE_CHECKING:
    from pathlib import Path

    from tests.example import Example
    from tests.scenarios.proving import Told

__all__ = ["facts_of", "scenarios", "seeing"]

# Each scenario has the same steps.
STEPS = """
    Given a dancer "Storm" exists
    When I GET /dancers
    Then there are dancers
"""


_PROVES = re.compile(r"@proves\b(.*?)def test_(\w+)\(", re.DOTALL)


def scenarios(names: list[str]) -> str:
    """A feature with a scenario of each of these names."""
    return "Feature: Dancers\n" + "".join(f"\n  Scenario: {name}{STEPS}" for name in names)


def seeing(folder: Path, tests: str) -> Example:
    """A project with these tests: each marked ``@proves`` has a scenario of its own name."""
    names = [name for _, name in _PROVES.findall(tests)]
    marked = _PROVES.sub(r'@pytest.mark.scenario("\2")\1def test_\2(', tests)
    example = fastapi_example(folder).with_files(test_it=f"import pytest\n{marked}")
    example = example.with_paths({"dancers.feature": scenarios(names)})
    return example.change("pytest.ini", "[pytest]\n", "[pytest]\narena_specs = dancers.feature\n")


def facts_of(run: Told, name: str) -> dict[str, Any]:
    """What was seen of the one test of a scenario."""
    [test] = run.scenarios[name]["tests"]
    facts: dict[str, Any] = test.get("facts") or {}
    return facts

"""Projects with a specification, and what a run of them has said of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.example import fastapi_example

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from tests.example import Example, Run

__all__ = ["Told", "feature", "project", "told"]

XDIST = ("-p", "xdist.plugin")
RERUNS = ("-p", "pytest_rerunfailures")
# A pass proves then, whatever the test has done: for those who look at outcomes alone.
NO_EVIDENCE = "-pproves"
PROVES = """
from pytest_arena.scenarios.evidence._claim import Claim

Claim.missing = lambda claim, facts: []
"""


def feature(*names: str) -> str:
    """A feature with a scenario of each of these names; each has other steps."""
    scenarios = (f"  Scenario: {name}\n    When {name} happens\n" for name in names)
    return "Feature: Stories\n" + "\n".join(scenarios)


def project(folder: Path, names: Iterable[str], tests: str, *, more: str = "") -> Example:
    """The usual app, a specification with these scenarios, and tests in one file."""
    example = fastapi_example(folder).with_files(test_it=tests, proves=PROVES)
    example = example.with_paths({"specs/stories.feature": feature(*names)})
    return example.change("pytest.ini", "[pytest]\n", f"[pytest]\narena_specs = specs\n{more}")


class Told:
    """What the JSON document of a run says."""

    def __init__(self, run: Run, document: dict[str, Any]) -> None:
        self.run, self.document = run, document
        self.scenarios = {one["name"]: one for one in document["scenarios"]}

    @property
    def statuses(self) -> dict[str, str]:
        """By the names of the scenarios."""
        return {name: one["status"] for name, one in self.scenarios.items()}

    @property
    def partial(self) -> str:
        """Why not all tests were run."""
        return str(self.document.get("partial", ""))

    def reason(self, name: str) -> str:
        """Why a scenario is not proven."""
        return str(self.scenarios[name]["reason"])

    @property
    def problems(self) -> str:
        """All of them, as one text."""
        return json.dumps(self.document["problems"])


def told(example: Example, *args: str, **options: Any) -> Told:
    """Run it, and read what it says of its scenarios."""
    run = example.run("--scenarios-out=json:out.json", *args, **options)
    path = run.folder / "out.json"
    assert path.exists(), run.output
    return Told(run, json.loads(path.read_text(encoding="utf-8")))

"""How long does it take to read ten thousand scenarios, in a process that has read none before?"""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING

from bench.page import Table, milliseconds
from bench.place import environment, scratch
from bench.samples import in_turns

if TYPE_CHECKING:
    from pathlib import Path

    from bench.effort import Effort

__all__ = ["measure"]

FILES = 500
EACH = 20
KINDS = {"`.feature`": ("feature", ""), "fences in Markdown": ("md", "```")}
STEPS = (
    'Given a tournament "Summer Battle {n}" exists in PRESELECTION phase',
    "And I am authenticated as MC",
    "When I POST to /battles/{n}/start",
    "Then the response status should be 200",
    'And the response should contain "Summer Battle {n}"',
)
_ARENA = "import sys; from pytest_arena._cli import main; sys.exit(main())"
LIST = (sys.executable, "-c", _ARENA, "scenarios", "list", "--json")


def measure(effort: Effort) -> list[Table]:
    """Write the files once, and list them in one process after the other."""
    with scratch() as folder:
        takers = {}
        for name, (ending, mark) in KINDS.items():
            specs = folder / ending
            _write(specs, ending, mark)
            takers[name] = partial(_listed, folder, specs)
        samples = in_turns(takers, rounds=effort.start_rounds)
    rows = [(name, milliseconds(one.median)) for name, one in samples.items()]
    return [
        Table(
            title="Scenarios listed",
            about=f"Time in milliseconds of `arena scenarios list --json` for {FILES * EACH:,} "
            "scenarios.",
            header=("", "median"),
            rows=tuple(rows),
        )
    ]


def _write(specs: Path, ending: str, mark: str) -> None:
    specs.mkdir()
    for file in range(FILES):
        scenarios = "".join(_scenario(file, number) for number in range(EACH))
        text = f"Feature: Feature {file}\n\n{scenarios}"
        fenced = f"# Page {file}\n\n{mark}gherkin\n{text}{mark}\n" if mark else text
        (specs / f"{file:03}.{ending}").write_text(fenced, encoding="utf-8")


def _scenario(file: int, number: int) -> str:
    steps = "".join(f"    {step}\n" for step in STEPS).replace("{n}", str(number))
    return f"  Scenario: Battle {number} of feature {file}\n{steps}\n"


def _listed(folder: Path, specs: Path) -> list[float]:
    started = perf_counter()
    done = subprocess.run(
        [*LIST, str(specs)],
        cwd=folder,
        env=environment(folder, {}),
        capture_output=True,
        text=True,
        check=True,
    )
    taken = perf_counter() - started
    found = len(json.loads(done.stdout)["scenarios"])
    assert found == FILES * EACH, found
    return [taken]

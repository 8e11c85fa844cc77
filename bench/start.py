"""What does the plugin add to the start of a run, once its template is there?"""

from __future__ import annotations

import re
from functools import partial
from statistics import median
from typing import TYPE_CHECKING

from bench.page import Table, milliseconds
from bench.place import scratch
from bench.samples import in_turns
from bench.suites import ARENA, LOOPS, Suite, Variant

if TYPE_CHECKING:
    from bench.effort import Effort

__all__ = ["measure"]

# Both import the app and the HTTP client, and make requests: what is left is the plugin.
TEST = """
import httpx2
import bench.suite.shop


async def test_{number}(client):
    assert (await client.post("/items", params={{"name": "Sand"}})).status_code == 201
"""
_FUNCTION = LOOPS["a loop for each test"]
WITHOUT = Variant(("-p", "bench.suite.variant_floor", *_FUNCTION))
WITH = Variant((*ARENA, *_FUNCTION))
_LINE = re.compile(r"import time:\s+(\d+) \|\s+\d+ \|\s+pytest_arena")


def measure(effort: Effort) -> list[Table]:
    """Take the time of whole processes by turns, and of our own modules by ``-X importtime``."""
    with scratch() as folder:
        suite = Suite(folder / "suite", TEST, 1).write()
        suite.run(WITH)
        samples = in_turns(
            {"without": partial(_whole, suite, WITHOUT), "with": partial(_whole, suite, WITH)},
            rounds=effort.start_rounds,
        )
        modules = [_own_imports(suite) for _ in range(3)]
    added = samples["with"].above(samples["without"])
    rows = [
        *(
            (name, milliseconds(samples[key].median))
            for name, key in (("without the plugin", "without"), ("with the plugin", "with"))
        ),
        ("added", milliseconds(added)),
        (
            "part of the added time: import of the plugin's modules",
            milliseconds(median(modules)),
        ),
    ]
    return [
        Table(
            title="The start of a run",
            about="Times in milliseconds of a pytest process with eleven small tests. The "
            "template exists before the run.",
            header=("", "median"),
            rows=tuple(rows),
        )
    ]


def _whole(suite: Suite, variant: Variant) -> list[float]:
    return [suite.run(variant).whole]


def _own_imports(suite: Suite) -> float:
    output = suite.run(WITH, python=("-X", "importtime")).output
    return sum(int(line[1]) for line in _LINE.finditer(output)) / 1e6

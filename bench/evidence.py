"""What does the evidence of scenarios cost a suite's tests?"""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from bench.page import Table, milliseconds
from bench.place import scratch
from bench.server import has_server
from bench.suites import ARENA, WARM, Suite, Variant, on_postgresql

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bench.effort import Effort

__all__ = ["measure"]

# Twins, one after the other in one run: the second one proves a scenario. What is told of a pair
# does not depend on what else the machine does.
TWINS = """
import pytest
from bench.suite.shop import Item


async def test_{number}_alone(client, db_session):
    db_session.add(Item(name="Storm {number}", price=12))
    made = (await client.post("/items", params={{"name": "Sand {number}"}})).json()
    assert made["name"] == "Sand {number}"
    assert len((await client.get("/items")).json()) >= 2
    response = await client.get(f"/items/{{made['id']}}")
    assert response.status_code == 200
    assert response.json() == made


@pytest.mark.scenario("Item {number}")
async def test_{number}_proves(client, db_session):
    db_session.add(Item(name="Storm {number}", price=12))
    made = (await client.post("/items", params={{"name": "Sand {number}"}})).json()
    assert made["name"] == "Sand {number}"
    assert len((await client.get("/items")).json()) >= 2
    response = await client.get(f"/items/{{made['id']}}")
    assert response.status_code == 200
    assert response.json() == made
"""
_SCENARIO = """
  Scenario: Item {number}
    Given an item "Storm {number}" with the price 12
    When I POST to /items
    Then I can GET it at /items/{{item_id}}
"""


def measure(effort: Effort) -> list[Table]:
    """Run suites of twins on each product; what is off is a run without a specification."""
    ways = {"SQLite, `copy`": Variant(ARENA)}
    if has_server():
        ways["PostgreSQL, `undo`"] = on_postgresql("undo")
    with scratch() as folder:
        suite = Suite(folder / "suite", TWINS, effort.suite_tests).write()
        _write_specification(suite)
        rows = tuple(_row(name, suite, way, effort) for name, way in ways.items())
    return [
        Table(
            title="Evidence",
            about="Times in milliseconds of a test with a seeded row, three requests and four "
            "assertions, without and with the marker of a [scenario](../how-to/scenarios.md).",
            header=("", "proves no scenario", "proves a scenario", "added"),
            rows=rows,
        )
    ]


def _write_specification(suite: Suite) -> None:
    numbers = range(suite.count + WARM)
    text = "".join(_SCENARIO.format(number=number) for number in numbers)
    _file(suite).write_text(f"Feature: Items\n{text}")


def _file(suite: Suite) -> Path:
    return suite.folder / "items.feature"


def _row(name: str, suite: Suite, way: Variant, effort: Effort) -> tuple[str, ...]:
    arguments = (*way.arguments, f"--arena-specs={_file(suite)}")
    with_specs = Variant(arguments, (*way.environment, ("BENCH_COLLECTS", "1")))
    pairs = [
        pair for _ in range(effort.suite_rounds) for pair in _pairs(suite.run(with_specs).tests)
    ]
    alone, proves = (median(times) for times in zip(*pairs, strict=True))
    more = median(second - first for first, second in pairs) / alone
    return name, milliseconds(alone), milliseconds(proves), f"{more:+.1%}"


def _pairs(times: list[float]) -> Iterator[tuple[float, float]]:
    return zip(times[::2], times[1::2], strict=True)

"""What does a test pay that asks its app through a real socket?"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from bench.page import Table, milliseconds
from bench.place import scratch
from bench.samples import Samples
from bench.suites import ARENA, Suite, Variant

if TYPE_CHECKING:
    from bench.effort import Effort

__all__ = ["measure"]

# Four tests, one after the other in one run: what the machine does is the same for all of them.
TESTS = """
async def test_{number}_in_process(client):
    made = (await client.post("/items", params={{"name": "Sand {number}"}})).json()
    assert (await client.get("/items")).json()[0] == made["name"]
    assert (await client.get(f"/items/{{made['id']}}")).json() == made


async def test_{number}_by_a_socket(live_server):
    client = live_server.client()
    made = (await client.post("/items", params={{"name": "Sand {number}"}})).json()
    assert (await client.get("/items")).json()[0] == made["name"]
    assert (await client.get(f"/items/{{made['id']}}")).json() == made


async def test_{number}_asks_nothing(client):
    pass


async def test_{number}_asks_nothing_of_a_server(live_server):
    pass
"""
# What the first test that wants the server waits for, in a file beside the tests.
START = """
import json
from pathlib import Path
from time import perf_counter

import pytest


@pytest.fixture(scope="session", autouse=True)
def start(arena):
    begun = perf_counter()
    import uvicorn
    imported = perf_counter()
    arena.live_server()
    Path("start.json").write_text(json.dumps([imported - begun, perf_counter() - imported]))
"""
_KINDS = (
    "three requests, in this process",
    "three requests, by a socket",
    "no request, in this process",
    "no request, with the server",
)


def measure(effort: Effort) -> list[Table]:
    """Run suites of four kinds of tests."""
    kinds = {name: Samples() for name in _KINDS}
    starts = Samples()
    with scratch() as folder:
        suite = Suite(folder / "suite", TESTS, effort.suite_tests).write()
        (suite.folder / "conftest.py").write_text(START)
        for _ in range(effort.suite_rounds):
            times = suite.run(Variant(ARENA)).tests
            # The first tests are left out, which are no multiple of four.
            behind = times[-(len(times) // 4) * 4 :]
            for place, samples in enumerate(kinds.values()):
                samples.add(behind[place::4])
            starts.add(json.loads((suite.folder / "start.json").read_text()))
    return [_table(kinds, starts)]


def _table(kinds: dict[str, Samples], starts: Samples) -> Table:
    imports = Samples([[one] for one, _ in starts.rounds])
    begins = Samples([[other] for _, other in starts.rounds])
    rows = [(name, one.median) for name, one in kinds.items()]
    rows += [
        ("once: uvicorn is imported", imports.median),
        ("once: the server starts", begins.median),
    ]
    return Table(
        title="Through a real socket",
        about="Times in milliseconds of a test with `client` and with `live_server.client()`.",
        header=("", "median"),
        rows=tuple((name, milliseconds(median)) for name, median in rows),
    )

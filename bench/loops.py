"""What does a loop for each test cost on PostgreSQL, where asyncpg's connections move along?"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from bench.page import Table, milliseconds
from bench.place import scratch
from bench.samples import in_turns
from bench.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.effort import Effort
    from bench.samples import Samples

__all__ = ["measure"]

TESTS = {
    "session": "one loop for all",
    "moves": "**a loop for each, connections move**",
    "stays": "a loop for each, connections are dropped",
    "null": "a loop for each, `NullPool`",
}


def measure(effort: Effort) -> list[Table]:
    """Take them by turns, in one process; nothing where there is no PostgreSQL."""
    with scratch() as folder, Worker("bench._loops", folder / "loops", {}) as worker:
        if worker.tell("server") == "none":
            return []
        takers: dict[str, Callable[[], list[float]]] = {
            name: partial(worker.take, name, 20) for name in TESTS
        }
        samples = in_turns(takers, rounds=effort.call_rounds)
    return [_table(samples)]


def _table(samples: dict[str, Samples]) -> Table:
    floor = samples["session"]
    return Table(
        title="A loop for each test, with asyncpg",
        about="Times in milliseconds of three checkouts with one statement each, without pytest.",
        header=("", "median", "added"),
        rows=tuple(
            (
                text,
                milliseconds(samples[name].median),
                milliseconds(samples[name].above(floor)),
            )
            for name, text in TESTS.items()
        ),
    )

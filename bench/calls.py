"""What do the gate and the clients add to single calls?"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from bench.page import Table
from bench.place import scratch
from bench.samples import in_turns, ratio
from bench.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.effort import Effort

__all__ = ["measure"]

CALLS = {
    "statement": "a statement of a `sqlite3` cursor",
    "checkout": "an async checkout with one statement",
    "request": "a request to an empty endpoint",
    "first_request": "client, lifespan and one request",
}


def measure(effort: Effort) -> list[Table]:
    """Take them under the gate and without, by turns."""
    with (
        scratch() as folder,
        Worker("bench._inside", folder / "inside", {}) as inside,
        Worker("bench._outside", folder / "outside", {}) as outside,
    ):
        takers: dict[str, Callable[[], list[float]]] = {
            f"{place} {name}": partial(worker.take, name, 10)
            for name in CALLS
            for place, worker in (("inside", inside), ("outside", outside))
        }
        samples = in_turns(takers, rounds=effort.call_rounds)
    rows = []
    for name, text in CALLS.items():
        ours, bare = samples[f"inside {name}"], samples[f"outside {name}"]
        times = [f"{one.median * 1e6:.1f}" for one in (bare, ours)]
        rows.append((text, *times, ratio(ours.median, bare.median)))
    return [
        Table(
            title="Single calls",
            about="Times of a call in microseconds.",
            header=("", "without the plugin", "with the plugin", "ratio"),
            rows=tuple(rows),
        )
    ]

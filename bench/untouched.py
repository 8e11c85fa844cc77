"""What does the plugin cost a test that never connects to anything?"""

from __future__ import annotations

from functools import partial
from statistics import median
from typing import TYPE_CHECKING

from bench.page import Table
from bench.place import scratch
from bench.samples import Samples, in_turns
from bench.suites import ARENA, EMPTY, Suite, Variant

if TYPE_CHECKING:
    from bench.effort import Effort

__all__ = ["measure"]

_TIMES_AS_MANY = 5  # empty tests are quick


def measure(effort: Effort) -> list[Table]:
    """Run empty tests with the plugin and without, by turns; then ask its hooks themselves."""
    with scratch() as folder:
        suite = Suite(folder / "suite", EMPTY, effort.suite_tests * _TIMES_AS_MANY).write()
        samples = in_turns(
            {
                "without": partial(_tests, suite, Variant(())),
                "with": partial(_tests, suite, Variant(ARENA)),
            },
            rounds=effort.suite_rounds * 2,
        )
        hooks = suite.run(Variant(ARENA, (("BENCH_HOOKS", "1"),))).hooks
    return [_table(samples["without"], samples["with"], hooks)]


def _tests(suite: Suite, variant: Variant) -> list[float]:
    return suite.run(variant).tests


def _table(without: Samples, ours: Samples, hooks: list[float]) -> Table:
    rows = [
        ("without the plugin", without.quietest, without.median),
        ("with it", ours.quietest, ours.median),
        ("its own hooks, timed one by one", min(hooks), median(hooks)),
    ]
    return Table(
        title="An empty test",
        about="Microseconds a test that asks for nothing. Aim: within the noise of nothing.",
        header=("", "least (of medians)", "median"),
        rows=tuple((name, *(f"{time * 1e6:.0f}" for time in times)) for name, *times in rows),
    )

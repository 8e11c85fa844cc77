"""What does isolation add to a test, in whole suites of tests that make three requests each?"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from bench.page import Table, milliseconds
from bench.place import scratch
from bench.samples import in_turns
from bench.suites import ARENA, LOOPS, REQUESTS, Suite, Variant

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bench.effort import Effort
    from bench.samples import Samples

__all__ = ["measure"]

FLOOR, OURS, RECIPE = "no isolation", "**arena**", "create_all, drop_all in a temporary file"
ON_DISK = "create_all, drop_all in a file on disk"
IN_MEMORY = "create_all in memory, one connection"
VARIANTS = {
    FLOOR: Variant(("-p", "bench.suite.variant_floor")),
    OURS: Variant(ARENA),
    RECIPE: Variant(("-p", "bench.suite.variant_recipe")),
    ON_DISK: Variant(("-p", "bench.suite.variant_recipe"), on_disk=True),
    IN_MEMORY: Variant(("-p", "bench.suite.variant_memory")),
    "copy of a template, a new engine": Variant(("-p", "bench.suite.variant_file_copy")),
    "rollback, with savepoints, engine kept": Variant(("-p", "bench.suite.variant_rollback")),
}
_QUICK = {FLOOR, OURS, RECIPE}
# What takes long is far from the noise: fewer tests tell as much of it.
_SLOW = {RECIPE, ON_DISK, IN_MEMORY}
_LEFT_OUT = {(ON_DISK, "one loop for all")}  # the disk takes as long in any loop


def measure(effort: Effort) -> list[Table]:
    """Run all variants by turns, with a loop for each test and with one for all."""
    with scratch() as folder:
        long = Suite(folder / "long", REQUESTS, effort.suite_tests).write()
        short = Suite(folder / "short", REQUESTS, effort.suite_tests // 6 + 1).write()
        takers: dict[str, Callable[[], list[float]]] = {
            f"{loops}: {name}": partial(_tests, short if name in _SLOW else long, variant, loops)
            for loops in LOOPS
            for name, variant in VARIANTS.items()
            if (effort.wide or name in _QUICK) and (name, loops) not in _LEFT_OUT
        }
        long.run(VARIANTS[OURS])  # builds the template
        samples = in_turns(takers, rounds=effort.suite_rounds)
    by_loops = {loops: _of(loops, samples) for loops in LOOPS}
    return [_table(by_loops)]


def _tests(suite: Suite, variant: Variant, loops: str) -> list[float]:
    arguments = (*variant.arguments, *LOOPS[loops])
    return suite.run(replace(variant, arguments=arguments)).tests


def _of(loops: str, samples: dict[str, Samples]) -> dict[str, Samples]:
    start = f"{loops}: "
    return {key.removeprefix(start): one for key, one in samples.items() if key.startswith(start)}


def _table(by_loops: dict[str, dict[str, Samples]]) -> Table:
    columns = [name for loops in LOOPS for name in (loops, "added")]
    names = [name for name in VARIANTS if name in by_loops[next(iter(LOOPS))]]
    return Table(
        title="A test with three requests on SQLite",
        about="Times of a test in milliseconds, from the test's first hook to its last.",
        header=("", *columns),
        rows=tuple((name, *_times(name, by_loops)) for name in names),
    )


def _times(name: str, by_loops: dict[str, dict[str, Samples]]) -> Iterator[str]:
    for samples in by_loops.values():
        if name in samples:
            yield milliseconds(samples[name].median)
            yield milliseconds(samples[name].above(samples[FLOOR]))
        else:
            yield from ("", "")

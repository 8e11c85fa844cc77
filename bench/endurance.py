"""Does a long run stay as quick and as small as it began? Thousands of tests in one process."""

from __future__ import annotations

import json
from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING

from bench.page import Table, milliseconds
from bench.place import scratch
from bench.server import has_server
from bench.suites import (
    ARENA,
    BROUGHT,
    LOOPS,
    PLUGIN,
    REQUESTS,
    TUTORIAL,
    Suite,
    Variant,
    on_postgresql,
)

if TYPE_CHECKING:
    from bench.effort import Effort

__all__ = ["measure"]

_LOOP = LOOPS["a loop for each test"]


def measure(effort: Effort) -> list[Table]:
    """Run each way once; those on a server where there is one."""
    ways = {
        "SQLite, `copy`": (REQUESTS, Variant(ARENA)),
        "an engine in memory for each test": (TUTORIAL, Variant((*PLUGIN, *BROUGHT))),
        "an engine in memory for each test, without the plugin": (TUTORIAL, Variant(BROUGHT)),
    }
    if has_server():
        ways["PostgreSQL, `undo`"] = (REQUESTS, on_postgresql("undo"))
        ways["PostgreSQL, `clone`"] = (REQUESTS, on_postgresql("clone"))
    with scratch() as folder:
        rows = tuple(
            _row(name, _lasting(Suite(folder / str(at), test, effort.endurance_tests), way))
            for at, (name, (test, way)) in enumerate(ways.items())
        )
    return [
        Table(
            title=f"{effort.endurance_tests:,} tests in one process",
            about="Each test has a separate loop. Each cell compares the first tenth of the tests "
            "with the last tenth.",
            header=(
                *("", "ms a test", "memory, MB", "file descriptors", "threads", "database, MB"),
                "journal or snapshots, MB",
            ),
            rows=rows,
        )
    ]


def _lasting(suite: Suite, way: Variant) -> tuple[list[float], list[dict[str, float]]]:
    gauges = suite.folder.with_suffix(".gauges")
    seen = replace(
        way,
        arguments=(*way.arguments, *_LOOP, "-p", "bench.suite.gauges"),
        environment=(*way.environment, ("BENCH_GAUGES", str(gauges))),
    )
    times = suite.write().run(seen).tests
    return times, json.loads(gauges.read_text(encoding="utf-8"))


def _row(name: str, lasted: tuple[list[float], list[dict[str, float]]]) -> tuple[str, ...]:
    times, looks = lasted
    tenth, (first, *_, last) = len(times) // 10, looks
    quick = " → ".join(milliseconds(median(each)) for each in (times[:tenth], times[-tenth:]))
    megabytes = {key: _change(first[key] / 1e6, last[key] / 1e6, 2) for key in first}
    counts = [_change(first[key], last[key], 0) for key in ("descriptors", "threads")]
    return name, quick, megabytes["memory"], *counts, megabytes["database"], megabytes["journal"]


def _change(first: float, last: float, digits: int) -> str:
    return f"{first:.{digits}f} → {last:.{digits}f}"

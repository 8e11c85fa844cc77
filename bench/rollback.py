"""What does `rollback` cost, beside bare savepoints, and beside a suite without isolation?"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from bench.page import Table, milliseconds
from bench.place import scratch
from bench.samples import in_turns, ratio
from bench.server import databases, has_server, url_of
from bench.suites import ARENA, LOOPS, REQUESTS, Suite, Variant, on_postgresql
from bench.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.effort import Effort
    from bench.samples import Samples
    from pytest_arena._postgresql.registry import ServerRegistry

__all__ = ["measure"]

LEVELS = {
    "postgresql-0": "PostgreSQL, no sequence",
    "postgresql-20": "PostgreSQL, 20 sequences",
    "sqlite": "SQLite",
}
SUITES = {"postgresql": "PostgreSQL, asyncpg", "sqlite": "SQLite, aiosqlite"}
_LOOP = LOOPS["one loop for all"]
_LEVELS_IN_A_TURN = 200
_MORE_TESTS = 2


def measure(effort: Effort) -> list[Table]:
    """Take levels and suites, each beside the same without pytest-arena."""
    return [_levels(effort), _suites(effort)]


def _levels(effort: Effort) -> Table:
    count = _LEVELS_IN_A_TURN if effort.suite_tests > 1 else 1
    places = [place for place in LEVELS if place == "sqlite" or has_server()]
    with scratch() as folder, Worker("bench._rollback", folder / "rollback", {}) as worker:
        takers: dict[str, Callable[[], list[float]]] = {
            f"{place}-{way}": partial(worker.take, f"{place}-{way}", count)
            for place in places
            for way in ("levels", "bare")
        }
        samples = in_turns(takers, rounds=effort.boundary_rounds)
    rows = [_row(LEVELS[place], samples, f"{place}-levels", f"{place}-bare") for place in places]
    return Table(
        title="A level of rollback, and a bare savepoint",
        about="Times in milliseconds of the work before and after a test that writes two rows. A "
        "bare savepoint is `SAVEPOINT` and `ROLLBACK TO` on the same driver and server.",
        header=("", "bare", "rollback", "ratio"),
        rows=tuple(rows),
    )


def _row(name: str, samples: dict[str, Samples], ours: str, floor: str) -> tuple[str, ...]:
    times = [milliseconds(samples[key].median) for key in (floor, ours)]
    return (name, *times, ratio(samples[ours].median, samples[floor].median, digits=3))


def _suites(effort: Effort) -> Table:
    places = [place for place in SUITES if place == "sqlite" or has_server()]
    with scratch() as folder:
        takers: dict[str, Callable[[], list[float]]] = {}
        for place in places:
            for way in ("floor", "rollback"):
                suite = Suite(folder / f"{place}-{way}", REQUESTS, _MORE_TESTS * effort.suite_tests)
                run = _on_sqlite if place == "sqlite" else _on_postgresql
                takers[f"{place}-{way}"] = partial(run, suite.write(), way)
        for place in places:
            takers[f"{place}-rollback"]()  # builds the template
        samples = in_turns(takers, rounds=effort.suite_rounds)
    rows = [_row(SUITES[place], samples, f"{place}-rollback", f"{place}-floor") for place in places]
    return Table(
        title="A test with three requests, with rollback",
        about="Times in milliseconds of a test. Without isolation the same app and client use a "
        "database that nothing restores.",
        header=("", "no isolation", "rollback", "ratio"),
        rows=tuple(rows),
    )


def _floor() -> Variant:
    return Variant(("-p", "bench.suite.variant_floor", *_LOOP))


def _on_sqlite(suite: Suite, way: str) -> list[float]:
    variant = _floor()
    if way == "rollback":
        variant = Variant((*ARENA, "--arena-isolation=rollback", *_LOOP))
    return suite.run(variant).tests


def _on_postgresql(suite: Suite, way: str) -> list[float]:
    if way == "rollback":
        variant = on_postgresql("rollback")
        return suite.run(replace(variant, arguments=(*variant.arguments, *_LOOP))).tests
    with databases() as own:
        return _without_isolation(own, suite)


def _without_isolation(own: ServerRegistry, suite: Suite) -> list[float]:
    name = own.create("live")
    url = url_of(own.address_of(name), "asyncpg")
    try:
        return suite.run(replace(_floor(), environment=(("BENCH_URLS", url),))).tests
    finally:
        own.drop(name)

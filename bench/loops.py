"""What does a loop for each test cost on PostgreSQL, where asyncpg's connections move along?"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from bench.page import Table, milliseconds
from bench.place import scratch
from bench.samples import in_turns, ratio
from bench.suites import LOOPS, REQUESTS, Suite, on_postgresql
from bench.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from bench.effort import Effort
    from bench.samples import Samples

__all__ = ["measure"]

TESTS = {
    "session": "one loop for all",
    "moves": "**a loop for each, connections move**",
    "stays": "a loop for each, connections stay and are dropped",
    "null": "a loop for each, `NullPool`",
}
STATEMENTS = {
    "plain": "asyncpg",
    "moving": "asyncpg on a transport that moves",
    "between": "the same, by turns in two loops",
}


def measure(effort: Effort) -> list[Table]:
    """Take them by turns, in one process; nothing where there is no PostgreSQL."""
    with scratch() as folder, Worker("bench._loops", folder / "loops", {}) as worker:
        if worker.tell("server") == "none":
            return []
        tests = _taken(worker, TESTS, effort.call_rounds, 20)
        statements = _taken(worker, STATEMENTS, effort.call_rounds, 10)
        suites = _suites(folder / "suite", effort)
    return [_whole(suites), _tests(tests), _statements(statements)]


_ON_POSTGRESQL = on_postgresql("undo")


def _suites(folder: Path, effort: Effort) -> dict[str, Samples]:
    suite = Suite(folder, REQUESTS, effort.suite_tests).write()
    takers: dict[str, Callable[[], list[float]]] = {
        loops: partial(_suite, suite, arguments) for loops, arguments in LOOPS.items()
    }
    suite.run(_ON_POSTGRESQL)  # builds the template
    return in_turns(takers, rounds=effort.suite_rounds)


def _suite(suite: Suite, loops: tuple[str, ...]) -> list[float]:
    arguments = (*_ON_POSTGRESQL.arguments, *loops)
    return suite.run(replace(_ON_POSTGRESQL, arguments=arguments)).tests


def _whole(samples: dict[str, Samples]) -> Table:
    many, one = (samples[loops] for loops in LOOPS)
    return Table(
        title="An unmodified suite on PostgreSQL with asyncpg",
        about="Milliseconds of a test with three requests, one of which writes, isolation `undo`, "
        "on a private server. Aim: a loop for each test within 1.2 times one loop.",
        header=("", "least median", "median"),
        rows=(
            *(
                (loops, milliseconds(one.quietest), milliseconds(one.median))
                for loops, one in samples.items()
            ),
            ("ratio", ratio(many.quietest, one.quietest), ratio(many.median, one.median)),
        ),
    )


def _taken(worker: Worker, names: Mapping[str, str], rounds: int, count: int) -> dict[str, Samples]:
    takers: dict[str, Callable[[], list[float]]] = {
        name: partial(worker.take, name, count) for name in names
    }
    return in_turns(takers, rounds=rounds)


def _tests(samples: dict[str, Samples]) -> Table:
    floor = samples["session"]
    return Table(
        title="Function-scoped loops against one loop, on PostgreSQL with asyncpg",
        about="Milliseconds of a test without pytest: its loop, three times a connection from a "
        "global engine with `pool_pre_ping`, and one statement on each. `added` is the median of "
        "the differences from one loop, in the same round. Aim: moving adds what the loop costs.",
        header=("", "least", "median", "added"),
        rows=tuple(
            (
                text,
                milliseconds(samples[name].least),
                milliseconds(samples[name].median),
                milliseconds(samples[name].above(floor)),
            )
            for name, text in TESTS.items()
        ),
    )


def _statements(samples: dict[str, Samples]) -> Table:
    plain = samples["plain"]
    return Table(
        title="A statement of asyncpg's",
        about="Microseconds, least / median, of a prepared statement that answers with one row.",
        header=("", "time", "ratio"),
        rows=tuple(
            (
                text,
                f"{samples[name].least * 1e6:.1f} / {samples[name].median * 1e6:.1f}",
                ratio(samples[name].median, plain.median),
            )
            for name, text in STATEMENTS.items()
        ),
    )

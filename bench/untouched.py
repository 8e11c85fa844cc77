"""What does the plugin cost a suite that uses nothing of it?"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from bench.page import Table, milliseconds
from bench.place import scratch
from bench.samples import Samples, in_turns
from bench.suites import (
    ARENA,
    BROUGHT,
    EMPTY,
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

_TIMES_AS_MANY = 5  # empty tests are quick
_ROUNDS = 4  # times as many as of others: what is asked is a fifth of a test


def measure(effort: Effort) -> list[Table]:
    """Run each suite with the plugin and without, by turns; ask the hooks of the first one."""
    with scratch() as folder:
        empty = Suite(folder / "empty", EMPTY, effort.suite_tests * _TIMES_AS_MANY).write()
        both = _by_turns(empty, Variant(()), Variant(ARENA), effort)
        used = Suite(folder / "used", EMPTY, empty.count).write()
        (used.folder / "test_a.py").write_text(REQUESTS.format(number=0))
        takes = {
            "hooks": partial(_hooks, empty, Variant(ARENA)),
            "file": partial(_hooks, used, Variant(ARENA)),
            "server": partial(_hooks, used, on_postgresql("auto")),
        }
        hooks = in_turns(takes, rounds=effort.suite_rounds * _ROUNDS // 2)
        tutorial = Suite(folder / "tutorial", TUTORIAL, effort.suite_tests).write()
        ours = Variant((*PLUGIN, *BROUGHT))
        brought = _by_turns(tutorial, Variant(BROUGHT), ours, effort, rounds=_ROUNDS)
    return [_empty(both | hooks), _own(brought)]


def _by_turns(
    suite: Suite, without: Variant, ours: Variant, effort: Effort, *, rounds: int = 2
) -> dict[str, Samples]:
    takes = {"without": partial(_tests, suite, without), "with": partial(_tests, suite, ours)}
    return in_turns(takes, rounds=effort.suite_rounds * rounds)


def _tests(suite: Suite, variant: Variant) -> list[float]:
    return suite.run(variant).tests


def _hooks(suite: Suite, variant: Variant) -> list[float]:
    settings = (*variant.environment, ("BENCH_HOOKS", "1"))
    return suite.run(Variant(variant.arguments, settings)).hooks


def _empty(every: dict[str, Samples]) -> Table:
    words = {
        "without": "without the plugin",
        "with": "with it",
        "hooks": "its own hooks, timed one by one",
        "file": "the same, after a test that has used a file",
        "server": "after one that has used a server",
    }
    rows = [(words[name], it.quietest, it.median) for name, it in every.items()]
    return Table(
        title="An empty test",
        about="Microseconds a test that asks for nothing. Aim: within the noise of nothing.",
        header=("", "least (of medians)", "median"),
        rows=tuple((name, *(f"{time * 1e6:.0f}" for time in times)) for name, *times in rows),
    )


def _own(both: dict[str, Samples]) -> Table:
    without, ours = both["without"], both["with"]
    rows = [
        ("without the plugin", without.quietest, without.median, 1.0),
        ("with it", ours.quietest, ours.median, ours.times(without)),
    ]
    return Table(
        title="An engine in memory for each test",
        about="Milliseconds a test that brings its own engine, makes a table, a row and a request, "
        "as FastAPI's tutorial has it; nothing of the plugin is asked for. How many times as long: "
        "in the median of rounds, of which each has both. Aim: 1.2.",
        header=("", "least (of medians)", "median", "times"),
        rows=tuple(
            (name, milliseconds(least), milliseconds(middle), f"{times:.2f}")
            for name, least, middle, times in rows
        ),
    )

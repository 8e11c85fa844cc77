"""What does the plugin cost a suite that uses nothing of it?"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from bench.page import Table
from bench.place import scratch
from bench.samples import Samples, in_turns
from bench.server import databases, has_server, url_of
from bench.suites import (
    ARENA,
    EMPTY,
    REQUESTS,
    Suite,
    Variant,
    on_postgresql,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.effort import Effort

__all__ = ["measure"]

_TIMES_AS_MANY = 5  # empty tests are quick
_ROUNDS = 4  # times as many as of others: what is asked is a fifth of a test
_FLOOR = Variant(("-p", "bench.suite.variant_floor"))  # imports the same app as arena's
_NOTHING = Variant(("-p", "bench.suite.variant_nothing"))
_DOES_NOTHING = "hooks that do nothing"


def measure(effort: Effort) -> list[Table]:
    """Run each suite with the plugin and without, by turns; ask the hooks of the empty ones."""
    with scratch() as folder:
        empty = Suite(folder / "empty", EMPTY, effort.suite_tests * _TIMES_AS_MANY).write()
        used = Suite(folder / "used", EMPTY, empty.count).write()
        (used.folder / "test_a.py").write_text(REQUESTS.format(number=0))
        with _after_a_server(used) as after_a_server:
            scenes = [
                _Scene("alone", empty, _FLOOR, Variant(ARENA)),
                _Scene("after a test on a file", used, _FLOOR, Variant(ARENA)),
                *after_a_server,
            ]
            takes = {_DOES_NOTHING: partial(_hooks, empty, _NOTHING, "bench.suite.variant_nothing")}
            for scene in scenes:
                takes |= scene.takes()
            empties = in_turns(takes, rounds=effort.suite_rounds * _ROUNDS // 2)
    return [_empty(scenes, empties)]


@dataclass(frozen=True, slots=True)
class _Scene:
    """What has happened in the process before its empty tests, and a suite of those."""

    words: str
    suite: Suite
    without: Variant
    ours: Variant

    def takes(self) -> dict[str, partial[list[float]]]:
        """Return what measures it: without the plugin, with it, and its hooks by themselves."""
        return {
            f"{self.words}, without": partial(_tests, self.suite, self.without),
            f"{self.words}, with": partial(_tests, self.suite, self.ours),
            f"{self.words}, hooks": partial(_hooks, self.suite, self.ours, "pytest_arena.plugin"),
        }


@contextmanager
def _after_a_server(suite: Suite) -> Iterator[list[_Scene]]:
    if not has_server():
        yield []
        return
    with databases() as own:
        name = own.create("live")
        url = url_of(own.address_of(name), "asyncpg")
        without = Variant(_FLOOR.arguments, (("BENCH_URLS", url),))
        try:
            ours = on_postgresql("auto")
            yield [_Scene("after a test on a server", suite, without, ours)]
        finally:
            own.drop(name)


def _tests(suite: Suite, variant: Variant) -> list[float]:
    return suite.run(variant).tests


def _hooks(suite: Suite, variant: Variant, plugin: str) -> list[float]:
    settings = (*variant.environment, ("BENCH_HOOKS", plugin))
    return suite.run(Variant(variant.arguments, settings)).hooks


def _empty(scenes: list[_Scene], every: dict[str, Samples]) -> Table:
    rows = []
    for scene in scenes:
        without, ours, hooks = (
            every[f"{scene.words}, {each}"] for each in ("without", "with", "hooks")
        )
        times = (without.median, ours.median, ours.above(without), hooks.median)
        rows.append((scene.words, *(f"{time * 1e6:.0f}" for time in times)))
    nothing = every[_DOES_NOTHING].median * 1e6
    return Table(
        title="An empty test",
        about="Times in microseconds of a test without fixtures. The last column shows the time "
        "of pytest-arena's hooks. The same number of empty hooks takes "
        f"{nothing:.0f} µs.",
        header=(
            *("the empty test runs", "without the plugin", "with the plugin", "added", "hooks"),
        ),
        rows=tuple(rows),
    )

"""Runs of pytest over generated tests, and the time of each test in them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOT = Path(__file__).parent.parent
# The first tests of a process import, connect and compile.
WARM = 10
TEST = """
async def test_{number}(client):
    made = (await client.post("/items", params={{"name": "Sand {number}"}})).json()
    assert (await client.get("/items")).json()[0] == made["name"]
    assert (await client.get(f"/items/{{made['id']}}")).json() == made
"""
EMPTY = """
def test_nothing():
    pass
"""
ARENA = {"arena_app": "bench.shop:app", "arena_schema": "bench.shop:Base"}


@dataclass(frozen=True, slots=True)
class Variant:
    """A way to isolate tests: a module of bench.variants, or pytest-arena with options."""

    plugin: str
    options: Mapping[str, str] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    """Arguments of pytest that load another plugin."""


@dataclass(frozen=True, slots=True)
class Suite:
    """Generated tests in a folder."""

    folder: Path
    count: int

    def run(
        self, variant: Variant, url: str, loop: str, settings: Mapping[str, str]
    ) -> list[float]:
        """Run the tests once in a new process. Return the time of each, in milliseconds."""
        tests = "".join(TEST.format(number=number) for number in range(self.count + WARM))
        (self.folder / "test_bench.py").write_text(tests)
        times = self.folder / "times.json"
        plugin = ("-p", f"bench.variants.{variant.plugin}")
        options = {
            "asyncio_mode": "auto",
            "asyncio_default_test_loop_scope": loop,
            "asyncio_default_fixture_loop_scope": loop,
        }
        if not variant.plugin:
            plugin = ("-p", "pytest_arena.plugin")
            options |= {**ARENA, **variant.options, **settings}
        environment = {"DATABASE_URL": url, "BENCH_TIMES": str(times)}
        # Connections of asyncpg and asyncmy cannot change the loop.
        if variant.plugin and loop == "function" and not url.startswith("sqlite"):
            environment["BENCH_POOL"] = "none"
        arguments = ("-p", "bench.clock", "-p", "pytest_asyncio.plugin", *variant.needs, *plugin)
        self._pytest((*arguments, *_options(options)), environment)
        return [seconds * 1e3 for seconds in json.loads(times.read_text())[WARM:]]

    def replay(self, url: str, settings: Mapping[str, str]) -> tuple[int, float]:
        """Replay the writing requests of one test. Return their number, and the seconds."""
        (self.folder / "test_bench.py").write_text(TEST.format(number=0))
        options = {"asyncio_mode": "auto", **ARENA, **settings}
        plugins = ("-p", "pytest_asyncio.plugin", "-p", "pytest_arena.plugin")
        output = self._pytest(
            (*plugins, *_options(options), "--arena-replay", "-Wignore"), {"DATABASE_URL": url}
        )
        found = re.search(r"(\d+) replays of 1 route in ([\d.]+) s", output)
        if found is None:
            raise RuntimeError(output[-2000:])
        return int(found[1]), float(found[2])

    def start(self, *, with_plugin: bool) -> float:
        """Run one empty test in a new process. Return the CPU time of the process, in seconds."""
        (self.folder / "test_bench.py").write_text(EMPTY)
        # pytest loads pytest-arena by its entry point, as for a user, and no other plugin.
        names = {entry.name for entry in entry_points(group="pytest11")}
        if with_plugin:
            names.remove("arena")
        before = os.times()
        self._pytest(
            [part for name in names for part in ("-p", f"no:{name}")],
            {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": ""},
        )
        after = os.times()
        return (
            after.children_user
            + after.children_system
            - before.children_user
            - before.children_system
        )

    def _pytest(self, arguments: Sequence[str], environment: Mapping[str, str]) -> str:
        dropped = ("ARENA_", "DATABASE_URL", "PYTEST_", "PYTHON")
        kept = {name: text for name, text in os.environ.items() if not name.startswith(dropped)}
        ours = {
            "ARENA_CACHE": str(self.folder / "cache"),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "PYTHONPATH": str(ROOT),
        }
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments],
            cwd=self.folder,
            env={**kept, **ours, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(done.stdout[-2000:] + done.stderr[-2000:])
        return done.stdout


def _options(options: Mapping[str, str]) -> list[str]:
    return [part for name, value in options.items() for part in ("-o", f"{name}={value}")]

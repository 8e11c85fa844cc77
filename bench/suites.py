"""Whole runs of pytest over generated tests, and how long each test took in them."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from bench.place import environment

__all__ = ["ARENA", "EMPTY", "LOOPS", "REQUESTS", "Outcome", "Suite", "Variant"]

ARENA = (
    *("-p", "pytest_arena.plugin"),
    *("--arena-app=bench.suite.shop:app", "--arena-schema=bench.suite.shop:Base"),
)
# Of each test: three requests, as a short end-to-end test makes them.
REQUESTS = """
async def test_{number}(client):
    made = (await client.post("/items", params={{"name": "Sand {number}"}})).json()
    assert (await client.get("/items")).json()[0] == made["name"]
    assert (await client.get(f"/items/{{made['id']}}")).json() == made
"""
EMPTY = """
def test_{number}():
    pass
"""
# The first tests import, connect and compile; what they cost is the start's.
_WARM = 10

LOOPS = {
    "a loop for each test": ("-o", "asyncio_default_test_loop_scope=function"),
    "one loop for all": (
        *("-o", "asyncio_default_test_loop_scope=session"),
        *("-o", "asyncio_default_fixture_loop_scope=session"),
    ),
}


_PYTEST = (
    *("-m", "pytest", "-q", "-p", "no:cacheprovider"),
    *("-p", "bench.suite.clock", "-p", "pytest_asyncio.plugin"),
)


@dataclass(frozen=True, slots=True)
class Variant:
    """A way to isolate tests: pytest's arguments, and what the environment says."""

    arguments: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()
    on_disk: bool = False
    """Whether its temporary files are where pytest has them, and not in memory."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run took, in seconds: each test, arena's hooks in each test, and all together."""

    tests: list[float]
    hooks: list[float]
    whole: float
    output: str


@dataclass(frozen=True, slots=True)
class Suite:
    """Generated tests, in a folder of their own."""

    folder: Path
    test: str
    count: int

    def write(self) -> Suite:
        """Write the test file."""
        self.folder.mkdir(parents=True)
        body = "".join(self.test.format(number=number) for number in range(self.count + _WARM))
        (self.folder / "test_bench.py").write_text(body)
        (self.folder / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\n")
        return self

    def run(self, variant: Variant, *, python: tuple[str, ...] = ()) -> Outcome:
        """Run it once, in a new process, which starts on no database but on a warm template."""
        with tempfile.TemporaryDirectory(dir=None if variant.on_disk else self.folder) as base:
            output = Path(base) / "times.json"
            (self.folder / "dev.db").unlink(missing_ok=True)
            settings = {"BENCH_OUTPUT": str(output), **dict(variant.environment)}
            started = perf_counter()
            done = subprocess.run(
                [sys.executable, *python, *_PYTEST, f"--basetemp={base}/tests", *variant.arguments],
                cwd=self.folder,
                env=environment(self.folder, settings),
                capture_output=True,
                text=True,
                check=False,
            )
            whole = perf_counter() - started
            if done.returncode:
                raise RuntimeError(done.stdout + done.stderr)
            times = json.loads(output.read_text(encoding="utf-8"))
        return Outcome(times["tests"][_WARM:], times["hooks"][_WARM:], whole, done.stderr)

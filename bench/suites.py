"""Whole runs of pytest over generated tests, and how long each test took in them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from bench.place import environment
from bench.server import CACHE, NAMED

__all__ = [
    "ARENA",
    "BROUGHT",
    "EMPTY",
    "LOOPS",
    "PLUGIN",
    "REQUESTS",
    "TUTORIAL",
    "WARM",
    "Outcome",
    "Suite",
    "Variant",
    "on_postgresql",
]

PLUGIN = ("-p", "pytest_arena.plugin")
ARENA = (
    *PLUGIN,
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
# The test brings its own engine, and nothing of arena's is asked for.
BROUGHT = ("-p", "bench.suite.tutorial")
TUTORIAL = """
from bench.suite.tutorial import Hero

def test_{number}(own_client, session):
    session.add(Hero(name="Deadpond"))
    session.commit()
    assert own_client.get("/heroes").json() == ["Deadpond"]
"""
# The first tests of a process import, connect and compile; what they cost is the start's.
WARM = 10

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


def on_postgresql(isolation: str) -> Variant:
    """Arena, and an app that names a server that is nowhere: it is led to the one of the bench."""
    database = os.environ.get(NAMED) or "own"
    return Variant(
        (*ARENA, f"--arena-database={database}", f"--arena-isolation={isolation}"),
        (
            ("DATABASE_URL", "postgresql+asyncpg://shop@db.example.com/shop"),
            ("ARENA_CACHE", str(CACHE)),
        ),
    )


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
        body = "".join(self.test.format(number=number) for number in range(self.count + WARM))
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
            tests, hooks = _times(output)
        return Outcome(tests, hooks, whole, done.stderr)


def _times(output: Path) -> tuple[list[float], list[float]]:
    """Return the times of all processes of a run, without the first tests of each."""
    tests, hooks = [], []
    for file in output.parent.glob(f"*-{output.name}"):
        times = json.loads(file.read_text(encoding="utf-8"))
        tests += times["tests"][WARM:]
        hooks += times["hooks"][WARM:]
    return tests, hooks

"""Ctrl-C, SIGTERM, kill -9: nothing is left, and the next run is clean."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.example import WIDE

if TYPE_CHECKING:
    from tests.example import Example, Run

FIXED = """
@pytest.fixture
async def fixed(client, wide):
    await client.post("/dancers/Fix")

def test_sync(test_client, db_session):
    test_client.post("/dancers/Dune")
    db_session.add(Dancer(name="open"))
    db_session.flush()
"""

# A run strikes itself at the place that it is told.
TESTS = (
    WIDE
    + """
import os
import pathlib
import signal
from app import maker

def strike(place):
    if place in os.environ.get("PLACES", "").split():
        os.kill(os.getpid(), int(os.environ["SIGNAL"]))

async def test_async(fixed, client, arena):
    pathlib.Path(f"home-{os.getpid()}").write_text(arena.url)
    assert (await client.get("/dancers")).json() == ["Sand", "Wide", "Fix"]
    async with maker() as session:
        session.add(Dancer(name="open"))
        await session.flush()
        strike("call")
"""
    + FIXED
)

SEED = """
import os
import signal
import threading
from app import Dancer

async def seed(session):
    session.add(Dancer(name="Sand"))
    await session.flush()
    if os.environ.get("PLACES") == "build":
        os.kill(os.getpid(), int(os.environ["SIGNAL"]))
        threading.Event().wait()
"""

NEXT = """
def test_next(test_client):
    assert test_client.get("/dancers").json() == ["Sand"]
"""


def left(run: Run) -> list[Path]:
    """The databases of these runs that are still there, and what the app made of its own."""
    urls = [file.read_text().strip() for file in run.folder.glob("home-*")]
    homes = [Path(url.partition("///")[2]).parent for url in urls]
    return [path for path in [*homes, run.folder / "dev.db"] if path.exists()]


@pytest.fixture
def project(example: Example) -> Example:
    """Tests that strike, and one that comes next."""
    return example.with_files(test_it=TESTS, test_next=NEXT, seed=SEED)


def test_ctrl_c_and_kill(project: Example) -> None:
    """What a killed run leaves, the next run sweeps."""
    for places in ("build", "call"):
        run = project.run("test_it.py", env={"PLACES": places, "SIGNAL": str(signal.SIGINT.value)})
        assert run.status == pytest.ExitCode.INTERRUPTED, run.output
        run.says("KeyboardInterrupt").never_says("INTERNALERROR")
        assert left(run) == []
    run = project.run("test_it.py", env={"PLACES": "call", "SIGNAL": str(signal.SIGKILL.value)})
    assert run.status == -signal.SIGKILL, run.output
    project.run("test_next.py").expect(passed=1)
    assert left(run) == []

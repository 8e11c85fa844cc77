"""Ctrl-C, SIGTERM, kill -9: nothing is left, and the next run is clean."""

from __future__ import annotations

import os
import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.example import Example, Run

# A run strikes itself at the place that it is told.
TESTS = """
import os
import pathlib
import signal
import pytest
from app import Dancer, maker

def strike(place):
    if place in os.environ.get("PLACES", "").split():
        os.kill(os.getpid(), int(os.environ["SIGNAL"]))

@pytest.fixture(scope="module")
def wide(arena):
    pathlib.Path(f"home-{os.getpid()}").write_text(arena.url)
    with arena.session() as session:
        session.add(Dancer(name="Wide"))
        session.commit()
    strike("wide")
    yield
    strike("wide-end")

@pytest.fixture
async def fixed(client, wide):
    await client.post("/dancers/Fix")
    strike("set-up")
    yield
    strike("tear-down")

async def test_async(fixed, client):
    await client.post("/dancers/Dune")
    async with maker() as session:
        session.add(Dancer(name="open"))
        await session.flush()
        strike("call")

def test_sync(test_client, db_session):
    test_client.post("/dancers/Dune")
    db_session.add(Dancer(name="open"))
    db_session.flush()
    strike("sync-call")
"""

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


@pytest.mark.slow
@pytest.mark.parametrize(
    "places",
    [
        "build",
        "call",
        pytest.param("tear-down", marks=pytest.mark.slow),
        pytest.param("wide", marks=pytest.mark.slow),
        pytest.param("set-up", marks=pytest.mark.slow),
        pytest.param("sync-call", marks=pytest.mark.slow),
        pytest.param("wide-end", marks=pytest.mark.slow),
    ],
)
def test_ctrl_c_pitfall_071(project: Example, places: str) -> None:
    """P4, P7: pytest ends as it does, our files are gone, the next run has the template's state."""
    run = project.run("test_it.py", env={"PLACES": places, "SIGNAL": str(signal.SIGINT.value)})
    assert run.status == pytest.ExitCode.INTERRUPTED, run.output
    run.says("KeyboardInterrupt").never_says("INTERNALERROR")
    assert left(run) == []
    project.run("test_next.py").expect(passed=1)


@pytest.mark.slow
def test_ctrl_c_twice_pitfall_071(project: Example) -> None:
    """The second one breaks off the tear-down: all the same."""
    variables = {"PLACES": "call wide-end", "SIGNAL": str(signal.SIGINT.value)}
    run = project.run("test_it.py", env=variables)
    assert run.status not in {0, 1}, run.output
    assert left(run) == []
    project.run("test_next.py").expect(passed=1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_killed_pitfall_071(project: Example, number: signal.Signals) -> None:
    """A process that gets no chance to do anything: the next run sweeps."""
    run = project.run("test_it.py", env={"PLACES": "call", "SIGNAL": str(number.value)})
    assert run.status == -number.value, run.output
    project.run("test_next.py").expect(passed=1)
    assert left(run) == []


ENDS = """
import pytest

def test_red():
    assert 1 == 2

async def test_ends(client):
    await client.post("/dancers/Dune")
    {}
"""

BROKEN_SUMMARY = """
from pytest_arena import _hooks

def summarize(*args):
    raise RuntimeError("the server is gone")

_hooks.summarize = summarize
"""


@pytest.mark.slow
@pytest.mark.parametrize("end", ["pytest.exit('enough')", "raise KeyboardInterrupt"])
def test_a_run_that_is_broken_off_beside_the_developers_file_shows_its_failures(
    project: Example, end: str
) -> None:
    """The test that broke it off has not ended, and the app's file exists."""
    project.folder.mkdir(parents=True)
    with closing(sqlite3.connect(project.folder / "dev.db")) as connection:
        connection.execute("CREATE TABLE dancers (id INTEGER PRIMARY KEY, name VARCHAR)")
        connection.commit()
    os.utime(project.folder / "dev.db", (1_000_000_000, 1_000_000_000))
    run = project.with_files(test_ends=ENDS.format(end)).run("test_ends.py")
    run.expect(pytest.ExitCode.INTERRUPTED, failed=1)
    run.says("assert 1 == 2").never_says("ProductionDatabaseError")


def test_an_error_of_the_summary_hides_no_failure(example: Example) -> None:
    """Nor does it hide itself: the run fails, also if all tests passed."""
    project = example.with_files(test_ends=ENDS.format("pass"), conftest=BROKEN_SUMMARY)
    run = project.run("test_ends.py").expect(1, passed=1, failed=1)
    run.says("assert 1 == 2", "RuntimeError: the server is gone")
    project.run("test_ends.py::test_ends").expect(1, passed=1)


BUILDER = """
import os
from app import Dancer

async def seed(session):
    session.add(Dancer(name="Sand"))
    await session.flush()
    if not os.path.exists("died"):
        open("died", "w").close()
        os._exit(9)
"""


@pytest.mark.slow
def test_a_builder_that_dies_pitfall_074(example: Example) -> None:
    """A build that was broken off is nobody's template: another worker builds it."""
    tests = "import pytest\n" + "\n".join(
        f"def test_{number}(test_client):\n"
        '    assert test_client.get("/dancers").json() == ["Sand"]\n'
        for number in range(6)
    )
    run = example.with_files(test_it=tests, seed=BUILDER).run("-p", "xdist.plugin", "-n2")
    run.expect(status=1, passed=5, failed=1).says("crashed while running")

"""A run that is killed, Ctrl-C, and a server that crashes: the next test has its database."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from tests.example import SEED as PLAIN_SEED
from tests.example import WIDE
from tests.others.test_ways_to_end import FIXED
from tests.plugin.private_server import PrivateServer, on_postgresql

if TYPE_CHECKING:
    from tests.example import Example, Run

# A run sends itself a signal in its first test, or kills itself at a statement of pytest-arena.
CONFTEST = """
import os
import re
import signal
import threading
from pytest_arena._postgresql._control import PostgreSQLControl

SIGNAL = os.environ.get("SIGNAL", "")
STATEMENT = os.environ.get("STATEMENT", "")


def strike():
    if SIGNAL:
        os.kill(os.getpid(), int(SIGNAL))


def execute(self, sql, *, fetch, say=PostgreSQLControl._execute):
    if STATEMENT and re.match(STATEMENT, sql):
        threading.Thread(target=say, args=(self, sql), kwargs={"fetch": fetch}).start()
        self.sent.wait(0.003)
        os.kill(os.getpid(), signal.SIGKILL)
    return say(self, sql, fetch=fetch)


PostgreSQLControl.sent = threading.Event()  # never set: the statement needs a moment to arrive
PostgreSQLControl._execute = execute
"""

TESTS = (
    WIDE
    + """
from conftest import strike
from app import maker


async def test_async(fixed, client):
    await client.post("/dancers/Dune")
    async with maker() as session:
        session.add(Dancer(name="open"))
        await session.flush()
        strike()
"""
    + FIXED
)

SEED = 'VERSION = "{version}"' + PLAIN_SEED

NEXT = """
import pytest


@pytest.mark.parametrize("turn", range(3))
def test_next(test_client, turn):
    assert test_client.get("/dancers").json() == ["Sand"]
    assert test_client.post("/dancers/Dune").status_code == 201
"""


class Project:
    def __init__(self, example: Example, server: PrivateServer) -> None:
        files = {"conftest": CONFTEST, "test_it": TESTS, "test_next": NEXT, "seed": SEED}
        self.example, self.server = on_postgresql(example, **files), server

    def run(self, version: str, *words: str, isolation: str = "clone", **env: str) -> Run:
        options = {"PYTEST_ADDOPTS": f"--arena-isolation={isolation}"}
        project = self.example.with_files(seed=SEED.replace("{version}", version))
        return project.run(*words, env={**self.server.env, **options, **env})

    def strike(self, number: signal.Signals) -> Run:
        return self.run("struck", "test_it.py", SIGNAL=str(number.value))

    def is_green_next(self) -> None:
        """Run the next tests, which are green and leave nothing, of earlier runs either."""
        self.server.wait_until_forgotten()
        self.server.check_clean(self.run("usual", "test_next.py").expect(passed=3).output)


@pytest.fixture
def project(example: Example, server: PrivateServer) -> Project:
    return Project(example, server)


# The life of a template, of a clone and of a level.
STATEMENTS = [
    ('CREATE DATABASE "arena_building_', "clone"),
    ('ALTER DATABASE "arena_building_\\w+" RENAME', "clone"),
    ('CREATE DATABASE "arena_live_', "clone"),
    (r"SELECT row_to_json.* pg_arena\.leave\(", "undo"),
]


def test_a_killed_run_leaves_nothing_to_the_next_one(project: Project) -> None:
    """It dies while it builds a template, while it creates or drops a database, or in a test."""
    for number, (statement, isolation) in enumerate(STATEMENTS):
        run = project.run(
            f"killed {number}", "test_it.py", isolation=isolation, STATEMENT=statement
        )
        assert run.status == -signal.SIGKILL, run.output
    run = project.strike(signal.SIGKILL)
    assert run.status == -signal.SIGKILL, run.output
    assert project.server.of_runs()
    project.is_green_next()


def test_ctrl_c_leaves_nothing(project: Project) -> None:
    run = project.strike(signal.SIGINT)
    assert run.status == pytest.ExitCode.INTERRUPTED, run.output
    run.says("KeyboardInterrupt").never_says("INTERNALERROR")
    project.server.check_clean(run.output)

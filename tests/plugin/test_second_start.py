"""An app that starts only once in a process: the error of its second start says what to set."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.example import Example

LIFESPAN = """
from contextlib import asynccontextmanager


class Pool:
    was_open = False

    def open(self):
        if self.was_open:
            raise RuntimeError("the pool cannot be reused")
        self.was_open = True


pool = Pool()


@asynccontextmanager
async def lifespan(app):
    pool.open()
    yield
"""
TEST = """
import pytest


@pytest.mark.parametrize("turn", [1, 2])
async def test_it(client, turn):
    assert (await client.get("/dancers")).json() == ["Sand"]


@pytest.mark.parametrize("turn", [1, 2])
def test_by_a_sync_client(test_client, turn):
    assert test_client.get("/dancers").json() == ["Sand"]
"""
OPTION = "arena_lifespan = session"


@pytest.fixture
def project(example: Example) -> Example:
    """Return the example, whose start-up opens a pool that opens once."""
    project = example.change("app.py", "FastAPI()", "FastAPI(lifespan=lifespan)")
    project = project.change("app.py", "app = FastAPI", f"{LIFESPAN}\n\napp = FastAPI")
    return project.with_files(test_it=TEST)


def test_the_next_step_of_a_second_start_that_fails(project: Example) -> None:
    """It is set, and the run is green."""
    project.run("--tb=short").expect(1, passed=1, failed=1, errors=2).says(OPTION)
    project.change("pytest.ini", "[pytest]", f"[pytest]\n{OPTION}").run().expect(passed=4)

"""pytest-cov, subtests and unittest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.example import Example

USUAL = """
import pytest
from app import Dancer

@pytest.mark.parametrize("turn", range(2))
async def test_async(client, db_session, turn):
    db_session.add(Dancer(name="Grain"))
    assert (await client.get("/dancers")).json() == ["Sand", "Grain"]
    assert (await client.post("/dancers/Dune")).status_code == 201

@pytest.mark.parametrize("turn", range(2))
def test_sync(test_client, db_session, turn):
    db_session.add(Dancer(name="Grain"))
    assert test_client.get("/dancers").json() == ["Sand", "Grain"]
    assert test_client.post("/dancers/Dune").status_code == 201
"""


def test_cov(example: Example) -> None:
    """Every line of the app counts, async engines' greenlets and the client's thread included."""
    project = example.with_files(test_it=USUAL).with_paths(
        {".coveragerc": "[run]\nconcurrency = greenlet,thread\n"}
    )
    run = project.run("-p", "pytest_cov.plugin", "--cov=app", "--cov-report=term-missing")
    run.expect(passed=4)
    line = next(line for line in run.output.splitlines() if line.startswith("app.py"))
    assert line.split()[-1] == "100%", line


OPTIONS = """
import pytest

@pytest.fixture
def client_options():
    return {"headers": {"x-tribe": "Sand"}}

async def test_options(arena):
    assert arena.client().headers["x-tribe"] == "Sand"
    assert arena.client(headers={"x-tribe": "Dune"}).headers["x-tribe"] == "Dune"
    assert arena.test_client().headers["x-tribe"] == "Sand"

@pytest.fixture(scope="module")
def wide(arena):
    return arena.test_client().headers.get("x-tribe")

def test_a_wide_fixture_has_no_options(wide):
    assert wide is None
"""

TASTES = """
import socket
import unittest
import pytest
from app import Dancer

async def test_subtests(client, subtests):
    for number in range(3):
        with subtests.test(number=number):
            assert (await client.post(f"/dancers/{number}")).status_code == 201
            assert number != 1
    assert len((await client.get("/dancers")).json()) == 4

class TestUnit(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        from sqlalchemy import create_engine, text
        cls.engine = create_engine("sqlite:///dev.db")
        with cls.engine.begin() as connection:
            connection.execute(text("INSERT INTO dancers (name) VALUES ('Class')"))

    def count(self):
        from sqlalchemy import text
        with self.engine.begin() as connection:
            connection.execute(text("INSERT INTO dancers (name) VALUES (hex(randomblob(8)))"))
            return connection.scalar(text("SELECT count(*) FROM dancers"))

    def test_sub(self):
        for number in range(3):
            with self.subTest(number=number):
                assert self.count() == 3 + number

    def test_next(self):
        assert self.count() == 3

def test_after(test_client):
    assert test_client.get("/dancers").json() == ["Sand"]
"""


def test_subtests_and_unittest(example: Example) -> None:
    """A failed subtest fails its test; the state is the test's; `setUpClass` seeds its class."""
    pytest.importorskip("_pytest.subtests", reason="pytest has them since 9")
    project = example.with_files(test_it=TASTES, test_options=OPTIONS)
    run = project.run()
    assert run.status == 1, run.output
    run.says("SUBFAILED", "number=1")
    assert (run.outcomes["failed"], run.outcomes["passed"]) == (2, 5)

"""pytest-cov, subtests, unittest, reruns, forks and Hypothesis."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.example import WIDE

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
    run = example.with_files(test_it=TASTES, test_options=OPTIONS).run()
    assert run.status == 1, run.output
    run.says("SUBFAILED", "number=1")
    assert (run.outcomes["failed"], run.outcomes["passed"]) == (2, 5)


RERUN = (
    WIDE
    + """
import itertools

ATTEMPTS = itertools.count(1)

@pytest.mark.flaky(reruns=2)
async def test_third_time(client, wide, db_session):
    assert (await client.get("/dancers")).json() == ["Sand", "Wide"]
    db_session.add(Dancer(name="Grain"))
    assert (await client.post("/dancers/Dune")).status_code == 201
    assert next(ATTEMPTS) == 3

@pytest.fixture
def shaky(test_client, wide):
    test_client.post("/dancers/Shaky")
    assert next(ATTEMPTS) == 6

@pytest.mark.flaky(reruns=2)
def test_third_set_up(shaky, test_client):
    assert test_client.get("/dancers").json() == ["Sand", "Wide", "Shaky"]

def test_after(wide, test_client):
    assert test_client.get("/dancers").json() == ["Sand", "Wide"]
"""
)


@pytest.mark.parametrize("more", [(), ("-p", "xdist.plugin", "-n1")], ids=["alone", "xdist"])
def test_rerunfailures(example: Example, more: tuple[str, ...]) -> None:
    """Each attempt begins with the fixture's data whole, and counts as a test."""
    run = (
        example.with_files(test_it=RERUN).run(*more, "-p", "pytest_rerunfailures").expect(passed=3)
    )
    run.says("4 rerun", "7 of 7 tests used a database of their own, and 6 changed it")


APP = """

from contextlib import asynccontextmanager

starts = []


@asynccontextmanager
async def lifespan(app):
    starts.append("up")
    yield
    starts.append("down")


app.router.lifespan_context = lifespan
"""

EXAMPLES = """
from uuid import uuid4

from hypothesis import HealthCheck, given, settings, strategies as st
from app import Dancer, starts

settings.register_profile(
    "few",
    deadline=None,
    max_examples=5,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
settings.load_profile("few")


@given(st.integers())
async def test_async(client, db_session, number):
    before = (await client.get("/dancers")).json()
    assert starts == ["up"]
    row, dune = str(uuid4()), str(uuid4())
    db_session.add(Dancer(name=row))
    assert (await client.post(f"/dancers/{dune}")).status_code == 201
    assert (await client.get("/dancers")).json() == [*before, row, dune]


@given(st.integers())
def test_sync(test_client, db_session, number):
    before = test_client.get("/dancers").json()
    assert starts == ["up", "down", "up"]
    row, dune = str(uuid4()), str(uuid4())
    db_session.add(Dancer(name=row))
    assert test_client.post(f"/dancers/{dune}").status_code == 201
    assert test_client.get("/dancers").json() == [*before, row, dune]


def test_after(test_client):
    assert test_client.get("/dancers").json() == ["Sand"]
    assert starts == ["up", "down"] * 2 + ["up"]
"""


@pytest.mark.parametrize("scope", ["function", "session"])
def test_the_examples_of_a_test_share_its_database(example: Example, scope: str) -> None:
    """The lifespan runs once for each test, in each loop scope."""
    project = example.with_files(app=example.files["app.py"] + APP, test_it=EXAMPLES)
    options = f"asyncio_default_test_loop_scope={scope}"
    run = project.run("-p", "_hypothesis_pytestplugin", "-o", options).expect(passed=3)
    run.never_says("left a task", "cut off")

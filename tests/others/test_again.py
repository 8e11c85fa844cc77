"""Tests that run more than once: rerunfailures, flaky, repeat, forked."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.example import Example

ELSEWHERE = "`make test-full` has it, in an environment of its own"

TESTS = """
import itertools
import pytest
from sqlalchemy import func, select
from app import Dancer

ATTEMPTS = itertools.count(1)

@pytest.fixture(scope="module")
def wide(arena):
    with arena.session() as session:
        session.add(Dancer(name="Wide"))
        session.commit()

@pytest.mark.flaky(RERUNS)
async def test_third_time(client, wide, db_session):
    assert (await client.get("/dancers")).json() == ["Sand", "Wide"]
    db_session.add(Dancer(name="Grain"))
    assert (await client.post("/dancers/Dune")).status_code == 201
    assert next(ATTEMPTS) == 3

@pytest.fixture
def shaky(test_client, wide):
    test_client.post("/dancers/Shaky")
    assert next(ATTEMPTS) == 6

@pytest.mark.flaky(RERUNS)
def test_third_set_up(shaky, test_client):
    assert test_client.get("/dancers").json() == ["Sand", "Wide", "Shaky"]

def test_after(wide, test_client):
    assert test_client.get("/dancers").json() == ["Sand", "Wide"]
"""

EACH = """
import pytest
from app import Dancer

@pytest.fixture(scope="class")
def wide(arena):
    with arena.session() as session:
        session.add(Dancer(name="Wide"))
        session.commit()

class TestAll:
    async def test_async(self, client, wide):
        assert (await client.get("/dancers")).json() == ["Sand", "Wide"]
        assert (await client.post("/dancers/Dune")).status_code == 201

    def test_sync(self, test_client, wide):
        assert test_client.get("/dancers").json() == ["Sand", "Wide"]
        assert test_client.post("/dancers/Dune").status_code == 201

def test_narrow(test_client):
    assert test_client.get("/dancers").json() == ["Sand"]
    assert test_client.post("/dancers/Dune").status_code == 201
"""

FORKED = """
import os

@pytest.mark.forked
async def test_of_a_child(client):
    assert (await client.get("/dancers")).json() == ["Sand"]
    assert (await client.post("/dancers/Dune")).status_code == 201

@pytest.mark.forked
def test_dies(test_client):
    test_client.post("/dancers/Dead")
    os._exit(7)

def test_of_the_parent(test_client):
    assert test_client.get("/dancers").json() == ["Sand"]
"""


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), ("-p", "xdist.plugin", "-n1")], ids=["alone", "xdist"])
def test_rerunfailures_pitfall_078(example: Example, more: tuple[str, ...]) -> None:
    """P2, P6: each attempt begins with the fixture's data whole, and counts as a test."""
    pytest.importorskip("pytest_rerunfailures", reason=ELSEWHERE)
    project = example.with_files(test_it=TESTS.replace("RERUNS", "reruns=2"))
    run = project.run(*more, "-p", "pytest_rerunfailures").expect(passed=3)
    run.says("4 rerun", "7 of 7 tests had a separate database, and 6 changed it")


def test_flaky_pitfall_078(example: Example) -> None:
    """As rerunfailures; flaky runs a test again when its call has failed, not its set-up."""
    pytest.importorskip("flaky", reason=ELSEWHERE)
    tests = TESTS.replace("RERUNS", "max_runs=3").replace("== 6", ">= 4")
    run = example.with_files(test_it=tests).run("-p", "flaky.flaky_pytest_plugin")
    run.expect(passed=3).says("5 of 5 tests had a separate database, and 4 changed it")


@pytest.mark.slow
@pytest.mark.parametrize("scope", ["session", pytest.param("function", marks=pytest.mark.slow)])
def test_repeat_pitfall_078(example: Example, scope: str) -> None:
    """P2: every turn begins with the template's state."""
    run = example.with_files(test_it=EACH).run(
        "-p", "pytest_repeat", "--count=3", f"--repeat-scope={scope}"
    )
    run.expect(passed=9).says("9 of 9 tests had a separate database, and 9 changed it")


def test_forked_pitfall_078(example: Example) -> None:
    """P2: a child that dies leaves nothing to its parent; the facts of others arrive."""
    if version("pytest") >= "9":
        pytest.skip("pytest-forked 1.7.5 does not run with pytest 9, with arena or without")
    quiet = example.change("pytest.ini", "filterwarnings = error\n", "")  # for files of its own
    run = quiet.with_files(test_it=EACH + FORKED).run("-p", "pytest_forked")
    run.expect(status=1, passed=5, failed=1)
    run.says("5 of 5 tests had a separate database, and 4 changed it")

"""Tests that run more than once, or in a fork: pytest-rerunfailures, pytest-forked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.example import WIDE

if TYPE_CHECKING:
    from tests.example import Example

TESTS = (
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
    """P2, P6: each attempt begins with the fixture's data whole, and counts as a test."""
    run = (
        example.with_files(test_it=TESTS).run(*more, "-p", "pytest_rerunfailures").expect(passed=3)
    )
    run.says("4 rerun", "7 of 7 tests had a separate database, and 6 changed it")


FORKED = """
import pytest

@pytest.mark.forked
def test_it(test_client):
    pass
"""


@pytest.mark.parametrize("options", [(), ("--forked",)])
def test_a_forked_test_is_refused(example: Example, options: tuple[str, ...]) -> None:
    """By the marker and by the option, before any test."""
    tests = FORKED.replace("@pytest.mark.forked\n", "") if options else FORKED
    run = example.with_files(test_it=tests).run("-p", "pytest_forked", *options)
    assert run.status == pytest.ExitCode.USAGE_ERROR, run.output
    run.says("pytest-forked would run test_it.py::test_it in a fork of this process", "[A101]")

"""A test's clock, mocks and environment do not act on the seed of later tests and runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.example import Example

# The row names all that a test may replace.
SEED = """
import datetime
import os

import passwords
from app import Dancer


async def seed(session):
    is_now = datetime.date.today().year > 2020
    tenant = os.environ.get("TENANT", "none")
    session.add(Dancer(name=f"{is_now} {tenant} {passwords.hashed('pw')}"))
"""
PASSWORDS = """
def hashed(word):
    return f"hash of {word}"
"""
TESTS = """
import freezegun
import pytest
from unittest import mock

SEEDED = ["True none hash of pw"]
"""
FREEZE_BY_FIXTURE = """
@pytest.fixture(autouse=True)
def frozen():
    with freezegun.freeze_time("2001-01-14"):
        yield

def test_first(test_client):
    assert test_client.get("/dancers").json() == SEEDED
"""
SET_ENVIRONMENT = """
@pytest.fixture(autouse=True)
def tenant(monkeypatch):
    monkeypatch.setenv("TENANT", "of a test")

def test_first(db_session):
    from app import Dancer
    assert [dancer.name for dancer in db_session.query(Dancer)] == SEEDED
"""
PATCH_BY_DECORATOR = """
@mock.patch("passwords.hashed", return_value="mocked")
async def test_first(hashed, client):
    assert (await client.get("/dancers")).json() == SEEDED
"""
LATER = """
@pytest.fixture
def plain():
    "So that the second run has no fixture of the first test."

def test_later(test_client):
    assert test_client.get("/dancers").json() == SEEDED
"""
DISTURBANCES = {
    "freezegun in a fixture": FREEZE_BY_FIXTURE,
    "the environment": SET_ENVIRONMENT,
    "a mock of the seed's helper": PATCH_BY_DECORATOR,
}


def _seeded(example: Example, first: str) -> Example:
    """Return the example whose seed shows what acted on it, with a first and a later test."""
    return example.with_files(
        seed=SEED, passwords=PASSWORDS, test_it=TESTS + first, test_later=TESTS + LATER
    )


def _check(project: Example) -> None:
    """Run the tests with an empty cache."""
    project.run("test_it.py", "test_later.py").expect(passed=2).says("template built in")


@pytest.mark.parametrize("first", DISTURBANCES.values(), ids=DISTURBANCES)
def test_no_fixture_or_decorator_of_a_test_acts_on_the_seed(example: Example, first: str) -> None:
    """pytest-arena builds the template before the first fixture of such a test."""
    _check(_seeded(example, first))


LOUD_SEED = """
import logging
import warnings
from app import Dancer


async def seed(session):
    warnings.warn("the seed warns")
    logging.getLogger("seed").error("the seed logs")
    session.add(Dancer(name="Sand"))
"""
QUIET_TESTS = """
def test_quiet(recwarn, caplog, test_client):
    assert test_client.get("/dancers").json() == ["Sand"]
    assert not recwarn.list
    assert "the seed logs" not in caplog.text
"""


def test_warnings_and_logs_of_a_build_are_no_tests(example: Example) -> None:
    """`filterwarnings = error` fails no build."""
    project = example.with_files(seed=LOUD_SEED, test_quiet=QUIET_TESTS)
    project.run().expect(passed=1).says("template built in")

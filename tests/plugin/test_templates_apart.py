"""A test's clock, mocks and environment do not act on the seed of later tests and runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
FIRST = """
@pytest.fixture(autouse=True)
def frozen():
    with freezegun.freeze_time("2001-01-14"):
        yield

@pytest.fixture(autouse=True)
def tenant(monkeypatch):
    monkeypatch.setenv("TENANT", "of a test")

@mock.patch("passwords.hashed", return_value="mocked")
async def test_first(hashed, client):
    assert (await client.get("/dancers")).json() == SEEDED
"""
LATER = """
def test_later(test_client):
    assert test_client.get("/dancers").json() == SEEDED
"""


def test_no_fixture_or_decorator_of_a_test_acts_on_the_seed(example: Example) -> None:
    """pytest-arena builds the template before the first fixture of such a test."""
    project = example.with_files(
        seed=SEED, passwords=PASSWORDS, test_it=TESTS + FIRST, test_later=TESTS + LATER
    )
    project.run("test_it.py", "test_later.py").expect(passed=2).says("template built in")


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

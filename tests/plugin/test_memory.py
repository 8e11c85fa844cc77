"""What a test has made is freed at its end. A cycle would wait for the garbage collection."""

from tests.example import Example

CONFTEST = """
import gc
from weakref import WeakSet

import pytest

LEVELS = WeakSet()


def pytest_arena_enter(level):
    LEVELS.add(level)


@pytest.fixture(scope="session", autouse=True)
def no_collection():
    gc.disable()


@pytest.fixture
def count():
    return sum(level.is_test for level in LEVELS)
"""
TESTS = """
import pytest


@pytest.mark.parametrize("number", range(8))
async def test_an_async_client(client, db_session, count, number):
    await client.post("/dancers/Ada")
    assert count < 4  # a pooled connection knows its first test


def test_last(count):
    assert count < 4
"""


def test_ended_tests_are_freed_without_a_collection(example: Example) -> None:
    example.with_files(conftest=CONFTEST, test_it=TESTS).run().expect(passed=9)

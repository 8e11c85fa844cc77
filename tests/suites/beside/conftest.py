"""A cache that the two hooks put back, and a record of their calls."""

import pytest

CACHE = {}
COPIES = {}
CALLS = []
FAILURES = []


def pytest_arena_enter(level):
    CALLS.append(("enter", level.name))
    COPIES[level] = dict(CACHE)


def pytest_arena_leave(level):
    CALLS.append(("leave", level.name))
    CACHE.clear()
    CACHE.update(COPIES.pop(level))
    if FAILURES:
        raise FAILURES.pop()


@pytest.fixture(scope="session")
def cache():
    return CACHE


@pytest.fixture
def failures():
    return FAILURES


@pytest.fixture(scope="session")
def calls():
    return CALLS

"""Any order of a suite: the same verdicts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.example import WIDE

if TYPE_CHECKING:
    from tests.example import Example

TESTS = (
    WIDE
    + """
@pytest.fixture(scope="session")
def everywhere(arena):
    with arena.session() as session:
        session.add(Dancer(name=f"Everywhere {__name__}"))
        session.commit()

@pytest.fixture(scope="class")
def narrow(arena, wide):
    with arena.session() as session:
        session.add(Dancer(name="Narrow"))
        session.commit()

async def names(client):
    found = (await client.get("/dancers")).json()
    assert (await client.post("/dancers/Dune")).status_code == 201
    return [name for name in found if not name.startswith("Everywhere")]

async def test_wide(client, wide):
    assert await names(client) == ["Sand", "Wide"]

class TestNarrow:
    async def test_narrow(self, client, narrow):
        assert await names(client) == ["Sand", "Wide", "Narrow"]

    async def test_narrow_again(self, client, narrow):
        assert await names(client) == ["Sand", "Wide", "Narrow"]

def test_sync(test_client, wide):
    test_client.post("/dancers/Dune")

async def test_everywhere(client, everywhere):
    assert f"Everywhere {__name__}" in (await client.get("/dancers")).json()

async def test_fails(client, wide):
    assert await names(client) == []
"""
)


@pytest.fixture
def project(example: Example) -> Example:
    """Two files, each with fixtures of several scopes and a test that fails."""
    return example.with_files(test_one=TESTS, test_two=TESTS)


# Mixes tests of all files and classes, as no plugin does.
MIXED = """
import random

def pytest_collection_modifyitems(items):
    random.Random(1).shuffle(items)
"""


def test_mixed(project: Example) -> None:
    """P2, P6: fixtures of all scopes begin and end in any order, and more than once."""
    mixed = project.with_files(conftest=MIXED)
    mixed.run().expect(status=1, passed=10, failed=2)


def test_randomly(project: Example) -> None:
    """P2, P6: pytest-randomly mixes files, then classes, then functions."""
    pytest.importorskip("pytest_randomly", reason="`make test-full` has it")
    for seed in (1, 2, 3):
        run = project.run("-p", "pytest_randomly", f"--randomly-seed={seed}")
        run.expect(status=1, passed=10, failed=2)

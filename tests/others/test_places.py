"""Where the project lies, what pytest is asked, and in which order it runs the tests."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.example import WIDE

if TYPE_CHECKING:
    from tests.example import Example

TESTS = (
    WIDE
    + """
LONG = "ein sehr langer Name, " + "ß" * 80

@pytest.mark.parametrize("name", ["a b/c", "ä:ö*?", LONG + "1", LONG + "2"])
async def test_ünïcode(client, wide, name):
    assert (await client.get("/dancers")).json() == ["Sand", "Wide"]
    assert (await client.post("/dancers/Dune")).status_code == 201

def add(name):
    '''Doctests are tests, too.

    >>> from app import Dancer
    >>> session = getfixture("db_session")
    >>> session.add(Dancer(name="Doc"))
    >>> getfixture("test_client").get("/dancers").json()
    ['Sand', 'Doc']
    '''
"""
)


def test_paths_and_names(example: Example) -> None:
    """Blanks and letters of the world; another working folder; importlib; no cache of pytest's."""
    folder = example.folder.parent / "ein Projekt, ünïcode" / "%41 #?"
    project = replace(example, folder=folder).with_files(test_it=TESTS)
    project.run("--doctest-modules", "test_it.py", "--arena-keep=always").expect(passed=5)
    assert len([*(folder.parent / "cache" / "kept").iterdir()]) == 5
    outside = replace(project, folder=folder).python(
        "-m", "pytest", "-p", "pytest_asyncio.plugin", "-p", "pytest_arena.plugin",
        "--import-mode=importlib", "-p", "no:cacheprovider",
        f"--rootdir={folder}", "-c", str(folder / "pytest.ini"), str(folder / "test_it.py"),
        env={"PYTHONPATH": str(folder)},
    )  # fmt: skip  # the command line as one would read it
    outside.expect(passed=4)
    assert not (folder / "dev.db").exists()


LOOKING = """
from sqlalchemy import event
from sqlalchemy.pool import Pool

@event.listens_for(Pool, "connect")
def connected(connection, entry):
    print("CONNECTED")
"""


def test_a_collection_connects_to_nothing(example: Example) -> None:
    run = example.with_files(test_it=TESTS, conftest=LOOKING).run("--collect-only", "-s")
    assert run.status == 0, run.output
    run.never_says("CONNECTED", "INTERNALERROR")
    assert not (run.folder.parent / "cache").exists()


SCOPES = (
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
    return example.with_files(test_one=SCOPES, test_two=SCOPES)


# Mixes tests of all files and classes, as no plugin does.
MIXED = """
import random

def pytest_collection_modifyitems(items):
    random.Random(1).shuffle(items)
"""


def test_mixed(project: Example) -> None:
    """Fixtures of all scopes begin and end in any order, and more than once."""
    project.with_files(conftest=MIXED).run().expect(status=1, passed=10, failed=2)


def test_randomly(project: Example) -> None:
    """Pytest-randomly mixes files, then classes, then functions."""
    pytest.importorskip("pytest_randomly", reason="`make test-full` has it")
    for seed in (1, 2, 3):
        run = project.run("-p", "pytest_randomly", f"--randomly-seed={seed}")
        run.expect(status=1, passed=10, failed=2)

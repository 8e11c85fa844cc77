"""``--arena-verify``: what an isolation forgets to bring back fails the test that changed it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.example import Example


def unverified(example: Example) -> Example:
    return replace(example, options=())


WRITES = """
import pytest
from sqlalchemy import text
from app import Dancer, engine


async def test_writes(client):
    assert (await client.post("/dancers/Bob")).status_code == 201


async def test_starts_as_ever(client):
    assert (await client.get("/dancers")).json() == ["Sand"]


async def test_uses_nothing():
    pass
"""

# A file that is brought back but for one thing. The planted plugin comes before the first test.
LIAR = """
import sqlite3
from pytest_arena._sqlite._copy import LiveFile

restore = LiveFile.restore


def lie(self, start, *, is_in_use):
    changed = restore(self, start, is_in_use=is_in_use)
    if changed:
        with sqlite3.connect(self.path) as connection:
            connection.execute("INSERT INTO dancers (name) VALUES ('Left')")
        connection.close()
    return changed


LiveFile.restore = lie
"""


@pytest.fixture
def liar(example: Example) -> Example:
    options = "[pytest]\naddopts = -p pytest_arena.plugin -p liar"
    project = example.change("pytest.ini", "[pytest]", options)
    return unverified(project.with_files(test_it=WRITES, liar=LIAR))


def test_a_row_that_an_isolation_leaves_is_named_and_removed(liar: Example) -> None:
    """The test that wrote it fails. The next one starts with the seed."""
    run = liar.run("--arena-verify").expect(1, passed=3, errors=1)
    run.says("is not as it was before", "table dancers", "[A501]", "ERROR test_it.py::test_writes")


def test_a_row_that_an_isolation_leaves_fails_the_run(liar: Example) -> None:
    run = liar.with_files(test_it=ONE_TEST).run("-q").expect(1, passed=1)
    run.says("dev is not as it was before the first test", "pytest --arena-verify")


ONE_TEST = """
async def test_writes(client):
    assert (await client.post("/dancers/Bob")).status_code == 201
"""
DROPS = """
import asyncio

from app import Base, engine


async def drop():
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)


def pytest_sessionfinish():
    asyncio.run(drop())
"""


def test_a_hook_that_drops_the_tables_after_the_last_test(example: Example) -> None:
    """A suite's own clean-up in ``pytest_sessionfinish`` is no change that a restore missed."""
    unverified(example).with_files(test_it=ONE_TEST, conftest=DROPS).run().expect(0, passed=1)

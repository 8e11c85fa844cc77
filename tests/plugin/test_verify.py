"""``--arena-verify``: what an isolation forgets to bring back fails the test that changed it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.plugin.private_server import PRODUCTION
from tests.servers.postgresql import URL

if TYPE_CHECKING:
    from tests.example import Example

SERVER = URL.render_as_string(hide_password=False)


def unverified(example: Example) -> Example:
    """Return the example without ``--arena-verify``, with which the suite runs it."""
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
COPY_LIES = """
import sqlite3
from pytest_arena._sqlite._copy import LiveFile

restore = LiveFile.restore


def lie(self, start, *, is_in_use):
    changed = restore(self, start, is_in_use=is_in_use)
    if changed:
        with sqlite3.connect(self.path) as connection:
            connection.execute({statement!r})
        connection.close()
    return changed


LiveFile.restore = lie
"""

CLONE_LIES = """
from contextlib import closing
from pytest_arena._postgresql._control import open_control
from pytest_arena._postgresql._isolation import ServerIsolation

restore_copy = ServerIsolation._restore_copy
leave_by_force = ServerIsolation.leave_by_force
lies = True


def lie(self, level):
    restore_copy(self, level)
    if lies:
        with closing(open_control(self.live.address)) as control:
            control.run({statement!r})


def by_force(self):
    global lies
    lies = False  # from here on: another writer's work may call for a further copy
    leave_by_force(self)


ServerIsolation._restore_copy, ServerIsolation.leave_by_force = lie, by_force
"""

UNDO_LIES = """
from pytest_arena._postgresql._isolation import JournaledDatabase

restore = JournaledDatabase.restore


def lie(self, start, *, is_in_use):
    JournaledDatabase.restore = restore
    self._rows(
        "DELETE FROM pg_arena.j WHERE op = 1 "
        f"AND NOT pg_visible_in_snapshot(x, '{start.state.snapshot}') RETURNING 1"
    )
    return restore(self, start, is_in_use=is_in_use)


JournaledDatabase.restore = lie
"""

INSERT = "INSERT INTO dancers (name) VALUES ('Left')"
LIARS = {
    "copy": COPY_LIES.format(statement=INSERT),
    "clone": CLONE_LIES.format(statement=INSERT),
    "undo": UNDO_LIES,
}


@pytest.fixture(params=LIARS)
def liar(example: Example, request: pytest.FixtureRequest) -> Example:
    """A project whose isolation forgets a row."""
    isolation: str = request.param
    options = f"addopts = -p pytest_arena.plugin -p liar\narena_isolation = {isolation}"
    if isolation != "copy":
        example = example.change("app.py", "sqlite+aiosqlite:///dev.db", PRODUCTION)
        options += f"\narena_database = {SERVER}"
    project = example.change("pytest.ini", "[pytest]", f"[pytest]\n{options}")
    return unverified(project.with_files(test_it=WRITES, liar=LIARS[isolation]))


def test_a_row_that_an_isolation_leaves_is_named_and_removed(liar: Example) -> None:
    """The test that wrote it fails. The next one starts with the seed."""
    run = liar.run("--arena-verify").expect(1, passed=3, errors=1)
    run.says("is not as it was before", "table dancers", "[A501]", "ERROR test_it.py::test_writes")


def test_a_row_that_an_isolation_leaves_fails_the_run(example: Example) -> None:
    """Without the option, after the last test."""
    app = example.change(
        "pytest.ini", "[pytest]", "[pytest]\naddopts = -p pytest_arena.plugin -p liar"
    )
    app = unverified(app.with_files(test_it=ONE_TEST, liar=LIARS["copy"]))
    run = app.run("-q").expect(1, passed=1)
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
    run = unverified(example).with_files(test_it=ONE_TEST, conftest=DROPS).run()
    run.expect(0, passed=1)

"""What an app or a test does wrong under rollback: an error says so, and the next test is whole."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.example import Example, Run

HEAD = """
import pytest
import sqlalchemy
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError
from app import Dancer, app, engine, maker
"""
AFTER = """

async def test_after_it(client):
    assert (await client.get("/dancers")).json() == ["Sand"]
    assert (await client.post("/dancers/next")).status_code == 201
"""
URL = "postgresql+asyncpg://me:s3cret@db.example.org/shop"


def ran(example: Example, test: str) -> Run:
    """Run a test, and one after it."""
    env = {
        **example.env,
        "PYTEST_ADDOPTS": "--arena-isolation=rollback",
        "ARENA_DATABASE": os.environ["TESTS_POSTGRESQL"],
        "DATABASE_URL": URL,
    }
    project = replace(example, env=env).with_files(test_it=HEAD + test + AFTER)
    return project.run("test_it.py")


LEFT_OPEN = """
kept = []


async def test_it():
    session = maker()
    kept.append(session)
    session.add(Dancer(name="left"))
    await session.flush()
"""


def test_a_session_that_is_left_open(example: Example) -> None:
    """It is a leak, with the line that wrote."""
    run = ran(example, LEFT_OPEN).expect(1, passed=2, errors=1)
    run.says("ConnectionLeak: the test ended with an open transaction", "why: the next test would")
    run.says("cause: test_it.py:15 await session.flush()", "next: `async with session:`", "[A602]")


GONE = """
async def test_it(client):
    async with engine.connect() as connection:
        await connection.execute(text("INSERT INTO dancers (name) VALUES ('lost')"))
        await connection.execute(text("SAVEPOINT one"))
        await connection.execute(text("RELEASE SAVEPOINT one"))
        await connection.execute(text("ROLLBACK TO SAVEPOINT one"))
"""


@pytest.mark.slow
def test_a_savepoint_that_is_gone(example: Example) -> None:
    """The database's own error names it."""
    run = ran(example, GONE).expect(1, passed=1, failed=1)
    run.says('savepoint "one" does not exist')


COMMIT_AS_TEXT = """
async def test_it(client):
    async with engine.connect() as connection:
        await connection.execute(text("INSERT INTO dancers (name) VALUES ('text')"))
        await connection.execute(text("COMMIT"))
    assert (await client.get("/dancers")).json() == ["Sand", "text"]
"""


def test_a_commit_as_text(example: Example) -> None:
    """It is the app's commit, and no real one."""
    ran(example, COMMIT_AS_TEXT).expect(passed=2)


ENDED = """
@pytest.mark.parametrize("has_written", [False, True])
async def test_it(client, has_written):
    await client.post("/dancers/lost")
    async with engine.connect() as connection:
        if has_written:
            await connection.execute(text("INSERT INTO dancers (name) VALUES ('lost too')"))
        await connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
"""


@pytest.mark.slow
def test_a_transaction_that_the_server_ends(example: Example) -> None:
    """The error says that all connections share it. The next test has a new database."""
    run = ran(example, ENDED).expect(1, passed=1, failed=2)
    run.says(
        "the connection that all connections of the tests share has ended, by "
        "pg_terminate_backend, a timeout or a restart of the server.",
        'If this test ends it: @pytest.mark.arena(isolation="clone")',
        "its database was replaced: the connection that all connections share has ended",
    )


TWO = """
other = sqlalchemy.create_engine("sqlite:///other.db")


@pytest.mark.parametrize("turn", range(2))
async def test_it(client, turn):
    with other.begin() as connection:
        connection.execute(text("CREATE TABLE IF NOT EXISTS notes (a)"))
        connection.execute(text("INSERT INTO notes VALUES (1)"))
        assert connection.scalar(text("SELECT count(*) FROM notes")) == 1
    assert (await client.post("/dancers/both")).status_code == 201
"""


@pytest.mark.slow
@pytest.mark.parametrize("isolation", ["rollback", "undo"])
def test_two_databases_of_two_products(example: Example, isolation: str) -> None:
    """Rollback is a copy on SQLite. The undo of PostgreSQL is refused, because SQLite has none."""
    test = TWO.replace("@pytest", f'@pytest.mark.arena(isolation="{isolation}")\n@pytest')
    run = ran(example, test)
    if isolation == "rollback":
        run.expect(passed=3).says("rollback on SQLite is copy")
        assert not (example.folder / "other.db").exists()
    else:
        run.expect(1, passed=1, failed=1, errors=1)
        run.says("isolation='undo' is not available: SQLite", "has only the isolation copy")

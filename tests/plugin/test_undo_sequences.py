"""Numbers that a session has drawn from sequences belong to the test that has drawn them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.plugin.private_server import on_postgresql
from tests.servers.postgresql import URL

if TYPE_CHECKING:
    from pytest_arena.testing import Example

SERVER = URL.render_as_string(hide_password=False)

# Their order is that of the file.
TESTS = """
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from app import engine

INSERT = text("INSERT INTO dancers (name) VALUES ('New')")
LAST = text("SELECT lastval()")
CURRENT = text("SELECT currval('dancers_id_seq')")


async def backend(connection):
    return await connection.scalar(text("SELECT pg_backend_pid()"))


@pytest.fixture(scope="module")
def backends():
    return set()


async def test_draws_a_number(backends):
    async with engine.begin() as connection:
        backends.add(await backend(connection))
        await connection.execute(INSERT)


@pytest.mark.parametrize("question", [LAST, CURRENT, LAST], ids=["last", "current", "once more"])
async def test_has_drawn_none(question):
    async with engine.connect() as connection:
        with pytest.raises(DBAPIError, match="not yet defined"):
            await connection.execute(question)


@pytest.mark.parametrize("turn", range(2))
async def test_asks_for_its_own_number(backends, turn):
    async with engine.begin() as connection:
        await connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
        backends.add(await backend(connection))
        await connection.execute(INSERT)
        assert await connection.scalar(LAST) == 2
    async with engine.begin() as connection:
        assert await connection.scalar(CURRENT) == 2


async def test_all_had_one_connection(backends):
    async with engine.begin() as connection:
        assert {await backend(connection)} == backends
"""
ASKS_FIRST = """
import pytest
from sqlalchemy import text
from app import engine


@pytest.mark.parametrize("turn", range(2))
async def test_asks_for_its_own_number(turn):
    async with engine.begin() as connection:
        await connection.execute(text("INSERT INTO dancers (name) VALUES ('New')"))
        if turn:
            assert await connection.scalar(text("SELECT lastval()")) == 2
"""


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
@pytest.mark.parametrize("tests", [TESTS, ASKS_FIRST], ids=["old numbers", "new numbers"])
def test_currval_and_lastval_know_the_test_alone(example: Example, tests: str, driver: str) -> None:
    """The connection stays the same; only what its session has drawn before is forgotten."""
    app = on_postgresql(example, test_it=tests).change("app.py", "asyncpg", driver)
    app = app.change("pytest.ini", "[pytest]", f"[pytest]\narena_database = {SERVER}")
    app.run("--arena-isolation=undo").expect(passed=7 if tests is TESTS else 2)

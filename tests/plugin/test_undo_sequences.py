"""Numbers that a session has drawn from sequences belong to the test that has drawn them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.plugin.private_server import on_postgresql
from tests.servers.postgresql import URL

if TYPE_CHECKING:
    from tests.example import Example

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


# No statement of the run has called one of the functions before.
WRITES_FIRST = """
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from app import engine


async def test_draws_a_number():
    async with engine.begin() as connection:
        await connection.execute(text("INSERT INTO dancers (name) VALUES ('New')"))


async def test_writes_without_drawing_one():
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE dancers SET name = 'Else'"))
        with pytest.raises(DBAPIError, match="not yet defined"):
            await connection.execute(text("SELECT currval('dancers_id_seq')"))
"""
IN_A_FUNCTION = """
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from app import engine


@pytest.fixture(scope="module", autouse=True)
def function(arena):
    with arena.session() as session:
        session.execute(
            text("CREATE FUNCTION last_number() RETURNS int8 LANGUAGE sql AS 'SELECT lastval()'")
        )
        session.commit()


async def test_draws_a_number():
    async with engine.begin() as connection:
        await connection.execute(text("INSERT INTO dancers (name) VALUES ('New')"))


async def test_has_drawn_none():
    async with engine.connect() as connection:
        with pytest.raises(DBAPIError, match="not yet defined"):
            await connection.execute(text("SELECT last_number()"))
"""
STORIES = [
    pytest.param(TESTS, 7, id="old numbers"),
    pytest.param(ASKS_FIRST, 2, id="new numbers", marks=pytest.mark.slow),
    pytest.param(WRITES_FIRST, 2, id="the first call follows a write", marks=pytest.mark.slow),
    pytest.param(IN_A_FUNCTION, 2, id="a function calls lastval()", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("driver", ["asyncpg", pytest.param("psycopg", marks=pytest.mark.slow)])
@pytest.mark.parametrize("tests, passed", STORIES)
def test_currval_and_lastval_know_the_test_alone(
    example: Example, tests: str, passed: int, driver: str
) -> None:
    """The connection stays the same; only what its session has drawn before is forgotten."""
    app = on_postgresql(example, test_it=tests).change("app.py", "asyncpg", driver)
    app = app.change(
        "pytest.ini", "[pytest]", f"[pytest]\nusefixtures = arena\narena_database = {SERVER}"
    )
    app.run("--arena-isolation=undo", "-p", "no:randomly").expect(passed=passed)


CUT_OFF = """
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from app import engine

INSERT = text("INSERT INTO dancers (name) VALUES ('New')")
ALIVE = text("SELECT count(*) FROM pg_stat_activity WHERE pid = :pid")
pids = []


async def test_draws_a_number():
    async with engine.begin() as connection:
        await connection.execute(INSERT)
        pids.append(await connection.scalar(text("SELECT pg_backend_pid()")))


async def test_is_cut_off(arena):
    async with arena.session() as session:
        await session.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pids[0]})
        while await session.scalar(ALIVE, {"pid": pids[0]}):
            await session.rollback()
    with pytest.raises(DBAPIError):
        async with engine.begin() as connection:
            await connection.execute(INSERT)
"""


@pytest.mark.slow
@pytest.mark.parametrize("driver", ["asyncpg", pytest.param("psycopg", marks=pytest.mark.slow)])
def test_a_lost_connection_gives_the_error_that_sqlalchemy_gives(
    example: Example, driver: str
) -> None:
    """The app's own statement fails, and no statement of pytest-arena before it."""
    app = on_postgresql(example, test_it=CUT_OFF).change("app.py", "asyncpg", driver)
    app = app.change(
        "pytest.ini", "[pytest]", f"[pytest]\nusefixtures = arena\narena_database = {SERVER}"
    )
    app.run("--arena-isolation=undo", "-p", "no:randomly").expect(passed=2)

"""An unmodified app under ``rollback``: what is kept, and what is refused with a reason."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.example import Example, Run

URL = "postgresql+asyncpg://me:s3cret@db.example.org/shop"


def run(example: Example, test: str, *args: str) -> Run:
    """Run tests of the example's app under rollback."""
    project = example.change("app.py", "sqlite+aiosqlite:///dev.db", URL)
    environment = {
        "ARENA_DATABASE": os.environ["TESTS_POSTGRESQL"],
        "PYTEST_ADDOPTS": "--arena-isolation=rollback",
        "DATABASE_URL": URL,
    }
    return project.with_files(test_it=test).run(*args, env=environment)


WIDE = """
import pytest
from sqlalchemy import text
from app import Dancer, engine


@pytest.fixture(scope="module")
def crew(arena):
    with arena.session() as session:
        session.add(Dancer(name="Crew"))
        session.commit()


@pytest.mark.parametrize("turn", range(2))
async def test_a_wide_fixture(crew, client, arena, turn):
    await client.post("/dancers/Bob")
    assert (await client.get("/dancers")).json() == ["Sand", "Crew", "Bob"]
    assert "Bob" in str(arena.changes())
    assert "Crew" not in str(arena.changes())


async def test_that_fails(crew, client):
    await client.post("/dancers/Bob")
    assert False


async def test_after_it(crew, client):
    assert (await client.get("/dancers")).json() == ["Sand", "Crew"]


@pytest.mark.arena(isolation="clone")
async def test_of_another_isolation(crew, client):
    assert False


@pytest.mark.arena(schema=False)
async def test_without_a_schema(crew):
    async with engine.connect() as connection:
        query = text("SELECT count(*) FROM pg_class WHERE relname = 'dancers'")
        assert await connection.scalar(query) == 0


async def test_after_both(crew, client):
    assert (await client.get("/dancers")).json() == ["Sand", "Crew"]
"""


@pytest.mark.slow
def test_a_wide_fixture_lives_as_long_as_its_savepoint(example: Example) -> None:
    """What it has written is in no copy, so that a test that needs a copy is refused."""
    ran = run(example, WIDE, "--arena-keep=failed").expect(1, passed=5, failed=1, errors=1)
    ran.says("rows that wider fixtures wrote cannot be copied: a copy of the database is needed")
    ran.says("rollback never commits them")
    ran.says("test_that_fails: not kept: ")


ALONE = """
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from app import Dancer, engine, maker


async def test_of_the_schema():
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TABLE dancers ADD COLUMN mood text"))
        await connection.execute(text("NOTIFY news"))


async def test_that_forgets_a_commit(client):
    async with maker() as session:
        session.add(Dancer(name="Lost"))
        await session.flush()
    assert (await client.get("/dancers")).json() == ["Sand"]


async def test_that_leaves_a_transaction_open():
    global connection
    connection = await engine.connect().__aenter__()
    await connection.execute(text("INSERT INTO dancers (name) VALUES ('Open')"))


async def test_that_ends_the_connection(client):
    await client.post("/dancers/Bob")
    with pytest.raises(DBAPIError):
        async with engine.connect() as connection:
            await connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))


async def test_after_them(client):
    assert (await client.get("/dancers")).json() == ["Sand"]
    await client.post("/dancers/Kept")
    assert False


@pytest.mark.arena(isolation="clone")
async def test_of_another_isolation(client, arena):
    await client.post("/dancers/Bob")
    assert arena.isolation == "clone"
    assert (await client.get("/dancers")).json() == ["Sand", "Bob"]
"""


def test_what_a_test_leaves_ends_with_it(example: Example) -> None:
    """Changes of the schema, uncommitted rows, open transactions, an ended server connection."""
    ran = run(example, ALONE, "--arena-keep=failed").expect(1, passed=5, failed=1, errors=1)
    ran.says("rollback: NOTIFY reaches no listener")
    ran.says("the test ended with an open transaction")
    ran.says("its database was replaced: the connection that all connections share has ended")
    ran.says("the test's database was kept: psql ")


TENANTS = """
import pytest
from sqlalchemy import text
from app import engine

MAKE = (
    "CREATE FUNCTION be(name text) RETURNS void LANGUAGE plpgsql AS "
    "$$BEGIN PERFORM set_config('app.tenant', name, false); END$$",
    "CREATE FUNCTION be_briefly(name text) RETURNS void LANGUAGE plpgsql AS "
    "$$BEGIN PERFORM set_config('app.guest', name, true); END$$",
)


def make(connection):
    from app import Base

    Base.metadata.create_all(connection)
    for statement in MAKE:
        connection.execute(text(statement))


async def test_a_function_sets_the_tenant():
    tenant = text("SELECT current_setting('app.tenant', true)")
    guest = text("SELECT current_setting('app.guest', true)")
    async with engine.connect() as first, engine.connect() as second:
        await first.execute(text("SELECT be('a')"))
        await first.execute(text("SELECT be_briefly('g')"))
        assert await first.scalar(tenant) == "a"
        assert await first.scalar(guest) == "g"
        assert await second.scalar(tenant) in {None, ""}
        await second.execute(text("SELECT be('b')"))
        await second.commit()
        await first.commit()
        assert await first.scalar(tenant) == "a"
        assert await first.scalar(guest) in {None, ""}
        assert await second.scalar(tenant) == "b"
        await second.rollback()
        await second.execute(text("INSERT INTO dancers (name) VALUES ('Dune')"))
        await first.execute(text("SELECT name FROM dancers"))
"""


@pytest.mark.slow
def test_settings_that_a_function_changes_belong_to_one_connection(example: Example) -> None:
    """The function's text names them. A connection sees what another one has not committed."""
    ran = run(example, TENANTS, "-oarena_schema=test_it:make").expect(passed=1)
    ran.says("rollback: a transaction sees uncommitted rows of another transaction")


OPEN = """
import pytest
from sqlalchemy import text
from app import engine


@pytest.fixture(scope="module")
def crew(arena):
    session = arena.session().__enter__()
    session.execute(text("INSERT INTO dancers (name) VALUES ('Crew')"))
    yield
    session.rollback()


async def test_it(crew, client):
    assert (await client.get("/dancers")).json() == ["Sand"]
"""


@pytest.mark.slow
def test_a_wide_fixture_that_leaves_its_transaction_open(example: Example) -> None:
    """Its savepoint would hold the test's. The error names what to do."""
    ran = run(example, OPEN)
    assert ran.status == 1, ran.output
    ran.says("open transaction")


SCHEMAS = """
import pytest
from sqlalchemy import text
from app import engine


async def columns():
    async with engine.connect() as connection:
        return [*(await connection.execute(text("SELECT * FROM dancers"))).keys()]


@pytest.mark.parametrize("turn", range(2))
async def test_of_the_schema(turn):
    assert await columns() == ["id", "name"]
    await engine.dispose()  # as after a migration
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TABLE dancers ADD COLUMN mood text"))
    assert await columns() == ["id", "name", "mood"]


async def test_after_it():
    assert await columns() == ["id", "name"]
"""


@pytest.mark.slow
def test_the_next_test_prepares_its_statements_again(example: Example) -> None:
    """The server refuses a prepared statement whose columns have changed, and asyncpg keeps it."""
    run(example, SCHEMAS).expect(0, passed=3)


READ = """
import pytest


@pytest.mark.parametrize("turn", range(2))
async def test_it(client, turn):
    await client.post("/dancers/Bob")
    assert (await client.get("/dancers")).json() == ["Sand", "Bob"]
"""
LATE = """
import asyncio


async def add():
    from app import Dancer, maker

    async with maker() as session:
        session.add(Dancer(name="Late"))
        await session.commit()


def pytest_runtest_logfinish():
    asyncio.run(add())
"""


def test_each_level_is_verified(example: Example) -> None:
    """pytest-arena reads the database through the proxy, which refuses PREPARE."""
    ran = run(example, READ, "-q", "--arena-verify").expect(0, passed=2)
    ran.never_says("not every level was verified")


def test_rows_that_a_hook_leaves_after_the_last_test(example: Example) -> None:
    """The comparison after the last test finds them."""
    app = example.with_files(conftest=LATE)
    ran = run(app, READ.replace("range(2)", "[1]"), "-q").expect(1, passed=1)
    ran.says(
        "shop is not as it was before the first test", "table dancers (2 rows, and had 1 rows)"
    )


NO_THREAD = """
import threading
from unittest.mock import MagicMock

import pytest
import sqlalchemy


def connected(arena):
    url = arena.url.replace("+asyncpg", "+psycopg") + "?connect_timeout=20"
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:
        return connection.scalar(sqlalchemy.text("SELECT 1"))


def test_no_thread_can_start(arena, monkeypatch):
    assert connected(arena) == 1
    monkeypatch.setattr(threading, "Event", MagicMock())
    with pytest.raises(sqlalchemy.exc.OperationalError, match="closed the connection"):
        connected(arena)


def test_a_later_connection(arena):
    assert connected(arena) == 1
"""


def test_a_connection_without_a_thread_is_closed(example: Example) -> None:
    """Otherwise it waits forever, and so does each later one."""
    run(example, NO_THREAD).expect(passed=2)

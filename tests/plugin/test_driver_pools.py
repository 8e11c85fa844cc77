"""A pool of psycopg's own that is made at import, and that the app's start-up opens."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.example import Example

if TYPE_CHECKING:
    from pathlib import Path


APP = """
from contextlib import asynccontextmanager
from fastapi import FastAPI
from psycopg_pool import AsyncConnectionPool

pool = AsyncConnectionPool(
    "postgresql://me:s3cret@db.example.org/shop", open=False, min_size=2, max_size=4, timeout=5
)

@asynccontextmanager
async def lifespan(app):
    await pool.open()
    yield
    await pool.close()

app = FastAPI(lifespan=lifespan)

@app.post("/dancers/{name}")
async def add(name: str):
    async with pool.connection() as connection:
        await connection.execute("INSERT INTO dancers (name) VALUES (%s)", [name])

@app.get("/dancers")
async def dancers():
    async with pool.connection() as connection:
        rows = await connection.execute("SELECT name FROM dancers ORDER BY name")
        return [name for [name] in await rows.fetchall()]
"""
SCHEMA = "CREATE TABLE dancers (name text PRIMARY KEY);\n"
TESTS = """
import asyncio
import pytest

@pytest.mark.parametrize("turn", range(4))
async def test_rows(client, turn):
    assert (await client.get("/dancers")).json() == []
    await asyncio.gather(*(client.post(f"/dancers/{n}") for n in range(6)))
    assert (await client.get("/dancers")).json() == list("012345")

def test_rows_of_a_sync_test(test_client):
    assert test_client.get("/dancers").json() == []
    test_client.post("/dancers/Sand")
    assert test_client.get("/dancers").json() == ["Sand"]
"""
HOWS = ("undo", pytest.param("clone", marks=pytest.mark.slow))
INI = """
[pytest]
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
pythonpath = .
arena_app = app:app
arena_drivers = redirect
arena_schema = schema.sql
"""


@pytest.fixture
def pooled(tmp_path: Path) -> Example:
    """An app without SQLAlchemy, on a pool of its own."""
    files = {"app.py": APP, "schema.sql": SCHEMA, "pytest.ini": INI, "test_it.py": TESTS}
    return Example(tmp_path, files, {"ARENA_DATABASE": os.environ["TESTS_POSTGRESQL"]})


# What fails in production fails in a test: the pool is opened twice by one process.
TWICE = """
from contextlib import suppress
import pytest
from psycopg_pool import PoolClosed
from app import pool

async def test_opened_twice(client):
    await client.get("/dancers")
    await pool.close()
    with pytest.raises(PoolClosed):
        await pool.open()
    with pytest.raises(PoolClosed):
        await client.get("/dancers")

async def test_the_next_one(client):
    assert (await client.get("/dancers")).json() == []
"""


@pytest.mark.parametrize("how", HOWS)
def test_a_global_pool_is_opened_again_in_each_test(pooled: Example, how: str) -> None:
    """In the loop of an async test, and in that of a sync one; in one test it is opened once."""
    project = pooled.with_files(test_twice=TWICE)
    project.run("-p", "no:randomly", f"--arena-isolation={how}").expect(passed=7)


@pytest.mark.slow
def test_a_global_sync_pool_is_opened_again_in_each_test(pooled: Example) -> None:
    """Its threads are made again as well."""
    for old, new in (
        ("AsyncConnectionPool", "ConnectionPool"),
        ("await pool.", "pool."),
        ("async def dancers", "def dancers"),
        ("async def add", "def add"),
        ("async with", "with"),
        ("await connection.", "connection."),
        ("await rows.", "rows."),
    ):
        pooled = pooled.change("app.py", old, new)
    pooled.run("-p", "no:randomly").expect(passed=5)


ASYNCPG = """
from contextlib import asynccontextmanager
import asyncpg
from fastapi import FastAPI

@asynccontextmanager
async def lifespan(app):
    async with asyncpg.create_pool("postgresql://me:s3cret@db.example.org/shop") as pool:
        app.state.pool = pool
        yield

app = FastAPI(lifespan=lifespan)

@app.post("/dancers/{name}")
async def add(name: str):
    await app.state.pool.execute("INSERT INTO dancers (name) VALUES ($1)", name)

@app.get("/dancers")
async def dancers():
    rows = await app.state.pool.fetch("SELECT name FROM dancers ORDER BY name")
    return [row["name"] for row in rows]
"""


@pytest.mark.slow
def test_a_pool_of_asyncpg_in_the_sessions_loop(pooled: Example) -> None:
    """The app answers in this loop."""
    project = pooled.with_files(app=ASYNCPG)
    project.run("-p", "no:randomly").expect(passed=5)
    project.run("-p", "no:randomly", "-oarena_lifespan=session").expect(passed=5)


CHECKED = """
from fastapi import FastAPI
from psycopg_pool import AsyncConnectionPool

URL = "postgresql://me:s3cret@db.example.org/shop"
app = FastAPI()
pools = []

@app.get("/dancers")
async def dancers():
    if not pools:
        check = AsyncConnectionPool.check_connection
        pool = AsyncConnectionPool(URL, min_size=1, timeout=5, open=False, check=check)
        await pool.open()
        pools.append(pool)
    async with pools[0].connection() as connection:
        rows = await connection.execute("SELECT name FROM dancers")
        return await rows.fetchall()
"""
ASKS = """
import pytest

@pytest.mark.parametrize("turn", range(2))
async def test_rows(client, turn):
    assert (await client.get("/dancers")).json() == []
"""


@pytest.mark.slow
def test_a_timeout_of_a_pool_that_an_earlier_test_opened_is_explained(pooled: Example) -> None:
    """The check discards its connection, and its workers run no more."""
    run = pooled.with_paths({"app.py": CHECKED, "test_it.py": ASKS}).run("-p", "no:randomly")
    run.expect(1, passed=1, failed=1)
    run.says("PoolTimeout", "the workers of this AsyncConnectionPool are tasks of the event loop")
    run.says("next: open the pool in the app's lifespan")

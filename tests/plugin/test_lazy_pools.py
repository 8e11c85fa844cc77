"""Pools of drivers that a request makes first, and that the app keeps in a global."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.example import Example
from tests.plugin.test_driver_pools import INI, SCHEMA

if TYPE_CHECKING:
    from pathlib import Path

URL = "postgresql://me:s3cret@db.example.org/shop"

PSYCOPG = f"""
from fastapi import FastAPI
from psycopg_pool import AsyncConnectionPool

app = FastAPI()
pool = None

async def get_pool():
    global pool
    if pool is None:
        pool = AsyncConnectionPool("{URL}", open=False, min_size=1, max_size=4, timeout=5)
        await pool.open()
    return pool

@app.post("/dancers/{{name}}")
async def add(name: str):
    async with (await get_pool()).connection() as connection:
        await connection.execute("INSERT INTO dancers (name) VALUES (%s)", [name])

@app.get("/dancers")
async def dancers():
    async with (await get_pool()).connection() as connection:
        rows = await connection.execute("SELECT name FROM dancers ORDER BY name")
        return [name for [name] in await rows.fetchall()]
"""

SYNC_PSYCOPG = f"""
from fastapi import FastAPI
from psycopg_pool import ConnectionPool
from functools import cache

app = FastAPI()

@cache
def get_pool():
    return ConnectionPool("{URL}", min_size=1, max_size=4, timeout=5, open=True)

@app.post("/dancers/{{name}}")
def add(name: str):
    with get_pool().connection() as connection:
        connection.execute("INSERT INTO dancers (name) VALUES (%s)", [name])

@app.get("/dancers")
def dancers():
    with get_pool().connection() as connection:
        rows = connection.execute("SELECT name FROM dancers ORDER BY name")
        return [name for [name] in rows.fetchall()]
"""

PSYCOPG2 = f"""
from contextlib import closing
from fastapi import FastAPI
from functools import cache
from psycopg2.pool import ThreadedConnectionPool

app = FastAPI()

@cache
def get_pool():
    return ThreadedConnectionPool(1, 4, "{URL}")

@app.post("/dancers/{{name}}")
def add(name: str):
    connection = get_pool().getconn()
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute("INSERT INTO dancers (name) VALUES (%s)", [name])
    finally:
        get_pool().putconn(connection)

@app.get("/dancers")
def dancers():
    connection = get_pool().getconn()
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute("SELECT name FROM dancers ORDER BY name")
            return [name for [name] in cursor.fetchall()]
    finally:
        get_pool().putconn(connection)
"""

ASYNCPG = f"""
from fastapi import FastAPI
import asyncpg

app = FastAPI()
pool = None

async def get_pool():
    global pool
    if pool is None:
        pool = await asyncpg.create_pool("{URL}", min_size=1, max_size=4, timeout=5)
    return pool

@app.post("/dancers/{{name}}")
async def add(name: str):
    async with (await get_pool()).acquire() as connection:
        await connection.execute("INSERT INTO dancers (name) VALUES ($1)", name)

@app.get("/dancers")
async def dancers():
    async with (await get_pool()).acquire() as connection:
        rows = await connection.fetch("SELECT name FROM dancers ORDER BY name")
        return [row["name"] for row in rows]
"""

TESTS = """
import asyncio
import pytest

@pytest.mark.parametrize("turn", range(3))
async def test_rows(client, turn):
    assert (await client.get("/dancers")).json() == []
    await asyncio.gather(*(client.post(f"/dancers/{n}") for n in range(6)))
    assert (await client.get("/dancers")).json() == list("012345")

def test_rows_of_a_sync_test(test_client):
    assert test_client.get("/dancers").json() == []
    test_client.post("/dancers/Sand")
    assert test_client.get("/dancers").json() == ["Sand"]
"""

TESTS_IN_TURN = """
import pytest

@pytest.mark.parametrize("turn", range(2))
def test_rows(test_client, turn):
    test_client.post("/dancers/Sand")
    assert test_client.get("/dancers").json() == ["Sand"]
"""


def example_of(folder: Path, app: str) -> Example:
    """Return a project without SQLAlchemy."""
    files = {"app.py": app, "schema.sql": SCHEMA, "pytest.ini": INI, "test_it.py": TESTS}
    return Example(folder, files, {"ARENA_DATABASE": os.environ["TESTS_POSTGRESQL"]})


@pytest.mark.slow
def test_a_global_sync_pool_of_psycopg_serves_all_tests(tmp_path: Path) -> None:
    """Its workers are threads, which open new connections in the next test."""
    example_of(tmp_path, SYNC_PSYCOPG).run("-p", "no:randomly", "-q").expect(passed=4)


@pytest.mark.slow
def test_a_global_async_pool_of_psycopg_names_its_cause_and_cure(tmp_path: Path) -> None:
    """A request of the first test has made the pool, and its workers end with that test's loop."""
    project = example_of(tmp_path, PSYCOPG)
    run = project.run("-p", "no:randomly", "-q").expect(1, passed=1, failed=3)
    assert run.output.count("next: open the pool in the app's lifespan, and close it there") == 3
    run.says(
        "If a driver opens a connection without an engine,\n"
        "pytest-arena ends it at the end of the test. A pool that the app keeps in a global"
    )


@pytest.mark.slow
def test_a_global_pool_of_psycopg2_names_its_cause_and_cure(tmp_path: Path) -> None:
    """psycopg2 reports no SQLSTATE for a connection that the server has ended."""
    project = example_of(tmp_path, PSYCOPG2).with_paths({"test_it.py": TESTS_IN_TURN})
    run = project.run("-p", "no:randomly", "-q").expect(1, passed=1, failed=1)
    assert run.output.count("next: open the pool in the app's lifespan, and close it there") == 1


@pytest.mark.slow
def test_a_global_pool_of_asyncpg_names_its_cause_and_cure(tmp_path: Path) -> None:
    """Its event loop ends with the test."""
    run = example_of(tmp_path, ASYNCPG).run("-p", "no:randomly", "-q")
    run.expect(1, passed=1, failed=3)
    words = "this pool of asyncpg works only in the event loop that created it"
    assert run.output.count(words) == 3
    run.says("next: create the pool in the app's lifespan")

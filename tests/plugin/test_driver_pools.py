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


def test_a_pool_of_the_lifespan(pooled: Example) -> None:
    """Which runs once for the session."""
    pooled.run("-p", "no:randomly", "-oarena_lifespan=session").expect(passed=5)


SYNC_ENGINE_APP = """
from contextlib import asynccontextmanager
import asyncpg
from fastapi import FastAPI
from sqlalchemy import create_engine, text

engine = create_engine(
    "postgresql+psycopg://me:s3cret@db.example.org/shop",
    connect_args={"options": "-csearch_path=public,pg_catalog"},
)

@asynccontextmanager
async def lifespan(app):
    app.state.pool = await asyncpg.create_pool("postgresql://me:s3cret@db.example.org/shop")
    yield
    await app.state.pool.close()

app = FastAPI(lifespan=lifespan)

@app.get("/dancers")
async def dancers():
    return await app.state.pool.fetchval("SELECT count(*) FROM dancers")
"""
SESSION_TESTS = """
import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

@pytest.mark.parametrize("turn", range(3))
async def test_kind(client, db_session, turn):
    assert isinstance(db_session, Session)
    assert db_session.scalar(text("SHOW search_path")) == "public,pg_catalog"
    db_session.execute(text("INSERT INTO dancers VALUES ('Sand')"))
    assert (await client.get("/dancers")).json() == 1
"""


def test_the_session_is_of_the_engines_kind_beside_a_pool_of_a_driver(pooled: Example) -> None:
    """The engine is sync, the pool of the start-up is async. The engine's arguments count."""
    pooled.with_files(app=SYNC_ENGINE_APP, test_it=SESSION_TESTS).run().expect(passed=3)

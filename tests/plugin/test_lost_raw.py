"""Connections that no engine has opened, and that end inside a transaction: the write is lost."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.example import Example

if TYPE_CHECKING:
    from pathlib import Path

SQLITE = """
import os
import sqlite3
from contextlib import closing
import aiosqlite
from fastapi import FastAPI, HTTPException
from sqlalchemy import create_engine

engine = create_engine("sqlite:///dev.db")
app = FastAPI()
INSERT = "INSERT INTO dancers (name) VALUES ('Ada')"

def connect():
    return sqlite3.connect(os.environ["DATABASE_URL"].partition(":///")[2])

def connect_async():
    return aiosqlite.connect(os.environ["DATABASE_URL"].partition(":///")[2])

@app.post("/lost/close")
def close():
    connection = connect()
    connection.execute(INSERT)  # sqlite3: close
    connection.execute("INSERT INTO scores VALUES (1)")
    connection.close()

@app.post("/lost/closing")
def with_closing():
    with closing(connect()) as connection:
        connection.cursor().executemany(INSERT, [()])  # sqlite3: closing

@app.post("/lost/script")
def script():
    with closing(connect()) as connection:
        connection.executescript(f"BEGIN; {INSERT};")  # sqlite3: script

@app.post("/lost/collected")
def collected():
    connect().execute(INSERT)  # sqlite3: collected

@app.post("/lost/aiosqlite")
async def async_close():
    async with connect_async() as connection:
        await connection.execute(INSERT)  # aiosqlite: close

@app.post("/kept/block")
def block():
    with closing(connect()) as connection, connection:
        connection.execute(INSERT)

@app.post("/kept/commit")
async def async_commit():
    async with connect_async() as connection:
        await connection.execute(INSERT)
        await connection.commit()

@app.post("/kept/statement")
def statement():
    with closing(connect()) as connection:
        connection.execute(INSERT)
        connection.execute("COMMIT")

@app.post("/kept/rollback")
def rollback():
    with closing(connect()) as connection:
        connection.execute(INSERT)
        connection.rollback()

@app.post("/kept/savepoint")
def savepoint():
    with closing(connect()) as connection:
        connection.execute("BEGIN")
        connection.execute("SAVEPOINT a")
        connection.execute(INSERT)
        connection.execute("ROLLBACK TO a")

@app.post("/kept/nothing")
def nothing():
    with closing(connect()) as connection:
        connection.execute("UPDATE dancers SET name = 'B' WHERE name = 'X'")

@app.post("/kept/refused")
def refused():
    with closing(connect()) as connection:
        connection.execute(INSERT)
        raise HTTPException(409)

@app.post("/kept/caught")
async def caught():
    try:
        async with connect_async() as connection:
            await connection.execute(INSERT)
            raise KeyError
    except KeyError:
        return {}
"""
POSTGRESQL = """
import io
from contextlib import asynccontextmanager, closing, suppress
import asyncpg
import psycopg
import psycopg2
import psycopg2.pool
from fastapi import FastAPI, HTTPException
from psycopg_pool import AsyncConnectionPool, ConnectionPool
from sqlalchemy import create_engine

engine = create_engine("postgresql+psycopg://me:s3cret@db.example.org/shop")
URL = "postgresql://me:s3cret@db.example.org/shop"
INSERT = "INSERT INTO dancers (name) VALUES ('Ada')"

@asynccontextmanager
async def lifespan(app):
    with ConnectionPool(URL, min_size=1, open=False) as app.state.pool:
        async with AsyncConnectionPool(URL, min_size=1, open=False) as app.state.async_pool:
            async with asyncpg.create_pool(URL, min_size=1) as app.state.asyncpg:
                app.state.psycopg2 = psycopg2.pool.ThreadedConnectionPool(1, 1, URL)
                yield
                app.state.psycopg2.closeall()

app = FastAPI(lifespan=lifespan)

@app.post("/lost/close")
def close():
    connection = psycopg.connect(URL)
    connection.execute(INSERT)  # psycopg: close
    connection.execute("INSERT INTO scores VALUES (1)")
    connection.execute("SELECT 1")
    connection.close()

@app.post("/lost/collected")
def collected():
    psycopg.connect(URL).execute(INSERT)  # psycopg: collected

@app.post("/lost/pool")
def pool():
    connection = app.state.pool.getconn()
    connection.execute(INSERT)  # psycopg: pool
    app.state.pool.putconn(connection)

@app.post("/lost/async_close")
async def async_close():
    connection = await psycopg.AsyncConnection.connect(URL)
    await connection.execute(INSERT)  # async psycopg: close
    await connection.close()

@app.post("/lost/async_pool")
async def async_pool():
    connection = await app.state.async_pool.getconn()
    await connection.execute(INSERT)  # async psycopg: pool
    await app.state.async_pool.putconn(connection)

@app.post("/lost/closing2")
def closing2():
    with closing(psycopg2.connect(URL)) as connection:
        connection.cursor().execute(INSERT)  # psycopg2: closing

@app.post("/lost/collected2")
def collected2():
    psycopg2.connect(URL).cursor().execute(INSERT)  # psycopg2: collected

@app.post("/lost/pool2")
def pool2():
    connection = app.state.psycopg2.getconn()
    connection.cursor().execute(INSERT)  # psycopg2: pool
    app.state.psycopg2.putconn(connection)

@app.post("/lost/asyncpg")
async def close_asyncpg():
    connection = await asyncpg.connect(URL)
    await connection.transaction().start()
    await connection.execute(INSERT)  # asyncpg: close
    await connection.close()

@app.post("/lost/asyncpg_collected")
async def collected_asyncpg():
    connection = await asyncpg.connect(URL)
    await connection.transaction().start()
    await connection.execute(INSERT)  # asyncpg: collected

@app.post("/lost/asyncpg_pool")
async def pool_asyncpg():
    async with app.state.asyncpg.acquire() as connection:
        await connection.execute("BEGIN")
        await connection.execute(INSERT)  # asyncpg: pool

@app.post("/lost/copy")
def copy():
    connection = psycopg.connect(URL)
    with connection.cursor().copy("COPY dancers (name) FROM STDIN") as rows:  # psycopg: copy
        rows.write_row(["Ada"])
    connection.close()

@app.post("/lost/copy2")
def copy2():
    with closing(psycopg2.connect(URL)) as connection:
        connection.cursor().copy_from(io.StringIO("Ada"), "dancers")  # psycopg2: copy

@app.post("/lost/copy2_expert")
def copy2_expert():
    with closing(psycopg2.connect(URL)) as connection:
        cursor = connection.cursor()
        cursor.copy_expert("COPY dancers FROM STDIN", io.StringIO("Ada"))  # psycopg2: expert

@app.post("/lost/asyncpg_copy")
async def copy_asyncpg():
    connection = await asyncpg.connect(URL)
    await connection.transaction().start()
    await connection.copy_records_to_table("dancers", records=[("Ada",)])  # asyncpg: copy
    await connection.close()

@app.post("/kept/copies")
async def copies():
    connection = await asyncpg.connect(URL)
    await connection.copy_records_to_table("dancers", records=[("Ada",)])
    await connection.execute("BEGIN")
    await connection.copy_from_query("SELECT name FROM dancers", output=io.BytesIO())
    await connection.copy_records_to_table("dancers", records=[])
    await connection.close()
    with closing(psycopg2.connect(URL)) as second:
        second.cursor().copy_from(io.StringIO("Sand"), "dancers")
        second.commit()
        second.cursor().copy_to(io.StringIO(), "dancers")

@app.post("/kept/blocks")
async def blocks():
    with psycopg.connect(URL) as connection:
        connection.execute(INSERT)
    with closing(psycopg2.connect(URL)) as connection, connection:
        connection.cursor().execute("INSERT INTO scores VALUES (1)")
    with app.state.pool.connection() as connection:
        connection.execute("INSERT INTO scores VALUES (2)")
    async with app.state.asyncpg.acquire() as connection, connection.transaction():
        await connection.execute("INSERT INTO scores VALUES (3)")

@app.post("/kept/rollback")
async def rollback():
    with closing(psycopg.connect(URL)) as connection:
        connection.execute(INSERT)
        connection.rollback()
    with closing(psycopg2.connect(URL)) as connection:
        connection.cursor().execute(INSERT)
        connection.rollback()

@app.post("/kept/savepoint")
def savepoint():
    with closing(psycopg.connect(URL)) as connection:
        connection.execute("SELECT 1")
        with suppress(KeyError), connection.transaction():
            connection.execute(INSERT)
            raise KeyError

@app.post("/kept/nothing")
async def nothing():
    with closing(psycopg.connect(URL)) as connection:
        connection.execute("UPDATE dancers SET name = 'B' WHERE name = 'X'")
    with closing(psycopg.connect(URL)) as connection:
        connection.execute("SELECT * FROM dancers FOR UPDATE")
    connection = psycopg.connect(URL, autocommit=True)
    connection.execute(INSERT)
    committed = psycopg.connect(URL)
    committed.execute("INSERT INTO scores VALUES (1)")
    committed.commit()
    committed.execute("SELECT 1")
    second = psycopg2.connect(URL)
    second.cursor().execute("INSERT INTO scores VALUES (1)")
    second.commit()
    second.cursor().execute("SELECT 1")

@app.post("/kept/failed")
def failed():
    with closing(psycopg.connect(URL)) as connection, suppress(psycopg.Error):
        connection.execute(INSERT)
        connection.execute(INSERT)

@app.post("/kept/refused")
def refused():
    with closing(psycopg.connect(URL)) as connection:
        connection.execute(INSERT)
        raise HTTPException(409)

@app.post("/kept/caught")
async def caught():
    try:
        connection = await asyncpg.connect(URL)
        try:
            await connection.execute("BEGIN")
            await connection.execute(INSERT)
            raise KeyError
        finally:
            await connection.close()
    except KeyError:
        return {}
"""
TESTS = """
import gc
import pytest
from app import app

PATHS = [route.path for route in app.routes if route.path.startswith(("/lost", "/kept"))]

@pytest.mark.parametrize("path", PATHS)
def test_request(test_client, path):
    test_client.post(path)
    gc.collect()
"""
INI = """
[pytest]
pythonpath = .
arena_app = app:app
arena_drivers = redirect
arena_schema = schema.sql
"""
SCHEMA = "CREATE TABLE dancers (name text PRIMARY KEY);\nCREATE TABLE scores (points int);\n"


def _project(folder: Path, app: str) -> Example:
    files = {"app.py": app, "schema.sql": SCHEMA, "pytest.ini": INI}
    variables = {}
    if "psycopg" in app:
        variables["ARENA_DATABASE"] = os.environ["TESTS_POSTGRESQL"]
    return Example(folder, {**files, "test_it.py": TESTS}, variables)


@pytest.mark.slow
@pytest.mark.parametrize("app", [SQLITE, POSTGRESQL], ids=["sqlite", "postgresql"])
def test_writes_of_a_closed_connection_are_named(tmp_path: Path, app: str) -> None:
    """With the line of the first write. A commit, a rollback or an error is no loss."""
    run = _project(tmp_path, app).run("-p", "no:randomly")
    run.expect(passed=app.count("@app.post"))
    assert "POST /lost/close 200 wrote dancers, scores and never" in run.output
    for route in app.split("@app.post(")[1:]:
        path = route.partition('"')[2].partition('"')[0]
        is_named = f"POST {path} " in run.output
        assert is_named is path.startswith("/lost"), path
        if is_named:
            mark = next(line for line in route.splitlines() if "#" in line).partition("#")[2]
            assert f"#{mark}\n" in run.output, mark

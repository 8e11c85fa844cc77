"""An app with pools of psycopg and asyncpg, a checkpointer, a listener, and a sync engine."""

import asyncio
from contextlib import asynccontextmanager

import asyncpg
from fastapi import FastAPI
from models import Base
from psycopg_pool import AsyncConnectionPool, ConnectionPool
from sqlalchemy import create_engine

URL = "postgresql://me@db.example.org/shop"
TABLE = "CREATE TABLE IF NOT EXISTS checkpoints (id int)"
options = {"options": "-csearch_path=public,pg_catalog"}
engine = create_engine(URL.replace(":", "+psycopg:", 1), connect_args=options)


def create(connection):
    Base.metadata.create_all(connection)
    connection.exec_driver_sql(TABLE)


def create_database():
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("CREATE DATABASE shop")


@asynccontextmanager
async def listener():
    heard = asyncio.Queue()
    connection = await asyncpg.connect(URL)
    await connection.add_listener("news", lambda *arguments: heard.put_nowait(arguments[-1]))
    yield heard
    await connection.close()


@asynccontextmanager
async def lifespan(app):
    async with (
        AsyncConnectionPool(URL, open=False, min_size=2, max_size=4, timeout=5) as pool,
        asyncpg.create_pool(URL, min_size=1) as app.state.of_asyncpg,
        listener() as app.state.heard,
    ):
        async with pool.connection() as connection:
            await connection.execute(TABLE)
        with ConnectionPool(URL, min_size=1) as app.state.sync_pool:
            app.state.pool = pool
            yield


app = FastAPI(lifespan=lifespan)


@app.post("/orders/{item}")
async def order(item: str):
    async with app.state.pool.connection() as connection:
        await connection.execute("INSERT INTO orders (item, status) VALUES (%s, 'new')", [item])


@app.get("/orders")
async def orders():
    async with app.state.pool.connection() as connection:
        rows = await connection.execute("SELECT item FROM orders ORDER BY item")
        return [item for (item,) in await rows.fetchall()]


@app.get("/count")
async def count():
    return await app.state.of_asyncpg.fetchval("SELECT count(*) FROM orders")


@app.post("/checkpoints")
def save():
    with app.state.sync_pool.connection() as connection:
        connection.execute("INSERT INTO checkpoints VALUES (1)")
        return connection.execute("SELECT count(*) FROM checkpoints").fetchone()[0]


@app.post("/news/{text}")
async def news(text: str):
    await app.state.of_asyncpg.execute("SELECT pg_notify('news', $1)", text)
    return await asyncio.wait_for(app.state.heard.get(), 5)

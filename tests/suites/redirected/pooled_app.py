"""An app with a pool of psycopg, a pool of asyncpg, and a sync engine."""

from contextlib import asynccontextmanager

import asyncpg
from fastapi import FastAPI
from psycopg_pool import AsyncConnectionPool
from sqlalchemy import create_engine

URL = "postgresql://me@db.example.org/shop"
options = {"options": "-csearch_path=public,pg_catalog"}
engine = create_engine(URL.replace(":", "+psycopg:", 1), connect_args=options)
pool = AsyncConnectionPool(URL, open=False, min_size=2, max_size=4, timeout=5)


@asynccontextmanager
async def lifespan(app):
    await pool.open()
    async with asyncpg.create_pool(URL, min_size=1) as app.state.pool:
        yield
    await pool.close()


app = FastAPI(lifespan=lifespan)


@app.post("/orders/{item}")
async def order(item: str):
    async with pool.connection() as connection:
        insert = "INSERT INTO orders (item, status) VALUES (%s, 'new')"
        await connection.execute(insert, [item])


@app.get("/orders")
async def orders():
    async with pool.connection() as connection:
        rows = await connection.execute("SELECT item FROM orders ORDER BY item")
        return [item for (item,) in await rows.fetchall()]


@app.get("/count")
async def count():
    return await app.state.pool.fetchval("SELECT count(*) FROM orders")

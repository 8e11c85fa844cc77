"""An app with a pool of asyncpg beside SQLAlchemy."""

from contextlib import asynccontextmanager

import asyncpg
from fastapi import Request

from .shop import URL, app, rows

DSN = URL.set(drivername="postgresql").render_as_string(hide_password=False)


@asynccontextmanager
async def lifespan(app):
    async with asyncpg.create_pool(DSN, min_size=1, max_size=2) as app.state.pool:
        yield


app.router.lifespan_context = lifespan


@app.post("/fast/{name}")
async def add(name: str, request: Request):
    await request.app.state.pool.execute("INSERT INTO items (name, amount) VALUES ($1, 1)", name)


async def test_lifespan_pool(client):
    """The lifespan opens a pool of asyncpg."""
    await client.post("/fast/tea")
    assert await rows(client) == {"tea": 1}

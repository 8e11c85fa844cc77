"""An app with a second, sync engine for its commands."""

import os
from contextlib import asynccontextmanager

from fastapi import FastAPI
from models import Order, sync_url
from sqlalchemy import create_engine, event, select
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

URL = os.environ["DATABASE_URL"]
engine = create_async_engine(URL)
command = create_engine(sync_url(URL))


def note(connection, entry):
    entry.info["is_of_lifespan"] = True


@asynccontextmanager
async def lifespan(app):
    event.listen(engine.sync_engine, "connect", note)
    yield
    event.remove(engine.sync_engine, "connect", note)


app = FastAPI(lifespan=lifespan)


@app.get("/orders")
async def orders() -> list[str]:
    async with AsyncSession(engine) as session:
        return list(await session.scalars(select(Order.item)))

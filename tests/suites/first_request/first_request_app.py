"""An app that makes its engine at the first request. No variable of `arena_env` names it."""

import os
from functools import lru_cache

from fastapi import Depends, FastAPI
from models import Order, Stock, sync_url
from sqlalchemy import create_engine, event, func, select
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine


@lru_cache
def get_engine():
    engine = create_async_engine(os.environ["DATABASE_URL"])
    event.listen(engine.sync_engine, "connect", lambda _, entry: entry.info.update(is_like=True))
    return engine


@lru_cache
def get_sync_engine():
    return create_engine(sync_url(os.environ["DATABASE_URL"]))


async def get_db():
    async with AsyncSession(get_engine()) as session:
        yield session


app = FastAPI()


@app.get("/orders")
async def orders(db: AsyncSession = Depends(get_db)) -> list[str]:
    return list(await db.scalars(select(Order.item).order_by(Order.id)))


@app.get("/stock")
async def stock(db: AsyncSession = Depends(get_db)) -> int:
    return await db.scalar(select(func.count(Stock.item)))


@app.post("/orders/{item}")
async def add(item: str, db: AsyncSession = Depends(get_db)) -> None:
    db.add(Order(item=item))
    await db.commit()

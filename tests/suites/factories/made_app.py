"""A factory whose apps each make an engine, in the factory or at their start, and never end it."""

import os
from contextlib import asynccontextmanager

from fastapi import FastAPI
from models import Order
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine


@asynccontextmanager
async def make_engine(app):
    app.state.engine = create_async_engine(os.environ["DATABASE_URL"])
    yield


def create_app(lifespan=None):
    app = FastAPI(lifespan=lifespan)
    if lifespan is None:
        app.state.engine = create_async_engine(os.environ["DATABASE_URL"])

    @app.post("/orders/{item}")
    async def order(item: str):
        async with AsyncSession(app.state.engine) as session:
            session.add(Order(item=item))
            await session.commit()

    @app.get("/orders")
    async def orders():
        async with AsyncSession(app.state.engine) as session:
            return list(await session.scalars(select(Order.item)))

    return app

"""A factory of sessions that the app keeps in a global, and that the suite makes for each test."""

import os

import pytest
from models import Base, Order
from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

FACTORIES = []


@pytest.fixture
async def factory(monkeypatch):
    monkeypatch.setenv("DATABASE_URL", "sqlite+aiosqlite:///e2e.db")
    engine = create_async_engine(os.environ["DATABASE_URL"])
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    FACTORIES.append(async_sessionmaker(engine))
    yield FACTORIES[0]
    await engine.dispose()
    FACTORIES.clear()


@pytest.fixture
async def db_session(factory):
    async with factory() as session:
        await session.execute(text("DELETE FROM orders"))
        await session.commit()
        yield session


@pytest.mark.parametrize("turn", [1, 2, 3])
async def test_the_app_sees_the_row(db_session, turn):
    assert await db_session.scalar(select(func.count(Order.id))) == 0
    db_session.add(Order(item="vase"))
    await db_session.commit()
    async with FACTORIES[0]() as session:
        assert (await session.scalars(select(Order.item))).all() == ["vase"]

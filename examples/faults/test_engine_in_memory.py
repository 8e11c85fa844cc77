"""One engine in memory for all tests: what one commits, the next one finds."""

from collections.abc import AsyncIterator

import pytest
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.pool import StaticPool

from app import Base, Dancer

# Shared in-memory DB for all tests
test_engine = create_async_engine("sqlite+aiosqlite:///:memory:", poolclass=StaticPool)


@pytest.fixture
async def db_session() -> AsyncIterator[AsyncSession]:
    """A session on the shared engine; the tables stay from test to test."""
    async with test_engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with async_sessionmaker(test_engine)() as session:
        yield session


@pytest.mark.parametrize("time", ["first time", "second time"])
async def test_dancer_is_alone(db_session: AsyncSession, time: str) -> None:
    """The table is empty, until this test adds a dancer."""
    db_session.add(Dancer(name="Ruby"))
    await db_session.commit()

    assert await db_session.scalar(select(func.count(Dancer.id))) == 1

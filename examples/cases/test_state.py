"""Fault 4: state leaks from a test to the next one."""

from collections.abc import AsyncIterator

import pytest
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.pool import StaticPool
from starlette.testclient import TestClient

from app import Base, Dancer, app, get_role

twice = pytest.mark.parametrize("time", ["first time", "second time"])

# One database in memory for all tests. No test disposes of the engine.
memory_engine = create_async_engine("sqlite+aiosqlite:///:memory:", poolclass=StaticPool)


@pytest.fixture
async def memory_session() -> AsyncIterator[AsyncSession]:
    """A session on the shared engine in memory."""
    async with memory_engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with async_sessionmaker(memory_engine)() as session:
        yield session


@twice
async def test_a_dancer_in_memory_is_alone(memory_session: AsyncSession, time: str) -> None:
    """The table is empty until this test adds a dancer."""
    memory_session.add(Dancer(name="Ruby"))
    await memory_session.commit()

    assert await memory_session.scalar(select(func.count(Dancer.id))) == 1


@twice
def test_what_the_app_commits_is_new(test_client: TestClient, time: str) -> None:
    """No earlier test has registered this dancer."""
    assert "Leak Check" not in test_client.get("/dancers").json()

    assert test_client.post("/dancers/Leak Check").status_code == 201


@twice
def test_a_guest_stays_outside(test_client: TestClient, time: str) -> None:
    """No earlier test has left an override."""
    assert test_client.get("/staff").status_code == 403

    app.dependency_overrides[get_role] = lambda: "staff"

    assert test_client.get("/staff").status_code == 200

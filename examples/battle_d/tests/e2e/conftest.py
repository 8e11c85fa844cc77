"""The fixtures of the end-to-end tests that were written before there was a plugin."""

from collections.abc import AsyncIterator, Iterator

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.database import async_session_maker, get_db
from app.main import app
from tests.e2e.async_conftest import (
    async_client_factory,
    async_e2e_session,
    create_async_battle,
    create_async_tournament,
    create_async_tournament_scenario,
)

__all__ = [
    "async_client_factory",
    "async_e2e_session",
    "create_async_battle",
    "create_async_tournament",
    "create_async_tournament_scenario",
    "override_get_db",
    "test_session",
]


@pytest.fixture
async def test_session() -> AsyncIterator[AsyncSession]:
    """One session for the test and, once `get_db` is overridden, for the routes."""
    async with async_session_maker() as session:
        yield session
        await session.rollback()


@pytest.fixture
def override_get_db(test_session: AsyncSession) -> Iterator[None]:
    """The routes use the session of the test instead of one of their own."""

    async def get_test_db() -> AsyncIterator[AsyncSession]:
        yield test_session

    app.dependency_overrides[get_db] = get_test_db
    yield
    app.dependency_overrides.clear()

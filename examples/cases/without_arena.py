"""The fixtures of a usual conftest, for `pytest -p no:arena -p without_arena`."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from httpx2 import ASGITransport, AsyncClient
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from starlette.testclient import TestClient

from app import Base, app
from app import engine as app_engine


@pytest.fixture(scope="module", autouse=True)
def app_pool() -> Iterator[None]:
    """A new pool for each file: a failed test of `test_loops.py` may keep the only connection."""
    yield
    app_engine.sync_engine.dispose(close=False)


@pytest.fixture
async def db_session(tmp_path: Path) -> AsyncIterator[AsyncSession]:
    """A session on an engine for tests. The app has another engine."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'test.db'}")
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with async_sessionmaker(engine, expire_on_commit=False)() as session:
        yield session
    await engine.dispose()


@pytest.fixture
async def client() -> AsyncIterator[AsyncClient]:
    """An async client. Its transport does not run the lifespan."""
    async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:
        yield client


@pytest.fixture
def test_client() -> Iterator[TestClient]:
    """A sync client without an override of `get_db`: the app uses the developer's database."""
    with TestClient(app) as client:
        yield client

"""What the tests were given before they had arena: the fixtures of a usual conftest.

The demo loads this file where it switches arena off (`-p no:arena -p without_arena`), so that the
same tests find the same names. With arena nobody writes it.
"""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from httpx2 import ASGITransport, AsyncClient
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from starlette.testclient import TestClient

from app import Base, app


@pytest.fixture
def arena_app() -> FastAPI:
    """The app under test."""
    return app


@pytest.fixture
async def db_session(tmp_path: Path) -> AsyncIterator[AsyncSession]:
    """A session on an engine of its own, separate from the app's."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'test.db'}")
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with async_sessionmaker(engine, expire_on_commit=False)() as session:
        yield session
    await engine.dispose()


@pytest.fixture
async def client(arena_app: FastAPI) -> AsyncIterator[AsyncClient]:
    """A client in this process; its transport does not run the lifespan."""
    transport = ASGITransport(app=arena_app)
    async with AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


@pytest.fixture
def test_client(arena_app: FastAPI) -> Iterator[TestClient]:
    """A sync client, with no override of `get_db`: the app uses the developer's database."""
    with TestClient(arena_app) as client:
        yield client

"""The clients of the variants, as FastAPI's documentation has them; they run no lifespan."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from httpx2 import ASGITransport, AsyncClient
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from bench.suite.shop import app, get_db

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

__all__ = ["client_of", "client_with", "plain_client"]


def plain_client() -> AsyncClient:
    """Return a client of the app as it is."""
    return AsyncClient(transport=ASGITransport(app), base_url="http://testserver")


@asynccontextmanager
async def client_with(sessions: Callable[[], AsyncSession]) -> AsyncIterator[AsyncClient]:
    """Open a client of the app, whose sessions are overridden."""

    async def override() -> AsyncIterator[AsyncSession]:
        async with sessions() as session:
            yield session

    app.dependency_overrides[get_db] = override
    async with plain_client() as client:
        yield client
    app.dependency_overrides.clear()


@asynccontextmanager
async def client_of(engine: AsyncEngine) -> AsyncIterator[AsyncClient]:
    """Open a client of the app on an engine of the test's own, which is disposed of at the end."""
    async with client_with(async_sessionmaker(engine, expire_on_commit=False)) as client:
        yield client
    await engine.dispose()

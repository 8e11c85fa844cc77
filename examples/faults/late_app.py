"""An app whose lifespan makes the global session factory: without it, no request has a database."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from app import DEVELOPERS_DATABASE, Tournament

_factories: list[async_sessionmaker[AsyncSession]] = []


def get_session_factory() -> async_sessionmaker[AsyncSession]:
    """Give the factory that the lifespan has made."""
    if not _factories:
        raise RuntimeError("Database session factory not initialized")
    return _factories[-1]


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    """Make the factory; take it back at the end."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{DEVELOPERS_DATABASE}")
    _factories.append(async_sessionmaker(engine))
    yield
    _factories.clear()
    await engine.dispose()


app = FastAPI(lifespan=lifespan)


@app.get("/tournaments")
async def list_tournaments() -> list[str]:
    """List the tournaments."""
    async with get_session_factory()() as session:
        return [*await session.scalars(select(Tournament.name))]

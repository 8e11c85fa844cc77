"""The global engine and session factory: made when the app starts, gone when it stops."""

import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)

DEFAULT_URL = "postgresql+asyncpg://keys:keys@localhost:5432/api_keys"


@dataclass(slots=True)
class Database:
    """What `init_db` makes and `dispose_db` takes away."""

    engine: AsyncEngine | None = None
    session_factory: async_sessionmaker[AsyncSession] | None = None


_database = Database()


async def init_db() -> None:
    """Make the global engine and the session factory of the whole app."""
    url = os.environ.get("DATABASE_URL", DEFAULT_URL)
    _database.engine = create_async_engine(url)
    _database.session_factory = async_sessionmaker(_database.engine, expire_on_commit=False)


async def dispose_db() -> None:
    """Close every connection, and forget the engine and the factory."""
    if _database.engine is not None:
        await _database.engine.dispose()
    _database.engine = _database.session_factory = None


def get_session_factory() -> async_sessionmaker[AsyncSession]:
    """Give the factory that `init_db` has made."""
    if _database.session_factory is None:
        raise RuntimeError("Database session factory not initialized")
    return _database.session_factory


async def get_db() -> AsyncIterator[AsyncSession]:
    """Give one session to each request; the routes commit, leaving rolls back the rest."""
    async with get_session_factory()() as session:
        yield session


Db = Annotated[AsyncSession, Depends(get_db)]

"""The production engine, its session maker, and the session of a request."""

from collections.abc import AsyncIterator
from typing import Any

from sqlalchemy import Engine, event, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from app.config import settings
from app.models import Base

engine = create_async_engine(settings.database_url)
async_session_maker = async_sessionmaker(engine, expire_on_commit=False)


async def get_db() -> AsyncIterator[AsyncSession]:
    """Give one session to each request; the services commit, leaving rolls back the rest."""
    async with async_session_maker() as session:
        yield session


async def init_db() -> None:
    """Create every table that is missing."""
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)


async def drop_db() -> None:
    """Drop every table, and with them every row."""
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)


async def check_db() -> None:
    """Fail now, and not at the first visitor, if the database does not answer."""
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))


def _enforce_foreign_keys(connection: Any, _record: object) -> None:  # any driver's
    """Ask SQLite to keep the foreign keys that it otherwise only writes down."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _listen(sync_engine: Engine) -> None:
    if sync_engine.dialect.name == "sqlite":
        event.listen(sync_engine, "connect", _enforce_foreign_keys)


_listen(engine.sync_engine)

"""The one engine of the process, its session maker, and the session of a request."""

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated

from fastapi import Depends
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

DEVELOPERS_DATABASE = Path(__file__).resolve().parents[1] / "battle_d.db"

engine = create_async_engine(
    os.environ.get("DATABASE_URL", f"sqlite+aiosqlite:///{DEVELOPERS_DATABASE}")
)
async_session_maker = async_sessionmaker(engine, expire_on_commit=False)


async def get_db() -> AsyncIterator[AsyncSession]:
    """Give each request one transaction. It commits before the answer, unless the route raises."""
    async with async_session_maker.begin() as session:
        yield session


Database = Annotated[AsyncSession, Depends(get_db, scope="function")]

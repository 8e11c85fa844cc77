"""The usual recipe: for each test a new engine on a temporary file, create_all, drop_all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest_asyncio

from bench.suite.clients import client_of
from bench.suite.shop import Base, new_engine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from httpx2 import AsyncClient


@pytest_asyncio.fixture
async def client(tmp_path: Path) -> AsyncIterator[AsyncClient]:
    """A client of the app, whose sessions are overridden."""
    engine = new_engine(f"sqlite+aiosqlite:///{tmp_path}/test.db")
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with client_of(engine) as client:
        yield client
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.drop_all)

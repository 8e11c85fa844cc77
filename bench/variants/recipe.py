"""`create_all`, `drop_all` and a new engine for each test: in a temporary file or on a server."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest_asyncio

from bench.shop import Base, client_of, new_engine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from httpx2 import AsyncClient


@pytest_asyncio.fixture
async def client(tmp_path: Path) -> AsyncIterator[AsyncClient]:
    """Return a client of the app, whose sessions are overridden."""
    url = os.environ["DATABASE_URL"]
    if url.startswith("sqlite"):
        url = f"sqlite+aiosqlite:///{tmp_path}/test.db"
    engine = new_engine(url)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with client_of(engine) as client:
        yield client
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.drop_all)

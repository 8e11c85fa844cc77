"""The usual recipe: for each test a new engine, create_all, drop_all.

On a temporary file; on a server, in the same database each time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest_asyncio

from bench.suite.clients import client_of
from bench.suite.databases import on_server, url
from bench.suite.shop import Base, new_engine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from httpx2 import AsyncClient


@pytest_asyncio.fixture
async def client(tmp_path: Path) -> AsyncIterator[AsyncClient]:
    """A client of the app, whose sessions are overridden."""
    file = f"sqlite+aiosqlite:///{tmp_path}/test.db"
    engine = new_engine(url() if on_server() else file)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with client_of(engine) as client:
        yield client
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.drop_all)

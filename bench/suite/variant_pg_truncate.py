"""All tables truncated after each test, by the app's own engine, which is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from sqlalchemy import text

from bench.suite.clients import plain_client
from bench.suite.databases import sync_engine
from bench.suite.shop import Base, engine, every_table

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from httpx2 import AsyncClient

EMPTY = text(f"TRUNCATE {', '.join(table.name for table in every_table)} RESTART IDENTITY CASCADE")


@pytest.fixture(scope="session", autouse=True)
def _tables() -> None:
    sync = sync_engine()
    Base.metadata.create_all(sync)
    sync.dispose()


@pytest_asyncio.fixture
async def client() -> AsyncIterator[AsyncClient]:
    """A client of the app as it is."""
    async with plain_client() as client:
        yield client
    async with engine.begin() as connection:
        await connection.execute(EMPTY)

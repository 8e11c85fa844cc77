"""No isolation: one database and one engine for all tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from bench.shop import create_tables, plain_client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from httpx2 import AsyncClient


@pytest.fixture(scope="session")
def tables() -> None:
    """Create the tables once."""
    create_tables()


@pytest_asyncio.fixture
async def client(tables: None) -> AsyncIterator[AsyncClient]:
    """Return a client of the app as it is."""
    async with plain_client() as client:
        yield client

"""No isolation at all: one file and one engine for all tests. The floor of what a test costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from bench.suite.clients import plain_client
from bench.suite.databases import sync_engine
from bench.suite.shop import Base

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from httpx2 import AsyncClient


@pytest.fixture(scope="session")
def _tables() -> None:
    sync = sync_engine()
    Base.metadata.create_all(sync)
    sync.dispose()


@pytest_asyncio.fixture
async def client(_tables: None) -> AsyncIterator[AsyncClient]:
    """A client of the app as it is."""
    async with plain_client() as client:
        yield client

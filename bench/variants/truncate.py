"""All tables are truncated after each test. The app's engine is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from sqlalchemy import text

from bench.shop import Base, create_tables, engine, plain_client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from httpx2 import AsyncClient

STATEMENTS = [text(f"TRUNCATE TABLE {name}") for name in Base.metadata.tables]
if engine.dialect.name == "postgresql":
    STATEMENTS = [text(f"TRUNCATE {', '.join(Base.metadata.tables)} RESTART IDENTITY CASCADE")]


@pytest.fixture(scope="session")
def tables() -> None:
    """Create the tables once."""
    create_tables()


@pytest_asyncio.fixture
async def client(tables: None) -> AsyncIterator[AsyncClient]:
    """Return a client of the app as it is."""
    async with plain_client() as client:
        yield client
    async with engine.begin() as connection:
        for statement in STATEMENTS:
            await connection.execute(statement)

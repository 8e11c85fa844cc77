"""SQLAlchemy's recipe on PostgreSQL: sessions join a transaction of the test, rolled back.

https://docs.sqlalchemy.org/en/20/orm/session_transaction.html#joining-a-session-into-an-external-transaction-such-as-for-test-suites
The app's engine is kept, or each test has one of its own (``BENCH_ENGINE=new``).
"""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from sqlalchemy.ext.asyncio import AsyncSession

from bench.suite import shop
from bench.suite.clients import client_with
from bench.suite.databases import sync_engine, url

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from httpx2 import AsyncClient

IS_NEW = os.environ.get("BENCH_ENGINE") == "new"


@pytest.fixture(scope="session", autouse=True)
def _tables() -> None:
    sync = sync_engine()
    shop.Base.metadata.create_all(sync)
    sync.dispose()


@pytest_asyncio.fixture
async def client() -> AsyncIterator[AsyncClient]:
    """A client of the app, whose sessions are overridden."""
    engine = shop.new_engine(url()) if IS_NEW else shop.engine
    async with engine.connect() as connection:
        transaction = await connection.begin()
        sessions = partial(
            AsyncSession,
            connection,
            expire_on_commit=False,
            join_transaction_mode="create_savepoint",
        )
        async with client_with(sessions) as client:
            yield client
        await transaction.rollback()
    if IS_NEW:
        await engine.dispose()

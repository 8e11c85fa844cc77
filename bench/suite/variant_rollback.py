"""SQLAlchemy's recipe: sessions join a transaction of the test, which is rolled back.

https://docs.sqlalchemy.org/en/20/orm/session_transaction.html#joining-a-session-into-an-external-transaction-such-as-for-test-suites
The engine is kept. All sessions share one connection, and no commit is a real one.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from sqlalchemy import Connection, event
from sqlalchemy.ext.asyncio import AsyncSession

from bench.suite.clients import client_with
from bench.suite.databases import sync_engine
from bench.suite.shop import Base, engine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from httpx2 import AsyncClient


# The driver's own transactions know no savepoints: SQLAlchemy's documentation of pysqlite.


@event.listens_for(engine.sync_engine, "connect")
def _no_begin_of_the_drivers(connection: Any, _record: object) -> None:
    connection.isolation_level = None


@event.listens_for(engine.sync_engine, "begin")
def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")


@pytest.fixture(scope="session", autouse=True)
def _tables() -> None:
    sync = sync_engine()
    Base.metadata.create_all(sync)
    sync.dispose()


@pytest_asyncio.fixture
async def client() -> AsyncIterator[AsyncClient]:
    """A client of the app, whose sessions are overridden."""
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

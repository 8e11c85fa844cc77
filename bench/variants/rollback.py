"""SQLAlchemy's recipe: sessions join a transaction of the test, which is rolled back.

https://docs.sqlalchemy.org/en/20/orm/session_transaction.html#joining-a-session-into-an-external-transaction-such-as-for-test-suites
The engine is kept. All sessions share one connection, and the app's commits are savepoints.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from sqlalchemy import Connection, event
from sqlalchemy.ext.asyncio import AsyncSession

from bench.shop import client_with, create_tables, engine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from httpx2 import AsyncClient

if engine.dialect.name == "sqlite":
    # Otherwise the driver commits before a savepoint: SQLAlchemy's documentation of pysqlite.
    @event.listens_for(engine.sync_engine, "connect")
    def _do_not_begin(connection: Any, _record: object) -> None:
        connection.isolation_level = None

    @event.listens_for(engine.sync_engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN")


@pytest.fixture(scope="session")
def tables() -> None:
    """Create the tables once."""
    create_tables()


@pytest_asyncio.fixture
async def client(tables: None) -> AsyncIterator[AsyncClient]:
    """Return a client of the app, whose sessions are overridden."""
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

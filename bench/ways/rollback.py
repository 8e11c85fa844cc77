"""SQLAlchemy's recipe: sessions join a transaction of the test, which is rolled back.

https://docs.sqlalchemy.org/en/20/orm/session_transaction.html#joining-a-session-into-an-external-transaction-such-as-for-test-suites
All session makers of the app are bound to the test's connection: more than an override of the
dependency reaches. Each request has a session, and its commits are savepoints.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from bench.ways.common import bound, session_of
from bench.zoo.shop import MAKERS, maker, sync_engine, sync_maker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from sqlalchemy import URL
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
    from sqlalchemy.orm import Session


@pytest_asyncio.fixture
async def async_session() -> AsyncIterator[AsyncSession]:
    """Begin a transaction on each database."""
    connections: dict[URL, AsyncConnection] = {}
    async with AsyncExitStack() as stack:
        for engine in [each.kw["bind"] for each in MAKERS]:
            if engine.url not in connections:
                connection = await stack.enter_async_context(engine.connect())
                transaction = await connection.begin()
                stack.push_async_callback(transaction.rollback)
                connections[engine.url] = connection
        with bound(connections):
            yield await stack.enter_async_context(maker())


@pytest.fixture
def sync_session() -> Iterator[Session]:
    """Begin a transaction."""
    with sync_engine.connect() as connection:
        transaction = connection.begin()
        with bound({sync_engine.url: connection}), sync_maker() as session:
            yield session
        transaction.rollback()


@pytest.fixture(autouse=True)
def database(request: pytest.FixtureRequest, tables: None) -> None:
    """Have each test in a transaction."""
    session_of(request)

"""pytest-sqla's fixtures, set up as its page has it for FastAPI.

https://pypi.org/project/pytest-sqla/ (FastAPI; Schema)
All session makers of the app are bound to the test's connection: more than an override of the
dependency reaches.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from bench.ways.common import bound, session_of, sync_url
from bench.zoo.shop import app, engine, get_db, sync_engine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from sqlalchemy import URL, Connection
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_sessionmaker
    from sqlalchemy.orm import Session


@pytest.fixture(scope="session")
def sqla_url() -> URL:
    """Return the URL of the database."""
    return sync_url("DATABASE_URL")


@pytest.fixture(scope="session")
def sqla_async_url() -> str:
    """Return the same for async engines."""
    return os.environ["DATABASE_URL"]


@pytest.fixture(scope="session")
def sqla_session_options() -> dict[str, Any]:
    """Return the options of the app's own maker."""
    return {"expire_on_commit": False}


@pytest.fixture(scope="session", autouse=True)
def sqla_schema(tables: None) -> None:
    """Create the tables once, by the app's migrations if it has some."""


@pytest.fixture
def async_session(
    sqla_async_connection: AsyncConnection,
    sqla_async_sessionmaker: async_sessionmaker[AsyncSession],
    sqla_async_session: AsyncSession,
) -> Iterator[AsyncSession]:
    """Override the app's dependency."""

    async def override() -> AsyncIterator[AsyncSession]:
        async with sqla_async_sessionmaker() as session:
            yield session

    app.dependency_overrides[get_db] = override
    with bound({engine.url: sqla_async_connection}):
        yield sqla_async_session
    app.dependency_overrides.clear()


@pytest.fixture
def sync_session(sqla_connection: Connection, sqla_session: Session) -> Iterator[Session]:
    """Bind the app's sync session maker."""
    with bound({sync_engine.url: sqla_connection}):
        yield sqla_session


@pytest.fixture(autouse=True)
def database(request: pytest.FixtureRequest) -> None:
    """Have each test in a transaction."""
    session_of(request)

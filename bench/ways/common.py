"""What the set-ups share: clients as FastAPI's documentation has them, with the app's lifespan.

https://fastapi.tiangolo.com/advanced/async-tests/
The app's engines are those of the app, on a database of the test run: no override is needed for
that. All tests share one event loop, so the app's pool works in each.
"""

from __future__ import annotations

import inspect
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from alembic import command
from alembic.config import Config
from fastapi.testclient import TestClient
from httpx2 import ASGITransport, AsyncClient
from sqlalchemy import URL, Connection, MetaData, create_engine, make_url

from bench.zoo.shop import MAKERS, METADATA, app, maker, sync_engine, sync_maker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping

    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Session


def sync_url(variable: str) -> URL:
    """Return the URL of a database for a sync engine."""
    return make_url(os.environ[variable]).set(drivername="postgresql+psycopg")


def on_each_database(action: Callable[[MetaData, Connection], object]) -> None:
    """Call a function with the tables of each database and a connection to it."""
    for name, metadata in METADATA.items():
        sync = create_engine(sync_url(name))
        with sync.begin() as connection:
            action(metadata, connection)
        sync.dispose()


@pytest.fixture(scope="session")
def tables() -> None:
    """Create the tables of each database once."""
    for name in METADATA:
        create_tables_on(name, sync_url(name))


def create_tables_on(name: str, url: URL) -> None:
    """Create the tables of one database: by Alembic, if the app has migrations."""
    sync = create_engine(url)
    with sync.begin() as connection:
        if "ZOO_MIGRATIONS" in os.environ:
            config = Config(os.environ["ZOO_MIGRATIONS"])
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
        else:
            METADATA[name].create_all(connection)
    sync.dispose()


@contextmanager
def bound(connections: Mapping[URL, Any]) -> Iterator[None]:
    """Bind the app's session makers to connections of the test, by the URL of their engines."""
    makers: list[Any] = [*MAKERS, sync_maker]
    engines = [(each, each.kw["bind"]) for each in makers]
    for each, engine in engines:
        if engine.url in connections:
            each.configure(bind=connections[engine.url], join_transaction_mode="create_savepoint")
    yield
    for each, engine in engines:
        each.configure(bind=engine)


def forget_connections() -> None:
    """Give the app's engines new pools, since their database is another one now."""
    for each in MAKERS:
        each.kw["bind"].sync_engine.dispose(close=False)
    sync_engine.dispose()


@pytest_asyncio.fixture
async def async_session() -> AsyncIterator[AsyncSession]:
    """Return a session of the app's maker."""
    async with maker() as session:
        yield session


@pytest.fixture
def sync_session() -> Iterator[Session]:
    """Return a session of the app's sync maker."""
    with sync_maker() as session:
        yield session


def session_of(request: pytest.FixtureRequest) -> Any:
    """Return the kind of session that the test needs."""
    is_async = inspect.iscoroutinefunction(request.function)
    return request.getfixturevalue("async_session" if is_async else "sync_session")


@pytest.fixture
def db_session(request: pytest.FixtureRequest, database: None) -> Any:
    """Return a session for the test's own rows."""
    return session_of(request)


@pytest_asyncio.fixture
async def client(database: None) -> AsyncIterator[AsyncClient]:
    """Return a client of the app, after its start-up."""
    client = AsyncClient(transport=ASGITransport(app), base_url="http://testserver")
    async with app.router.lifespan_context(app), client:
        yield client


@pytest.fixture
def test_client(database: None) -> Iterator[TestClient]:
    """Return the sync client of the app."""
    with TestClient(app) as client:
        yield client

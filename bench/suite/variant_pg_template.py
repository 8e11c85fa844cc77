"""pytest-postgresql: for each test a database that is copied from a template, and a new engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest_asyncio
from pytest_postgresql import factories
from sqlalchemy import URL, create_engine

from bench.suite.clients import client_of
from bench.suite.databases import url
from bench.suite.shop import Base, new_engine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from httpx2 import AsyncClient

_URL = url()
_HOST = _URL.query.get("host") or _URL.host


def load(*, dbname: str, **_login: Any) -> None:
    """Fill the template."""
    engine = create_engine(_on(dbname, "psycopg"))
    Base.metadata.create_all(engine)
    engine.dispose()


def _on(database: str, driver: str) -> URL:
    return _URL.set(drivername=f"postgresql+{driver}", database=database)


bench_server = factories.postgresql_noproc(
    host=str(_HOST),
    port=_URL.port,
    user=_URL.username,
    password=_URL.password,
    dbname=f"{_URL.database}_test",
    load=[load],
)
postgresql = factories.postgresql("bench_server")


@pytest_asyncio.fixture
async def client(postgresql: Any) -> AsyncIterator[AsyncClient]:
    """A client of the app, whose sessions are overridden."""
    async with client_of(new_engine(_on(postgresql.info.dbname, "asyncpg"))) as client:
        yield client

"""pytest-postgresql's fixture: a copy of a template for each test, and a new engine."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest_asyncio
from pytest_postgresql import factories
from sqlalchemy import URL, make_url

from bench.shop import client_of, create_tables, new_engine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from httpx2 import AsyncClient

_URL = make_url(os.environ["DATABASE_URL"])


def load(*, dbname: str, **_login: Any) -> None:
    """Fill the template."""
    create_tables(_on(dbname))


def _on(database: str) -> URL:
    return _URL.set(database=database)


bench_server = factories.postgresql_noproc(
    host=_URL.host,
    port=_URL.port,
    user=_URL.username,
    password=_URL.password,
    dbname=f"{_URL.database}_test",
    load=[load],
)
postgresql = factories.postgresql("bench_server")


@pytest_asyncio.fixture
async def client(postgresql: Any) -> AsyncIterator[AsyncClient]:
    """Return a client of the app, whose sessions are overridden."""
    async with client_of(new_engine(_on(postgresql.info.dbname))) as client:
        yield client

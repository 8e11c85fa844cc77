"""A live connection says where it is, and does not notice that it was asked."""

from __future__ import annotations

import asyncio
from contextlib import closing
from typing import TYPE_CHECKING, Any

import psycopg
import psycopg2
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import create_async_engine

from pytest_arena._postgresql._control import open_control
from pytest_arena._postgresql._identity import Identity, identity, identity_of_control
from tests.gate.postgresql import SERVER

if TYPE_CHECKING:
    from collections.abc import Iterator

PLACE = f"{SERVER.user}@{SERVER.host}:{SERVER.port}"


@pytest.fixture(name="expected", scope="module")
def _expected() -> Iterator[Identity]:
    control = open_control(SERVER)
    try:
        yield identity_of_control(control)
    finally:
        control.close()


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
@pytest.mark.parametrize("isolation", ["READ COMMITTED", "AUTOCOMMIT"])
def test_a_sync_connection(driver: str, isolation: str, expected: Identity) -> None:
    """The server is the same by another name and to another database; nothing is begun."""
    host = "localhost" if SERVER.host == "127.0.0.1" else SERVER.host
    url = f"postgresql+{driver}://{SERVER.user}@{host}:{SERVER.port}/template1"
    engine = create_engine(url, isolation_level=isolation)
    with closing(engine.raw_connection()) as pooled:
        found = identity(pooled.dbapi_connection)
        assert found is not None
        assert (found.server, found.database) == (expected.server, "template1")
        info: Any = getattr(pooled.driver_connection, "info", None)
        assert info.transaction_status == 0
    engine.dispose()


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
def test_an_async_connection(driver: str, expected: Identity) -> None:
    """As a pool's listener has it: in SQLAlchemy's greenlet."""

    async def ask() -> None:
        engine = create_async_engine(f"postgresql+{driver}://{PLACE}/{SERVER.database}")
        async with engine.connect() as connection:
            await connection.execute(text("SET TimeZone = 'Asia/Tokyo'"))
            await connection.execute(text("SET search_path = nowhere"))
            raw = await connection.get_raw_connection()
            found = await connection.run_sync(lambda _: identity(raw.dbapi_connection))
            assert found == Identity(expected.server, expected.database)
            assert await connection.scalar(text("SHOW TimeZone")) == "Asia/Tokyo"
        await engine.dispose()

    asyncio.run(ask())


def test_an_open_transaction_stays_open() -> None:
    """With what was done in it; a creator may hand one over."""
    connections: list[Any] = [
        psycopg.connect(host=SERVER.host, port=SERVER.port, user=SERVER.user),
        psycopg2.connect(host=SERVER.host, port=SERVER.port, user=SERVER.user),
    ]
    for connection in connections:
        with closing(connection), connection.cursor() as cursor:
            cursor.execute("SET LOCAL statement_timeout = 4321")
            assert identity(connection) is not None
            cursor.execute("SHOW statement_timeout")
            assert cursor.fetchone() == ("4321ms",)

"""The connections of an engine that outlives the test stay open."""

import os

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

URL = os.environ["DATABASE_URL"]
NUMBER = "SELECT pg_backend_pid()" if URL.startswith("postgresql") else "SELECT connection_id()"
numbers = []
global_engine = create_async_engine(URL)


@pytest.fixture(scope="module")
def wide_engine():
    return create_async_engine(URL)


@pytest.mark.parametrize("turn", range(3))
async def test_each_test_gets_the_same_connection(wide_engine, turn):
    for engine in (global_engine, wide_engine):
        async with engine.connect() as connection:
            numbers.append(await connection.scalar(text(NUMBER)))
    assert numbers[-2:] == numbers[:2]

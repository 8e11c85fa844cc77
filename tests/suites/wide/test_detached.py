"""A connection of a module that has left its pool: no event reports its uses."""

import pytest
import pytest_asyncio
from async_app import engine
from conftest import rows
from models import Order
from sqlalchemy import insert


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def detached():
    async with engine.connect() as connection:
        await connection.run_sync(lambda sync: sync.detach())
        yield connection


@pytest.mark.asyncio(loop_scope="module")
async def test_it_writes(detached):
    await detached.execute(insert(Order).values(item="vase", status="new"))
    await detached.commit()


def test_its_row_ends_with_the_test(detached, arena):
    assert rows(arena) == []

"""A setting of a pooled connection lives as long as the fixture or the test that made it."""

import os

import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

engine = create_async_engine(os.environ["DATABASE_URL"], pool_size=1, max_overflow=0)
pytestmark = pytest.mark.asyncio(loop_scope="module")
SET, GET = {
    "sqlite": ("PRAGMA recursive_triggers = ON", "PRAGMA recursive_triggers"),
    "postgresql": ("SET work_mem = '77kB'", "SHOW work_mem"),
    "mysql": ("SET SESSION sort_buffer_size = 77000", "SELECT @@SESSION.sort_buffer_size"),
}[engine.dialect.name]
ORIGINAL = []


async def setting():
    async with engine.connect() as connection:
        return await connection.scalar(text(GET))


async def change():
    async with engine.begin() as connection:
        await connection.execute(text(SET))


@pytest.mark.parametrize("turn", [1, 2, 3])
async def test_a_setting_of_a_test_ends_with_it(turn):
    ORIGINAL.append(await setting())
    assert ORIGINAL[-1] == ORIGINAL[0]
    await change()
    assert await setting() != ORIGINAL[0]


async def test_a_setting_of_a_block_ends_with_it(arena):
    for _ in range(2):
        async with arena.fresh():
            assert await setting() == ORIGINAL[0]
            await change()


@pytest_asyncio.fixture(scope="class", loop_scope="module")
async def held():
    """The test changes a connection that the fixture returns to the pool later."""
    async with engine.connect() as connection:
        yield connection


class TestHeld:
    async def test_a_test_changes_it(self, held):
        await held.execute(text(SET))
        await held.commit()


async def test_the_pool_drops_the_connection():
    assert await setting() == ORIGINAL[0]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def wide_setting(arena):
    await change()


@pytest.mark.parametrize("turn", [1, 2, 3])
async def test_a_setting_of_a_module_lasts(wide_setting, turn, client):
    assert await setting() != ORIGINAL[0]
    await client.post("/orders/chair")

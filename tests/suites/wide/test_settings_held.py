"""A test changes a setting of a connection that a fixture holds, and returns to the pool later."""

import pytest
import pytest_asyncio
from sqlalchemy import text
from test_settings import SET, engine, setting

pytestmark = pytest.mark.asyncio(loop_scope="module")
ORIGINAL = []


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def original():
    ORIGINAL.append(await setting())


@pytest_asyncio.fixture(scope="class", loop_scope="module")
async def held(original):
    async with engine.connect() as connection:
        yield connection


class TestHeld:
    async def test_a_test_changes_it(self, held):
        await held.execute(text(SET))
        await held.commit()


async def test_the_pool_drops_the_connection():
    assert await setting() == ORIGINAL[0]

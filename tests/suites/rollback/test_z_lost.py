"""The shared transaction ends with its connection."""

from contextlib import suppress

import pytest
from async_app import engine
from models import Order
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError


async def end_the_connection():
    async with engine.connect() as connection:
        with suppress(DBAPIError):
            await connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))


@pytest.mark.parametrize("turn", [1, 2])
async def test_the_rows_of_a_test_are_rolled_back(client, db_session, turn):
    order = Order(item="vase")
    db_session.add(order)
    await db_session.commit()
    assert (await client.get("/orders")).json() == ["vase"]
    assert order.id == 1
    await end_the_connection()


@pytest.fixture(scope="module")
def wide(arena):
    with arena.session() as session:
        session.add(Order(item="wide"))
        session.commit()


@pytest.mark.expect("A501", at=None)
@pytest.mark.parametrize("turn", [1, 2])
async def test_those_of_a_wide_fixture_are_lost(wide, client, turn):
    assert (await client.get("/orders")).json() == ["wide"]
    await end_the_connection()

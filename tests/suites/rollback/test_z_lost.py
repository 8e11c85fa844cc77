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


async def test_the_rows_of_a_test_are_rolled_back(client, db_session, turn):
    db_session.add(Order(item="vase"))
    await db_session.commit()
    assert (await client.get("/orders")).json() == ["vase"]
    await end_the_connection()


@pytest.fixture(scope="module")
def wide(arena):
    with arena.session() as session:
        session.add(Order(item="wide"))
        session.commit()


async def test_those_of_a_wide_fixture_are_lost(wide, client):
    assert (await client.get("/orders")).json() == ["wide"]
    await end_the_connection()


@pytest.mark.expect("A501", at=None)
async def test_each_later_test_fails(wide):
    pass

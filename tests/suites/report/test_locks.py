"""A statement that waits for a lock of the same test: a note names the line that holds the lock."""

import pytest
from async_app import engine, maker
from models import Stock
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

UPDATE = "UPDATE stock SET amount = 9 WHERE item = 'chair'"


def check_note(caught, line):
    [note] = caught.value.orig.__notes__
    assert "test_locks.py:" in note
    assert line in note


async def test_for_db_session(client, db_session):
    (await db_session.get(Stock, "chair")).amount = 9
    await db_session.flush()
    async with maker() as session:
        with pytest.raises(DBAPIError) as caught:
            await session.execute(text(UPDATE))
    check_note(caught, "await db_session.flush()")


async def test_for_a_session_of_the_test(client):
    async with maker() as session:
        await session.execute(text(UPDATE))
        with pytest.raises(DBAPIError) as caught:
            await client.post("/orders/chair")
    check_note(caught, "await session.execute(text(UPDATE))")


@pytest.mark.expect("AssertionError", at="assert")
async def test_of_a_request_that_answers_500(arena):
    client = arena.client(raise_app_exceptions=False)
    async with maker() as session:
        await session.execute(text(UPDATE))
        assert (await client.post("/orders/chair")).status_code == 201


async def test_the_lock_has_ended_with_its_test(client):
    assert (await client.post("/orders/chair")).status_code == 201


async def test_a_time_out_of_the_app_stays():
    if engine.dialect.name != "postgresql":
        pytest.skip("it is a setting of asyncpg")
    settings = {"server_settings": {"lock_timeout": "1234"}}
    own = create_async_engine(engine.url, connect_args=settings)
    async with own.connect() as connection:
        assert await connection.scalar(text("SHOW lock_timeout")) == "1234ms"
    await own.dispose()

"""The app's engine works in each loop: one of all tests, one of a module, one of a test."""

import asyncio

import pytest
from listening_app import DRIVER, engine
from models import Order
from sqlalchemy import insert, text

in_one_loop = pytest.mark.asyncio(loop_scope="session")
in_a_loop_of_the_module = pytest.mark.asyncio(loop_scope="module")


async def use(client, db_session):
    assert (await client.get("/orders")).json() == []
    db_session.add(Order(item="vase"))
    assert (await client.post("/orders/chair")).status_code == 201
    answers = await asyncio.gather(client.get("/orders"), client.get("/each"))
    assert [each.json() for each in answers] == [["vase", "chair"]] * 2


async def test_a_loop_of_its_own(client, db_session):
    await use(client, db_session)


@in_one_loop
@pytest.mark.parametrize("turn", range(3))
async def test_the_loop_of_all_tests(client, db_session, turn, request):
    await use(client, db_session)
    # A connection that lives in another loop refuses this.
    if turn and request.config.getini("asyncio_default_test_loop_scope") == "session":
        async with engine.connect() as connection:
            raw = await connection.get_raw_connection()
            async with raw.driver_connection.transaction():
                assert await raw.driver_connection.fetchval("SELECT count(*) FROM orders") == 2


@pytest.mark.parametrize("turn", range(2))
def test_the_loop_of_a_sync_client(test_client, turn, caplog):
    asyncio.run(engine.dispose())  # ends connections of another loop
    assert not caplog.records
    assert test_client.post("/orders/chair").status_code == 201
    assert test_client.get("/orders").json() == ["chair"]


@in_a_loop_of_the_module
@pytest.mark.parametrize("turn", range(3))
async def test_the_loop_of_the_module(client, db_session, turn):
    await use(client, db_session)


@in_one_loop
@pytest.mark.parametrize("turn", range(2))
async def test_a_statement_that_is_cancelled(client, db_session, turn):
    if DRIVER in {"asyncpg", "psycopg"}:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05), engine.begin() as connection:
                await connection.execute(insert(Order).values(item="gone"))
                await connection.execute(text("SELECT pg_sleep(60)"))
    await use(client, db_session)


@in_one_loop
async def test_a_loop_in_a_thread(client, db_session):
    async def count():
        async with engine.connect() as connection:
            return await connection.scalar(text("SELECT count(*) FROM orders"))

    await use(client, db_session)
    assert await asyncio.to_thread(asyncio.run, count()) == 2
    assert await count() == 2

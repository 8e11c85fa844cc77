"""What an app does with its driver works as in production."""

import pytest
from listening_app import DRIVER, engine, maker
from models import Order
from sqlalchemy import select, text
from sqlalchemy.exc import MissingGreenlet
from sqlalchemy.orm import Session

IS_SQLITE = DRIVER == "aiosqlite"


@pytest.fixture(params=[1, 2])
def turn(request):
    """Each story runs twice, with the same pool."""


async def test_a_connect_listener_registers_a_type_or_a_function(client, turn):
    assert (await client.post("/orders/chair")).status_code == 201
    async with engine.connect() as connection:
        if IS_SQLITE:
            assert await connection.scalar(text("SELECT shout('ann')")) == "ANN"
        else:
            query = text("SELECT CAST('(1,2)' AS point)")
            assert await connection.scalar(query) == ["point", "(1,2)"]


async def test_a_connect_listener_sets_the_session(client, turn):
    assert (await client.get("/orders")).json() == []
    async with engine.connect() as connection:
        if IS_SQLITE:
            assert await connection.scalar(text("PRAGMA foreign_keys")) == 1
        else:
            path = await connection.scalar(text("SHOW search_path"))
            assert path == "public, information_schema"


async def test_the_drivers_connection_is_used(client, turn):
    async with engine.begin() as connection:
        raw = await connection.get_raw_connection()
        driver = raw.driver_connection
        if DRIVER == "asyncpg":
            assert await driver.fetchval("SELECT 42") == 42
            rows = [(100, "vase", "new")]
            columns = ["id", "item", "status"]
            await driver.copy_records_to_table("orders", records=rows, columns=columns)
        else:
            insert = "INSERT INTO orders (id, item, status) VALUES (100, 'vase', 'new')"
            cursor = await driver.execute("SELECT 42")
            assert (await cursor.fetchone())[0] == 42
            await driver.execute(insert)
    assert (await client.get("/orders")).json() == ["vase"]


async def test_a_function_runs_with_the_drivers_connection(client, turn):
    async def answer(driver):
        if DRIVER == "asyncpg":
            return await driver.fetchval("SELECT 42")
        cursor = await driver.execute("SELECT 42")
        return (await cursor.fetchone())[0]

    async with engine.connect() as connection:
        raw = await connection.get_raw_connection()
        assert raw.dbapi_connection is not None
        found = await connection.run_sync(
            lambda sync: sync.connection.dbapi_connection.run_async(answer)
        )
    assert found == 42


async def test_rows_are_streamed(client, turn):
    async with maker.begin() as session:
        session.add_all([Order(item=f"item {number}") for number in range(5)])
    async with engine.connect() as connection:
        query = text("SELECT item FROM orders ORDER BY id")
        result = await connection.stream(query.execution_options(yield_per=2))
        items = []
        async for (item,) in result:
            items.append(item)
            if len(items) == 2:
                assert len((await client.get("/orders")).json()) == 5
    assert items == [f"item {number}" for number in range(5)]


@pytest.mark.skipif(DRIVER != "asyncpg", reason="the other drivers' connections are no facades")
async def test_sync_code_in_an_async_test_fails_as_in_production(client, turn):
    with Session(engine.sync_engine) as session, pytest.raises(MissingGreenlet):
        session.scalars(select(Order.item)).all()


def test_a_sync_session_uses_the_apps_driver_and_listeners(test_client, db_session, turn):
    assert test_client.post("/orders/chair").status_code == 201
    assert db_session.scalars(select(Order.item)).all() == ["chair"]
    if not IS_SQLITE:
        assert db_session.scalar(text("SELECT CAST('(1,2)' AS point)")) == ["point", "(1,2)"]

"""What an app does with its driver works as in production."""

import asyncio
import gc
from multiprocessing import get_context

import pytest
from listening_app import DRIVER, engine, maker
from models import Order
from sqlalchemy import DDL, select, text
from sqlalchemy.exc import MissingGreenlet
from sqlalchemy.orm import Session

IS_SQLITE = DRIVER == "aiosqlite"


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
            assert await connection.scalar(text("SHOW search_path")) == "public, information_schema"


async def test_the_drivers_connection_is_used(client, turn):
    async with engine.begin() as connection:
        driver = (await connection.get_raw_connection()).driver_connection
        if DRIVER == "asyncpg":
            assert await driver.fetchval("SELECT 42") == 42
            rows = [(100, "vase", "new")]
            columns = ["id", "item", "status"]
            await driver.copy_records_to_table("orders", records=rows, columns=columns)
        else:
            insert = "INSERT INTO orders (id, item, status) VALUES (100, 'vase', 'new')"
            assert (await (await driver.execute("SELECT 42")).fetchone())[0] == 42
            await driver.execute(insert)
    assert (await client.get("/orders")).json() == ["vase"]


async def test_a_function_runs_with_the_drivers_connection(client, turn):
    async def answer(driver):
        if DRIVER == "asyncpg":
            return await driver.fetchval("SELECT 42")
        return (await (await driver.execute("SELECT 42")).fetchone())[0]

    async with engine.connect() as connection:
        assert (await connection.get_raw_connection()).dbapi_connection is not None
        found = await connection.run_sync(
            lambda sync: sync.connection.dbapi_connection.run_async(answer)
        )
    assert found == 42


async def test_a_pool_that_pings_replaces_a_connection_that_the_server_has_ended(arena, turn):
    if arena.isolation == "undo":
        async with engine.connect() as other:
            async with engine.connect() as connection:
                pid = await connection.scalar(text("SELECT pg_backend_pid()"))
            await other.execute(text(f"SELECT pg_terminate_backend({pid})"))
    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT 42")) == 42


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


async def test_a_statement_is_prepared_again_after_ddl(turn):
    async with engine.connect() as connection:
        for number in range(2):
            assert (
                len((await connection.execute(text("SELECT * FROM visits"))).keys()) == 2 + number
            )
            await connection.execute(DDL(f"ALTER TABLE visits ADD COLUMN mood{number} text"))


@pytest.mark.skipif(DRIVER != "asyncpg", reason="the other drivers' connections are no facades")
async def test_sync_code_in_an_async_test_fails_as_in_production(client, turn):
    with Session(engine.sync_engine) as session, pytest.raises(MissingGreenlet):
        session.scalars(select(Order.item)).all()


def test_a_sync_session_uses_the_apps_driver_and_listeners(test_client, db_session, turn):
    assert test_client.post("/orders/chair").status_code == 201
    assert db_session.scalars(select(Order.item)).all() == ["chair"]
    if not IS_SQLITE:
        assert db_session.scalar(text("SELECT CAST('(1,2)' AS point)")) == ["point", "(1,2)"]


async def count_orders():
    async with engine.connect() as connection:
        return len((await connection.execute(text("SELECT id FROM orders"))).all())


async def insert_order():
    async with maker.begin() as session:
        session.add(Order(item="chair"))


@pytest.mark.skipif(IS_SQLITE, reason="SQLite has no statement that waits")
async def test_a_cancelled_statement_leaves_a_pool_that_works(client, turn):
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05), engine.connect() as connection:
            await connection.execute(text("SELECT pg_sleep(600)"))
    assert (await client.post("/orders/chair")).status_code == 201
    assert await count_orders() == 1


@pytest.mark.skipif(IS_SQLITE, reason="SQLAlchemy leaves such a connection of aiosqlite open")
async def test_a_connection_that_a_cancelled_task_never_got_is_closed(arena, turn):
    await engine.dispose()
    task = asyncio.create_task(count_orders())
    await asyncio.sleep(0)
    for _ in range(20):
        arena.changes()  # blocks this loop, while the driver connects in another one
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gc.collect()


async def test_a_frozen_clock_stops_no_statement(client, turn):
    with pytest.importorskip("freezegun").freeze_time("2061-01-14"):
        assert (await client.post("/orders/chair")).status_code == 201
        assert await count_orders() == 1


@pytest.mark.parametrize("runner", ["asyncio", "uvloop"])
async def test_the_loop_of_a_thread_uses_the_pool(client, turn, runner):
    assert (await client.post("/orders/chair")).status_code == 201
    run = pytest.importorskip(runner).run
    assert await asyncio.to_thread(lambda: run(count_orders())) == 1
    assert await count_orders() == 1


def test_a_forked_child_opens_connections_of_its_own(test_client, turn, arena):
    if arena.isolation == "rollback":
        pytest.skip("a child cannot join the transaction")

    def write():
        engine.sync_engine.dispose(close=False)
        asyncio.run(insert_order())

    assert test_client.get("/orders").json() == []
    child = get_context("fork").Process(target=write)
    child.start()
    child.join(20)
    assert child.exitcode == 0
    assert test_client.get("/orders").json() == ["chair"]

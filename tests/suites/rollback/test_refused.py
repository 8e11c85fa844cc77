"""What one shared transaction cannot show: one error each, and the next test begins as always."""

import asyncio
import os
from contextlib import suppress

import asyncpg
import psycopg
import pytest
from async_app import engine, maker
from models import Order
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine


@pytest.fixture(autouse=True)
async def begins_as_always(client):
    assert (await client.get("/orders")).json() == []
    await client.post("/orders/chair")


write = pytest.param("POST", "/orders/lamp", marks=pytest.mark.expect("A501", at="db.get(Stock"))
read = pytest.param("GET", "/orders", marks=pytest.mark.expect("A501", at="select(Order.item)"))


@pytest.mark.parametrize("method, path", [write, read])
async def test_a_request_beside_an_open_transaction(client, method, path):
    async with maker() as session:
        session.add(Order(item="first"))
        await session.flush()
        await client.request(method, path)


@pytest.mark.parametrize(
    "statement",
    ["COMMIT", "BEGIN", "rollback", "PREPARE TRANSACTION 'a'", "SET TRANSACTION READ ONLY"],
)
@pytest.mark.expect("A501", at="execute(text(statement))")
async def test_a_transaction_is_ended_as_text(statement):
    async with engine.connect() as connection:
        await connection.execute(text("INSERT INTO orders (item, status) VALUES ('a', 'new')"))
        await connection.execute(text(statement))


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT set_config('app.tenant', 'a', true)",
        "SET LOCAL statement_timeout = 1000",
        "CREATE TEMP TABLE found (id int)",
        "SELECT pg_advisory_lock(1)",
    ],
)
@pytest.mark.expect("A501", at="execute(text(statement))")
async def test_a_setting_or_a_session(statement):
    async with engine.connect() as connection:
        await connection.execute(text(statement))


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
@pytest.mark.expect("A501", at="create_engine(arena.url")
def test_another_driver(arena, driver):
    create_engine(arena.url.replace("asyncpg", driver)).connect()


async def test_a_function_of_the_app_that_connects(arena):
    url = arena.url.replace("+asyncpg", "")
    other = create_async_engine("postgresql+asyncpg://", async_creator=lambda: asyncpg.connect(url))
    with arena.expect_refusal():
        await other.connect()


async def test_a_connection_of_a_driver(arena):
    for address in ("postgresql://me@db.example.org/shop", arena.url.replace("+asyncpg", "")):
        with arena.expect_refusal():
            await asyncpg.connect(address)
        with arena.expect_refusal():
            psycopg.connect(address)


@pytest.mark.expect("A501", at="driver_connection.")
async def test_the_drivers_connection_does_not_commit():
    async with engine.connect() as connection:
        await (await connection.get_raw_connection()).driver_connection.execute("COMMIT")


async def test_a_statement_that_needs_no_transaction():
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        with pytest.raises(DBAPIError, match="cannot run inside a transaction block"):
            await connection.execute(text("VACUUM orders"))


@pytest.mark.arena(isolation="clone")
@pytest.mark.expect("A101")
async def test_of_another_isolation():
    pass


@pytest.mark.arena(seed=False)
@pytest.mark.expect("A501", at=None)
async def test_without_the_seed():
    pass


@pytest.mark.expect("A501", at="driver.transaction()")
async def test_a_transaction_of_the_driver():
    async with engine.connect() as connection:
        driver = (await connection.get_raw_connection()).driver_connection
        driver.transaction()


@pytest.mark.expect("A501", at="asyncio.run(engine.connect()")
def test_a_forked_process():
    child = os.fork()
    if child == 0:
        with suppress(Exception):
            asyncio.run(engine.connect().start())
        os._exit(0)
    os.waitpid(child, 0)


@pytest.mark.expect("A502", at="await race(")
async def test_a_race(client, arena):
    async for race in arena.races():
        await race(client.get("/orders"), client.get("/orders"))

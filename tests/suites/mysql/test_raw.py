"""Connections that no engine opens reach the test's database, and no other one."""

from functools import partial
from ssl import create_default_context

import asyncmy
import pymysql
import pytest
from async_app import engine
from models import Order
from sqlalchemy import select, text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine

ADD = "INSERT INTO orders (item, status) VALUES ('vase', 'new')"


def arguments(url):
    url = make_url(url)
    login = {"user": url.username, "password": url.password or ""}
    return {"host": url.host, "port": url.port or 3306, "database": url.database, **login}


async def test_a_sync_driver(arena, client, turn):
    with pymysql.connect(**arguments(arena.url)) as connection:
        connection.cursor().execute(ADD)
        connection.commit()
    assert (await client.get("/orders")).json() == ["vase"]


async def test_an_async_driver(arena, client, turn):
    connection = await asyncmy.connect(**arguments(arena.url), ssl=create_default_context())
    async with connection.cursor() as cursor:
        await cursor.execute(ADD)
    await connection.commit()
    await connection.ensure_closed()
    assert (await client.get("/orders")).json() == ["vase"]


def test_a_connection_that_is_left_open(arena, turn):
    connection = pymysql.connect(**arguments(arena.url))
    assert connection.cursor().execute(ADD) == 1
    connection.commit()


async def test_the_developers_database(arena, client):
    connection = pymysql.connect(**arguments(engine.url), autocommit=True)
    connection.cursor().execute(ADD)
    connection.close()
    assert (await client.get("/orders")).json() == ["vase"]


async def test_another_database(arena):
    other = arguments(engine.url.set(database="other"))
    with arena.expect_refusal():
        pymysql.connect(**other)
    with arena.expect_refusal():
        await asyncmy.connect(**other)


async def test_an_engine_with_a_creator(arena, client, turn):
    """Its pool keeps the connection over the tests."""
    creator = partial(asyncmy.connect, **arguments(arena.url))
    other = create_async_engine("mysql+asyncmy://", async_creator=creator)
    async with other.begin() as connection:
        await connection.execute(text(ADD))
    assert (await client.get("/orders")).json() == ["vase"]
    await other.dispose()


async def test_the_drivers_connection_of_a_pool(client):
    async with engine.connect() as connection:
        await (await connection.get_raw_connection()).driver_connection.query(ADD)
    assert (await client.get("/orders")).json() == []


COUNT = "SELECT count(*) FROM information_schema.processlist WHERE id = :number"
forgotten = []


@pytest.fixture(scope="class")
def forgotten_number(arena):
    connection = pymysql.connect(**arguments(arena.url))
    forgotten.append(connection)
    return connection.thread_id()


class TestOfClass:
    async def test_the_connection_is_open(self, forgotten_number, db_session):
        assert await db_session.scalar(text(COUNT), {"number": forgotten_number}) == 1


class TestAfterClass:
    async def test_the_connection_has_ended(self, db_session):
        assert await db_session.scalar(text(COUNT), {"number": forgotten[0].thread_id()}) == 0


@pytest.fixture(scope="module")
def reader(arena):
    """An open transaction of a wide fixture, which has only read."""
    with arena.session() as session:
        session.scalars(select(Order)).all()
        yield


async def test_numbers_of_a_table_that_an_open_transaction_has_read(reader, run, turn):
    await run("INSERT INTO orders (item, status) VALUES ('vase', 'new')")
    assert await run("SELECT id FROM orders") == [(1,)]

"""A driver that the app calls without an engine connects to the test's database."""

import threading

import asyncpg
import psycopg
import psycopg2.pool
import psycopg_pool
import pytest
from pooled_app import URL, create_database

INSERT = "INSERT INTO orders (item, status) VALUES ('vase', 'new')"


def insert(connection):
    connection.cursor().execute(INSERT)
    connection.commit()
    connection.close()


def by_psycopg():
    insert(psycopg.connect("host=db.example.org dbname=shop"))


def by_a_subclass():
    class Mine(psycopg.Connection):
        pass

    insert(Mine.connect(URL))


def by_psycopg_pool():
    with psycopg_pool.ConnectionPool(URL, min_size=1) as pool, pool.connection() as connection:
        connection.execute(INSERT)


def by_psycopg2():
    insert(psycopg2.connect(host="db.example.org", database="shop"))


def by_psycopg2_pool():
    insert(psycopg2.pool.SimpleConnectionPool(1, 1, URL).getconn())


def in_a_thread():
    thread = threading.Thread(target=by_psycopg)
    thread.start()
    thread.join()


async def by_async_psycopg():
    async with await psycopg.AsyncConnection.connect(URL) as connection:
        await connection.execute(INSERT)


async def by_async_psycopg_pool():
    pool = psycopg_pool.AsyncConnectionPool(URL, open=False, min_size=1)
    async with pool, pool.connection() as connection:
        await connection.execute(INSERT)


async def by_asyncpg():
    connection = await asyncpg.connect(URL, server_settings={"search_path": "public"})
    await connection.execute(INSERT)
    await connection.close()


async def by_asyncpg_pool():
    async with asyncpg.create_pool(host="db.example.org", database="shop", min_size=1) as pool:
        await pool.execute(INSERT)


SYNC = [by_psycopg, by_a_subclass, by_psycopg_pool, by_psycopg2, by_psycopg2_pool, in_a_thread]
ASYNC = [by_async_psycopg, by_async_psycopg_pool, by_asyncpg, by_asyncpg_pool]


@pytest.mark.parametrize("way", SYNC)
def test_a_sync_driver(test_client, way):
    way()
    assert test_client.get("/orders").json() == ["vase"]


@pytest.mark.parametrize("way", ASYNC)
async def test_an_async_driver(client, way):
    await way()
    assert (await client.get("/orders")).json() == ["vase"]


def test_a_connection_of_arena_url(arena, test_client):
    insert(psycopg.connect(arena.url.replace("+psycopg", "")))
    assert test_client.get("/orders").json() == ["vase"]


@pytest.mark.expect("UnknownDatabaseError", at="asyncpg.connect(database=")
async def test_a_connection_to_create_and_drop_databases():
    connection = await asyncpg.connect(database="postgres", host="db.example.org")
    await connection.execute("DROP DATABASE IF EXISTS shop")


def test_an_app_that_creates_its_database_is_no_fixture(arena):
    with arena.expect_refusal() as refusal:
        create_database()
    assert "fixture" not in refusal.error.fix

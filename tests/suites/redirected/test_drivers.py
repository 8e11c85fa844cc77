"""A driver that the app calls without an engine connects to the test's database."""

import asyncpg
import psycopg
import psycopg2.pool
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


def by_psycopg2():
    insert(psycopg2.connect(host="db.example.org", database="shop"))


def by_psycopg2_pool():
    insert(psycopg2.pool.SimpleConnectionPool(1, 1, URL).getconn())


async def by_async_psycopg():
    async with await psycopg.AsyncConnection.connect(URL) as connection:
        await connection.execute(INSERT)


async def by_asyncpg():
    place = {"host": "db.example.org", "database": "shop"}
    connection = await asyncpg.connect(**place, server_settings={"search_path": "public"})
    await connection.execute(INSERT)
    await connection.close()


@pytest.mark.parametrize("way", [by_psycopg, by_a_subclass, by_psycopg2, by_psycopg2_pool])
def test_a_sync_driver(test_client, way):
    way()
    assert test_client.get("/orders").json() == ["vase"]


@pytest.mark.parametrize("way", [by_async_psycopg, by_asyncpg])
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

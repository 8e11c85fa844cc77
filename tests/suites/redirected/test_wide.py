"""A connection that a fixture or a test forgets ends with it, whatever its scope."""

import asyncpg
import psycopg
import psycopg2
import pytest
import pytest_asyncio
from pooled_app import URL
from sqlalchemy import text

NUMBER = "SELECT pg_backend_pid()"
OPEN = "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY(:numbers)"
forgotten = []
numbers = []


def forget(connection, number):
    forgotten.append(connection)
    numbers.append(number)


def open_some():
    connection = psycopg.connect(URL, autocommit=True)
    forget(connection, connection.execute(NUMBER).fetchone()[0])
    other = psycopg2.connect(host="db.example.org", database="shop")
    cursor = other.cursor()
    cursor.execute(NUMBER)
    forget(other, cursor.fetchone()[0])
    connection.execute("INSERT INTO orders (item, status) VALUES ('vase', 'new')")


async def open_asyncpg():
    connection = await asyncpg.connect(URL)
    forget(connection, await connection.fetchval(NUMBER))


@pytest.fixture(scope="class")
def of_class():
    open_some()


@pytest_asyncio.fixture(scope="class", loop_scope="class")
async def async_of_class():
    await open_asyncpg()


class TestOfClass:
    async def test_the_connections_are_open(self, of_class, async_of_class, client, db_session):
        assert (await client.get("/orders")).json() == ["vase"]
        assert db_session.scalar(text(OPEN), {"numbers": numbers}) == 3

    async def test_they_stay_open(self, of_class, async_of_class, client, db_session):
        assert db_session.scalar(text(OPEN), {"numbers": numbers}) == 3


class TestAfterClass:
    async def test_the_connections_have_ended(self, client, db_session):
        assert (await client.get("/orders")).json() == []
        assert db_session.scalar(text(OPEN), {"numbers": numbers}) == 0
        with pytest.raises(psycopg.OperationalError):
            forgotten[0].execute("INSERT INTO orders (item, status) VALUES ('late', 'new')")


async def test_a_test_forgets_its_connections(db_session):
    open_some()
    await open_asyncpg()
    assert db_session.scalar(text(OPEN), {"numbers": numbers}) == 3


def test_they_have_ended_with_their_test(db_session):
    assert db_session.scalar(text(OPEN), {"numbers": numbers}) == 0

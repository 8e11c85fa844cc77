"""The first tests use the database before the app has an engine."""

import subprocess
import sys

import pytest
from first_request_app import get_sync_engine
from models import Order, Stock
from sqlalchemy import func, make_url, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session


def test_a_command_has_a_sync_engine():
    with Session(get_sync_engine()) as session:
        assert session.scalar(select(func.count(Stock.item))) == 2


async def test_a_session_is_not_like_the_engine_of_an_earlier_test(db_session, client, turn):
    assert isinstance(db_session, AsyncSession)
    assert "is_like" not in (await db_session.connection()).sync_connection.info
    await client.get("/stock")


async def test_a_session_before_the_first_request(db_session, client):
    assert isinstance(db_session, AsyncSession)
    assert await db_session.scalar(select(func.count(Stock.item))) == 2
    db_session.add(Order(item="vase"))
    assert (await client.get("/orders")).json() == ["vase"]
    await client.post("/orders/lamp")
    assert await db_session.scalar(select(func.count(Order.id))) == 2


async def test_a_request_alone(client, turn):
    assert (await client.get("/stock")).json() == 2
    await client.post("/orders/lamp")
    assert (await client.get("/orders")).json() == ["lamp"]


def test_a_sync_session(db_session, test_client, turn):
    assert isinstance(db_session, Session)
    db_session.add(Order(item="vase"))
    assert test_client.get("/orders").json() == ["vase"]


def test_the_name_of_the_engine_is_the_databases(arena):
    with arena.session(database="shop") as session:
        assert session.scalar(select(func.count(Stock.item))) == 2
    assert make_url(arena.url).get_driver_name() in {"aiosqlite", "asyncpg", "asyncmy"}


def test_a_program_names_the_database_as_the_engine_does(test_client):
    test_client.get("/stock")
    code = "from first_request_app import *; get_sync_engine().connect()"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture(scope="class")
def order(arena):
    with arena.session() as session:
        session.add(Order(item="wide"))
        session.commit()


class TestWide:
    def test_rows_of_a_wide_fixture(self, order, test_client, turn):
        test_client.post("/orders/lamp")
        assert test_client.get("/orders").json() == ["wide", "lamp"]

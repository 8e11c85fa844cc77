"""The test and the app share one session: flushed rows are seen, and rolled back at the end."""

import pytest
from async_app import app, maker
from fastapi.testclient import TestClient
from httpx import ASGITransport, AsyncClient
from models import Order, Stock
from sqlalchemy import func, select

pytestmark = pytest.mark.usefixtures("tables")


@pytest.fixture
async def db_session():
    async with maker() as session:
        yield session
        await session.rollback()


@pytest.fixture
async def client(db_session, override):
    override(lambda: db_session)
    async with AsyncClient(transport=ASGITransport(app=app), base_url="http://test") as client:
        yield client


async def test_a_flushed_row(db_session, client, turn):
    assert await db_session.scalar(select(func.count(Order.id))) == 0
    db_session.add(Order(item="vase"))
    await db_session.flush()
    assert (await client.get("/orders")).json() == ["vase"]


async def test_a_row_that_the_app_commits(db_session, client, turn):
    db_session.add(Stock(item="chair", amount=1))
    await db_session.flush()
    assert (await client.post("/orders/chair")).status_code == 201
    assert (await client.get("/orders")).json() == ["chair"]


async def test_a_session_with_a_transaction_of_the_test(override):
    async with maker() as session, session.begin():

        async def get_session():
            yield session

        override(get_session)
        session.add(Order(item="vase"))
        await session.flush()
        async with AsyncClient(transport=ASGITransport(app=app), base_url="http://test") as client:
            assert (await client.get("/orders")).json() == ["vase"]


async def test_a_committed_row_without_an_override():
    async with maker.begin() as session:
        session.add(Order(item="vase"))
    async with AsyncClient(transport=ASGITransport(app=app), base_url="http://test") as client:
        assert (await client.get("/orders")).json() == ["vase"]


def test_a_sync_client():
    client = TestClient(app)
    client.post("/login/staff")
    assert client.get("/me").json()[0] == "staff"
    assert client.get("/orders").json() == []

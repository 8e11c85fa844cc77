"""What the test or its fixture has written and not committed."""

import pytest
from async_app import app, get_db, maker
from models import Order
from starlette.testclient import TestClient

fails = pytest.mark.expect("AssertionError", at="assert")


async def orders(client):
    return (await client.get("/orders")).json()


@pytest.mark.expect("A701", at='TestClient(app).get("/orders")')
async def test_never_flushed(db_session):
    db_session.add_all([Order(item="vase"), Order(item="lamp")])
    assert TestClient(app).get("/orders").json() == ["vase", "lamp"]


@fails
async def test_flushed_in_a_block(client):
    async with maker() as session:
        session.add_all([Order(item="vase"), Order(item="lamp")])
        await session.flush()
        assert await orders(client)


@pytest.fixture
async def flushed():
    async with maker() as session:
        session.add(Order(item="vase"))
        await session.flush()
        yield session
        await session.rollback()


@pytest.fixture
async def closed():
    async with maker() as session:
        session.add(Order(item="vase"))
        await session.flush()


@pytest.fixture
async def added_and_closed():
    async with maker() as session:
        session.add(Order(item="vase"))


@pytest.fixture
async def rolled_back():
    async with maker() as session:
        session.add(Order(item="vase"))
        await session.flush()
        await session.rollback()


@fails
async def test_flushed_in_a_fixture(flushed, client):
    assert await orders(client)


@fails
async def test_without_a_request(flushed):
    assert False


@fails
async def test_closed(closed, client):
    assert await orders(client)


@fails
async def test_added_and_closed(added_and_closed, client):
    assert await orders(client)


@fails
async def test_rolled_back_on_purpose(rolled_back, client):
    assert await orders(client)


@fails
async def test_a_session_that_the_app_shares(flushed, client):
    app.dependency_overrides[get_db] = lambda: flushed
    assert await orders(client) == []

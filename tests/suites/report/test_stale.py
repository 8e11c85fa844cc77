"""The failed assertion compares an instance that was loaded before a request changed its row."""

import pytest
from async_app import engine
from models import Order, Stock
from sqlalchemy import update

fails = pytest.mark.expect("AssertionError", at="assert")


@pytest.fixture
async def order(db_session):
    order = Order(item="vase")
    db_session.add(order)
    await db_session.commit()
    return order


@fails
async def test_of_a_fixture(order, client):
    await client.post("/settle/1")
    assert order.status == "paid"


@fails
async def test_of_a_column_that_the_test_has_left_out(order, client):
    await client.get("/orders")
    async with engine.begin() as connection:
        await connection.execute(update(Order).values(note="late"))
    assert order.note == "late"


@fails
def test_of_a_sync_session(db_session, test_client):
    stocks = [db_session.get(Stock, "chair")]
    test_client.post("/orders/chair")
    assert all(each.amount == 4 for each in stocks)


@fails
async def test_that_was_refreshed(order, client, db_session):
    await client.post("/settle/1")
    await db_session.refresh(order)
    assert order.status == "lost"


@fails
async def test_of_another_cause(order, client):
    await client.post("/settle/1")
    assert {"status": "new"}["status"] == "paid"  # as in a cached answer


@fails
async def test_of_a_value_that_the_test_has_set(order, client):
    await client.post("/settle/1")
    order.status = "mine"
    assert order.status == "paid"

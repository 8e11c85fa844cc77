"""The first use of the database in a run, and rows that no test commits."""

import pytest
from models import Order
from pytest_arena import inserted, updated


async def test_expected_changes(arena, client):
    with arena.expect_changes(orders=inserted(1), stock=updated(1)):
        await client.post("/orders/chair")


@pytest.fixture
async def flushed(db_session):
    db_session.add(Order(item="vase"))
    await db_session.flush()


async def test_a_flushed_row_without_a_commit(flushed):
    pass


async def test_a_request_sees_a_flushed_row(flushed, client):
    assert (await client.get("/orders")).json() == ["vase"]

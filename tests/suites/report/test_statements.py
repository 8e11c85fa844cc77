"""How many statements a request has sent."""

import pytest
from models import Order


@pytest.fixture
async def orders(db_session):
    db_session.add_all([Order(item="chair") for _ in range(3)])
    await db_session.commit()


async def test_statements_are_counted(orders, arena, client):
    await client.get("/each")
    with arena.max_statements(1):
        await client.get("/orders")
    assert arena.requests[-1].statements == list(arena.statements)[-1:]
    assert arena.statements[0].startswith("SELECT")


@pytest.mark.expect("AssertionError", at="arena.max_statements(3)")
async def test_too_many(orders, arena, client):
    with arena.max_statements(3):
        await client.get("/orders")
        await client.get("/each")


@pytest.mark.expect("AssertionError", at="arena.max_statements(3)")
async def test_no_request(arena):
    with arena.max_statements(3):
        pass


@pytest.mark.expect("LookupError", at="raise LookupError")
async def test_an_error_of_the_block_wins(arena, client):
    with arena.max_statements(0):
        await client.get("/orders")
        raise LookupError

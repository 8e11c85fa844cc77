"""Rows of a wide fixture live in a savepoint below those of its tests."""

import pytest
import pytest_asyncio
from async_app import maker
from models import Order
from sqlalchemy import func, select, text


@pytest.fixture(scope="module")
def vase(arena):
    with arena.session() as session:
        session.add(Order(item="vase"))
        session.commit()


async def test_rows_of_a_wide_fixture(client, vase, turn, arena):
    await client.post("/orders/chair")
    assert (await client.get("/orders")).json() == ["vase", "chair"]
    assert "chair" in str(arena.changes())
    assert "vase" not in str(arena.changes())


async def test_the_changes_of_two_blocks(client, vase, arena):
    for item in ("chair", "lamp"):
        async with arena.fresh():
            await client.post("/orders/chair")
            assert len(arena.changes()["orders"].inserted) == 1
        await client.post(f"/orders/{item}")


@pytest.mark.expect("AssertionError", at="assert False")
async def test_that_fails(client, vase):
    await client.post("/orders/chair")
    assert False


async def test_after_it(client, vase):
    assert (await client.get("/orders")).json() == ["vase"]


@pytest.fixture(scope="class")
def thousands(arena):
    with arena.session() as session:
        session.execute(text("ALTER SEQUENCE orders_id_seq RESTART WITH 1000"))
        session.commit()


class TestWithThousands:
    async def test_numbers_begin_again(self, client, thousands, turn):
        await client.post("/orders/chair")
        async with maker() as session:
            assert await session.scalar(select(func.max(Order.id))) == 1000


@pytest_asyncio.fixture(scope="class", loop_scope="class")
async def open_order():
    async with maker() as session:
        session.add(Order(item="open"))
        await session.flush()
        yield


class TestOpen:
    @pytest.mark.expect("A501", at="await session.flush()")
    def test_an_open_transaction_of_a_wide_fixture(self, open_order):
        pass

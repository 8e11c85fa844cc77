"""Async fixtures in the loop of their module, the connections and the sessions that they hold."""

import pytest
import pytest_asyncio
from async_app import engine, items, maker
from models import Order
from sqlalchemy import insert, select, text

pytestmark = pytest.mark.asyncio(loop_scope="module")
wide_fixture = pytest_asyncio.fixture(scope="module", loop_scope="module")


@wide_fixture
async def vase(arena):
    async with arena.session() as session:
        session.add(Order(item="vase"))
        await session.commit()


@wide_fixture
async def chair(arena, vase):
    async with arena.client() as client:
        await client.post("/orders/chair")
    yield
    async with maker.begin() as session:
        session.add(Order(item="in the tear-down"))


async def test_rows_of_a_session_and_of_a_request(vase, chair, client, turn):
    assert (await client.get("/orders")).json() == ["vase", "chair"]
    await client.delete("/orders/1")


@wide_fixture
async def connection():
    async with engine.connect() as connection:
        yield connection


@wide_fixture
async def session():
    async with maker() as session:
        yield session


async def test_a_connection_and_a_session_that_are_held(connection, session, vase, client, turn):
    await client.post("/orders/lamp")
    session.add(Order(item=f"turn {turn}"))
    await session.commit()
    expected = ["vase", "chair", "lamp", f"turn {turn}"]
    assert await items(session) == expected
    assert list(await connection.scalars(select(Order.item).order_by(Order.id))) == expected
    await connection.rollback()


async def test_a_transaction_that_a_test_begins_on_it(session):
    session.add(Order(item="not committed"))
    await session.flush()


async def test_it_has_ended_with_its_test(session):
    assert await items(session) == ["vase", "chair"]


@wide_fixture
async def snapshot():
    async with maker(bind=engine.execution_options(isolation_level="SERIALIZABLE")) as session:
        yield session


async def test_a_snapshot_ends_with_its_test(snapshot, turn):
    async with maker.begin() as session:
        session.add(Order(item=f"turn {turn}"))
    assert f"turn {turn}" in await items(snapshot)


async def test_a_connection_that_has_read_outlives_a_change_of_the_schema(connection, turn):
    assert await connection.scalar(text("SELECT 1")) == 1
    async with engine.begin() as other:
        await other.execute(text("CREATE TABLE more (id INT)"))


@wide_fixture
async def lamp(session):
    lamp = Order(item="lamp")
    session.add(lamp)
    await session.commit()
    return lamp


async def test_a_transaction_beside_an_instance_of_the_module(lamp, session):
    session.add(Order(item="not committed"))
    await session.flush()


async def test_the_instance_has_its_values(lamp):
    assert lamp.item == "lamp"


@wide_fixture
async def detached():
    async with engine.connect() as connection:
        await connection.run_sync(lambda sync: sync.detach())
        yield connection


async def test_a_connection_that_has_left_its_pool_writes(detached):
    await detached.execute(insert(Order).values(item="late", status="new"))
    await detached.commit()


async def test_its_row_ends_with_the_test(detached, client):
    assert "late" not in (await client.get("/orders")).json()

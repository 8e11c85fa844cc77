"""What the test or its fixture has written and not committed."""

import pytest
from async_app import app, get_db, maker
from fastapi import Depends
from models import Base, Order
from sqlalchemy import ForeignKey, text
from sqlalchemy.orm import Mapped, mapped_column, relationship
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


@fails
async def test_committed_by_a_statement(client):
    async with maker() as session:
        session.add(Order(item="vase"))
        await session.flush()
        await session.execute(text("COMMIT"))
        assert not await orders(client)


@pytest.fixture
async def flushed():
    async with maker() as session:
        session.add(Order(item="vase"))
        await session.flush()
        yield session
        await session.rollback()


@pytest.fixture
async def closed(arena):
    async with arena.session() as session:
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
    flushed.add(Order(item="lamp"))
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


class Parcel(Base):
    __tablename__ = "parcels"
    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"))


Order.parcels = relationship(Parcel)


def current_order(): ...


@app.post("/parcels")
async def pack(order=Depends(current_order)):
    order.parcels.append(Parcel())


@fails
async def test_an_object_that_the_app_added_by_a_cascade(client, db_session):
    order = Order(item="vase", parcels=[])
    db_session.add(order)
    app.dependency_overrides[current_order] = lambda: order
    await client.post("/parcels")
    assert False


KEPT = []


@app.post("/kept")
async def keep():
    KEPT.append(maker())
    await KEPT[-1].execute(text("SELECT 1"))
    KEPT[-1].add(Order(item="vase"))


@fails
async def test_an_object_that_the_app_never_flushed(client):
    await client.post("/kept")
    assert False

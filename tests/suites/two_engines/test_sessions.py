"""`db_session` is like the engine that can write, with the listeners of this moment."""

from models import Order
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

COUNT = select(func.count(Order.id))


async def test_an_async_session_without_the_app(db_session):
    assert isinstance(db_session, AsyncSession)
    db_session.add(Order(item="vase"))
    await db_session.flush()
    await db_session.rollback()
    assert await db_session.scalar(COUNT) == 0
    assert "is_of_lifespan" not in (await db_session.connection()).sync_connection.info


async def test_an_async_session_and_the_app(db_session, client):
    db_session.add(Order(item="vase"))
    assert (await client.get("/orders")).json() == ["vase"]
    assert (await db_session.connection()).sync_connection.info["is_of_lifespan"]


def test_a_sync_session_without_the_app(db_session):
    db_session.add(Order(item="vase"))
    db_session.flush()
    db_session.rollback()
    assert db_session.scalar(COUNT) == 0
    assert "is_of_lifespan" not in db_session.connection().info


def test_a_sync_session_and_the_app(db_session, test_client):
    db_session.add(Order(item="vase"))
    assert test_client.get("/orders").json() == ["vase"]
    assert db_session.connection().info["is_of_lifespan"]

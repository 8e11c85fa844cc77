"""The first test uses a session before the factory has made an app."""

from models import Order
from sqlalchemy.ext.asyncio import AsyncSession


async def test_an_async_test_without_a_client(db_session):
    assert isinstance(db_session, AsyncSession)
    db_session.add(Order(item="vase"))
    await db_session.commit()

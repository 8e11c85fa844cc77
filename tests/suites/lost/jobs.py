"""Functions of the app that open a session."""

from async_app import maker
from models import Order


async def flush(session):
    session.add(Order(item="vase"))
    await session.flush()  # lost


async def flushes():
    async with maker() as session:
        await flush(session)


async def get_session():
    async with maker() as session:
        yield session

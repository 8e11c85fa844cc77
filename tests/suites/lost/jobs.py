"""Commands of the app: each opens a session of its own."""

from async_app import maker
from models import Order


async def flush(session):
    session.add(Order(item="vase"))
    await session.flush()  # lost


async def flushes():
    async with maker() as session:
        await flush(session)


async def adds():
    async with maker() as session:
        session.add(Order(item="vase"))  # lost


async def commits():
    async with maker() as session:
        await flush(session)
        await session.commit()


async def rolls_back():
    async with maker() as session:
        await flush(session)
        await session.rollback()


async def fails():
    async with maker() as session:
        await flush(session)
        raise LookupError("of the app")

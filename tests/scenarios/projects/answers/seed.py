"""The row of all tests."""

from app import Dancer


async def seed(session):
    session.add(Dancer(name="Sand"))

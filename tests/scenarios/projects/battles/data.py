"""The rows of all tests."""

from app import Judge


async def seed(session):
    session.add(Judge(name="Ann"))

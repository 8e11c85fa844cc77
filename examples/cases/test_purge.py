"""Fault 3: the tests drop the tables of the developer's database.

These tests pass with pytest-arena and without it. The developer's rows show the difference.
"""

import pytest
from sqlalchemy import func, select

from app import Dancer, async_session_maker, drop_db, init_db


@pytest.fixture(autouse=True)
async def clean_database() -> None:
    """Drop and create every table before each test, by the app's own engine."""
    await drop_db()
    await init_db()


async def test_a_dancer_is_alone() -> None:
    """The production session maker writes to empty tables."""
    async with async_session_maker.begin() as session:
        session.add(Dancer(name="Ruby"))
    async with async_session_maker() as session:
        assert await session.scalar(select(func.count(Dancer.id))) == 1

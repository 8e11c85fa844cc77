"""The tests clean up before they begin, in the database that the app's own engine opens.

They pass with arena and without; the developer's rows tell the difference.
"""

import pytest
from sqlalchemy import func, select

from app import Dancer, async_session_maker, drop_db, init_db


@pytest.fixture(autouse=True)
async def clean_database() -> None:
    """Drop and make every table, before each test."""
    await drop_db()
    await init_db()


async def test_dancer_is_registered() -> None:
    """One dancer is added to an empty table, by the production session maker."""
    async with async_session_maker.begin() as session:
        session.add(Dancer(name="Ruby"))
    async with async_session_maker() as session:
        assert await session.scalar(select(func.count(Dancer.id))) == 1

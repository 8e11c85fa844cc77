"""The app's own engine in a test's hands: it cannot reach the developer's database.

These tests do what once emptied it: they import the production session maker, and drop and make
the tables. The developer's database is compared before and after by `demo.py`.
"""

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, func, inspect, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.database import async_session_maker, drop_db, engine, init_db
from app.models import Base, Dancer, User
from tests.factories import a_dancer


@pytest.mark.parametrize("time", ["first", "second"])
async def test_dropping_all_tables_harms_this_test_alone(time: str) -> None:
    """Each time the test's database has all its users, until the test drops every table."""
    async with async_session_maker() as session:
        assert await session.scalar(select(func.count(User.id))) == 4

    await drop_db()
    await init_db()

    async with async_session_maker() as session:
        assert await session.scalar(select(func.count(User.id))) == 0


async def test_production_session_writes_into_the_test_s_database(
    db_session: AsyncSession,
) -> None:
    """What the production session maker commits is read by the test's own session."""
    async with async_session_maker.begin() as session:
        session.add(a_dancer("Ruby"))

    assert [*await db_session.scalars(select(Dancer.blaze))] == ["Ruby"]


async def test_migrations_make_the_schema_of_the_models() -> None:
    """The migrated database of the test differs in nothing from the models."""
    async with engine.connect() as connection:
        differences = await connection.run_sync(_compare)
        tables = await connection.run_sync(lambda sync: inspect(sync).get_table_names())

    assert "alembic_version" in tables
    assert differences == []


def _compare(connection: Connection) -> list[object]:
    return [*compare_metadata(MigrationContext.configure(connection), Base.metadata)]

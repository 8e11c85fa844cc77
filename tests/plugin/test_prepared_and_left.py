"""Statements that were prepared before somebody's DDL, and connections that nobody closes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.example import Example

PREPARED = """
import pytest
from sqlalchemy import create_engine, text
from app import engine

other = create_engine("sqlite:///dev.db")
ROWS = text("SELECT * FROM dancers")

async def columns():
    async with engine.connect() as connection:
        return list((await connection.execute(ROWS)).keys())

@pytest.mark.parametrize("name", ["style", "crew", "style"])
async def test_ddl_of_another_engine_pitfall_026(name):
    assert await columns() == ["id", "name"]
    with other.begin() as connection:
        connection.execute(text(f"ALTER TABLE dancers ADD COLUMN {name}"))
    assert await columns() == ["id", "name", name]
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TABLE dancers RENAME COLUMN name TO called"))
    with other.connect() as connection:
        assert list(connection.execute(ROWS).keys()) == ["id", "called", name]
"""


def test_no_statement_is_older_than_the_schema_pitfall_026(example: Example) -> None:
    """Columns are those that stand, between two requests and between two tests."""
    example.with_files(test_prepared=PREPARED).run().expect(passed=3)


LEFT = """
import pytest
from app import engine, maker

KEPT = []

@pytest.mark.parametrize("number", range(3))
async def test_left_open_pitfall_073(number):
    KEPT.append(engine)
    session = maker()
    KEPT.append(session)
    await session.connection()
    KEPT.append(await engine.connect())
"""


@pytest.mark.slow
def test_connections_left_open_do_not_keep_the_process_pitfall_073(example: Example) -> None:
    """Each aiosqlite connection has a thread that Python waits for: the run ends all the same."""
    run = example.with_files(test_left=LEFT).run()
    run.expect(1, passed=3, errors=3).says("a connection that was not returned")


STOPPED = """
import asyncio
import aiosqlite

async def test_a_close_is_cancelled_after_the_thread_was_stopped():
    connection = await aiosqlite.connect(":memory:")
    closing = asyncio.create_task(connection.close())
    await asyncio.sleep(0)
    connection.stop()  # SQLAlchemy does this to the connection of a cancelled task
    closing.cancel()
    done, _ = await asyncio.wait([closing], timeout=10)
    assert closing in done
"""


def test_a_cancelled_close_ends_after_the_thread_was_stopped(example: Example) -> None:
    """Otherwise the task waits forever, and `asyncio.run` with it as it cancels all tasks."""
    example.with_files(test_stopped=STOPPED).run().expect(passed=1)

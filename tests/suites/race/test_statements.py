"""A statement lets the other tasks of its loop run, and ends when its task is cancelled."""

import asyncio

import pytest
from async_app import engine
from sqlalchemy import text


async def test_a_statement_that_is_timed_out_ends(client, turn):
    function = "pg_sleep" if engine.dialect.name == "postgresql" else "SLEEP"
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05), engine.connect() as connection:
            await connection.execute(text(f"SELECT {function}(600)"))
    assert (await client.get("/orders")).json() == []


async def test_other_tasks_run_during_each_of_many_short_statements(arena):
    passes = 0

    async def go_on():
        nonlocal passes
        while True:
            passes += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(go_on())
    async with engine.connect() as connection:
        for _ in range(50):
            before = passes
            await connection.execute(text("SELECT 1"))
            assert passes > before
    other.cancel()

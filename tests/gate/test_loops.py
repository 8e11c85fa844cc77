"""One engine in several event loops, one after the other and at the same time."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from tests import forks

if TYPE_CHECKING:
    from pathlib import Path

HEAD = """
import asyncio, sys
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

if sys.argv[1] == "unbound":
    from pytest_arena._gate import _engines

    _engines.unbind_pools()

engine = create_async_engine(
    "sqlite+aiosqlite:///loops.db", pool_size=1, max_overflow=0, pool_timeout=2
)


async def query(seconds=0.01):
    async with engine.connect() as connection:
        await asyncio.sleep(seconds)
        await connection.execute(text("SELECT 1"))


async def five():
    await asyncio.gather(*[query() for _ in range(5)])
"""
ATTACKS = {
    "tasks that wait in two loops": "asyncio.run(five())\nasyncio.run(five())",
    "tasks that wait in the loops of two threads": """
async def both():
    other = asyncio.create_task(asyncio.to_thread(asyncio.run, five()))
    await five()
    await other

asyncio.run(both())
""",
    "a connection that another loop returns": """
async def wait_in_another_loop():
    held = await engine.connect()
    began = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def wait():
        asyncio.get_running_loop().call_soon(loop.call_soon_threadsafe, began.set)
        await query()

    other = asyncio.create_task(asyncio.to_thread(asyncio.run, wait()))
    await began.wait()
    await held.close()
    await other

for _ in range(20):
    asyncio.run(wait_in_another_loop())
""",
    "a task that waits when its loop ends": """
async def wait():
    held = await engine.connect()
    waiter = asyncio.ensure_future(query())
    await asyncio.sleep(0.01)
    return held, waiter

async def give_back(held):
    await held.close()
    await five()

ended = asyncio.new_event_loop()
held, waiter = ended.run_until_complete(wait())
ended.close()
asyncio.run(give_back(held))
""",
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_engine_works_in_each_loop(attack: str, tmp_path: Path) -> None:
    """A queue forgets a loop that does not run any more. SQLAlchemy's own queue does not."""
    command = [sys.executable, "-c", HEAD + ATTACKS[attack]]
    _, alone = forks.run([*command, "alone"], tmp_path, dict(os.environ), 60)
    assert "event loop" in alone.lower() or "TimeoutError" in alone
    status, output = forks.run([*command, "unbound"], tmp_path, dict(os.environ), 60)
    assert status == 0, output

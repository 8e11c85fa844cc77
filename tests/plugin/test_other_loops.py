"""Objects of asyncio, and connections of drivers, that an earlier test's event loop has used."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.plugin.shop import shop

if TYPE_CHECKING:
    from tests.example import Example

APP = """

import asyncio

QUEUE, LOCK, EVENT = asyncio.Queue(), asyncio.Lock(), asyncio.Event()


async def locked():
    async with LOCK:
        await asyncio.sleep(0)


async def wait(what):
    try:
        await asyncio.wait_for(what, 0.01)
    except TimeoutError:
        pass


@app.post("/Queue")
async def get():
    await wait(QUEUE.get())


@app.post("/Event")
async def event():
    await wait(EVENT.wait())


@app.post("/Lock")
async def lock():
    async with asyncio.TaskGroup() as group:
        for _ in range(2):
            group.create_task(locked())
"""

TESTS = """
import pytest

@pytest.mark.parametrize("turn", [1, 2])
@pytest.mark.parametrize("kind", ["Queue", "Event", "Lock"])
async def test_turn(client, kind, turn):
    assert (await client.post(f"/{kind}")).status_code == 200
"""

RAW = """
import asyncpg
import pytest

connections = []

@pytest.mark.parametrize("turn", [1, 2])
async def test_connection(arena, turn):
    if not connections:
        connections.append(await asyncpg.connect(arena.url.replace("+asyncpg", "")))
    assert await connections[0].fetchval("SELECT 1") == 1
"""


@pytest.mark.slow
def test_a_global_queue_lock_or_event_of_an_earlier_loop_is_named(example: Example) -> None:
    """With the line of the app, and both cures; also inside of an exception group."""
    project = shop(example, test_it=TESTS)
    project = project.with_files(app=project.files["app.py"] + APP)
    run = project.run("-p", "no:randomly").expect(1, passed=3, failed=3)
    for kind in ("Queue", "Event", "Lock"):
        run.says(
            f"`app.{kind.upper()}` (asyncio.{kind}) belongs to the event loop that used it first",
            f"next: make it in the app's lifespan: app.state.name = asyncio.{kind}()",
        )
    run.says("app.py:", "uses it in another loop", "asyncio_default_test_loop_scope = session")


@pytest.mark.slow
def test_a_global_connection_of_asyncpg_of_an_earlier_loop_is_named(example: Example) -> None:
    """The loop scope of the suite is a function's."""
    server = {"ARENA_DATABASE": os.environ["TESTS_POSTGRESQL"]}
    project = example.with_files(test_it=RAW).change(
        "app.py", "sqlite+aiosqlite:///dev.db", "postgresql+asyncpg://me@db.example.org/shop"
    )
    run = project.run("-p", "no:randomly", env=server).expect(1, passed=1, failed=1)
    run.says("this connection of asyncpg works only in the event loop that opened it")
    run.says("next: open it in the app's lifespan, and keep it on app.state")

"""A pool has fewer connections than there are requests at once, in several event loops."""

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor

import pytest
from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

URL = os.environ["DATABASE_URL"]
engine = create_async_engine(URL, pool_size=1, max_overflow=1)
app = FastAPI()


@app.get("/count")
async def count():
    async with engine.connect() as connection:
        await asyncio.sleep(0)
        return await connection.scalar(text("SELECT count(*) FROM orders"))


async def count_at_once():
    return await asyncio.gather(*(count() for _ in range(5)))


@pytest.fixture
def arena_app():
    return app


def test_sync_requests_at_once(test_client):
    with ThreadPoolExecutor(3) as pool:
        assert [*pool.map(lambda _: test_client.get("/count").json(), range(9))] == [0] * 9


async def test_async_requests_at_once(client, turn):
    answers = await asyncio.gather(*(client.get("/count") for _ in range(9)))
    assert [answer.json() for answer in answers] == [0] * 9
    assert engine.pool.checkedin() == 1


async def test_tasks_wait_in_the_loops_of_two_threads(arena):
    other = asyncio.to_thread(asyncio.run, count_at_once())
    assert await asyncio.gather(count_at_once(), other) == [[0] * 5] * 2


async def test_a_connection_returns_when_the_loop_of_a_waiting_task_has_ended(arena):
    held = [await engine.connect(), await engine.connect()]
    ended = asyncio.new_event_loop()
    waiting = ended.create_task(count())
    await asyncio.to_thread(ended.run_until_complete, asyncio.sleep(0.01))
    ended.close()
    await asyncio.gather(*(connection.close() for connection in held))
    assert await count_at_once() == [0] * 5
    assert not waiting.done()

"""Requests give work to tasks of the lifespan."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.example import Example

WORKERS = """

import asyncio
from contextlib import asynccontextmanager


async def write(name):
    await asyncio.sleep(0.02)
    async with maker.begin() as session:
        session.add(Dancer(name=name))


async def work(queue):
    while True:
        await write(await queue.get())
        queue.task_done()


@asynccontextmanager
async def lifespan(app):
    app.state.queue = asyncio.Queue()
    async with asyncio.TaskGroup() as group:
        app.state.group = group
        worker = group.create_task(work(app.state.queue))
        yield
        worker.cancel()


app.router.lifespan_context = lifespan


@app.post("/queue/{name}", status_code=202)
async def put(name: str):
    await app.state.queue.put(name)


@app.post("/group/{name}", status_code=202)
async def begin(name: str):
    app.state.group.create_task(write(name))


@app.post("/poll", status_code=202)
async def poll():
    app.state.poller = asyncio.create_task(asyncio.Event().wait(), name="poller-1")
"""

TESTS = """
import pytest

BOTH = pytest.mark.parametrize("name", ["Grain", "Dune"])


@BOTH
async def test_async(client, arena, name):
    await client.post(f"/group/{name}")
    await arena.settled()
    assert (await client.get("/dancers")).json() == ["Sand", name]


@BOTH
def test_sync(test_client, arena, name):
    test_client.post(f"/group/{name}")
    arena.settled()
    assert test_client.get("/dancers").json() == ["Sand", name]
"""

JOINED = """
import pytest
from app import app


@pytest.mark.parametrize("name", ["Grain", "Dune"])
async def test_it(client, name):
    await client.post(f"/queue/{name}")
    await app.state.queue.join()
    assert (await client.get("/dancers")).json() == ["Sand", name]
"""

WITHOUT_END = """
async def test_poller(client, arena):
    await client.post("/poll")
    await arena.settled(0.1)
"""


def _with_workers(example: Example, tests: str) -> Example:
    return example.with_files(test_it=tests, app=example.files["app.py"] + WORKERS)


@pytest.mark.parametrize("when", ["session", pytest.param("on", marks=pytest.mark.slow)])
def test_settled_waits_for_a_task_group_of_the_lifespan(example: Example, when: str) -> None:
    """Also if one lifespan in another thread's loop serves all tests."""
    run = _with_workers(example, TESTS).run("-o", f"arena_lifespan={when}")
    run.expect(passed=4).never_says("refused")


def test_a_test_joins_a_queue_of_the_lifespan(example: Example) -> None:
    """The worker's rows are the test's."""
    _with_workers(example, JOINED).run().expect(passed=2).never_says("refused")


@pytest.mark.slow
def test_work_without_an_end_is_named_with_a_step_that_helps(example: Example) -> None:
    """The task has no line of the app: its package, its function and its name say which it is."""
    run = _with_workers(example, WITHOUT_END).run().expect(1, failed=1)
    run.says("still runs after 0.1 s", "a task of asyncio: Event.wait (poller-1)")
    run.says("in the app's lifespan: settled() does not wait for it", "arena.settled(60)")
    run.never_says("next: await arena.settled()")


# The suite runs a worker itself. The loops of its library begin after the first request, as
# docket's do, and wait without a line of the user's code.
LATE_LOOPS = """
import asyncio
import pytest
from httpx2 import ASGITransport, AsyncClient
from app import app

async def work():
    await asyncio.sleep(0.02)
    await asyncio.create_task(asyncio.Event().wait(), name="heartbeat")

@pytest.fixture
async def own():
    worker = asyncio.create_task(work())
    async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:
        yield client
    worker.cancel()

async def test_own(own):
    await own.post("/dancers/Grain")
    await asyncio.sleep(0.1)
"""


@pytest.mark.slow
def test_the_loops_of_a_worker_that_a_fixture_runs_are_no_work_of_a_request(
    example: Example,
) -> None:
    """They wait until the fixture ends them: no test waits for them, and none is cut off."""
    run = example.with_files(test_it=LATE_LOOPS).run().expect(passed=1)
    run.never_says("cut off", "heartbeat")

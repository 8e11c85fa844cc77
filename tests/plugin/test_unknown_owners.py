"""Jobs of libraries' threads, and callbacks: their test is over, and they still write."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.plugin.test_late_work import isolation
from tests.plugin.test_own_queues import EACH, app_with_workers

if TYPE_CHECKING:
    from tests.example import Example

CALLBACKS = """
from concurrent.futures import Future, ThreadPoolExecutor

from workers import GATE, app, asyncio, do, threading

POOL = ThreadPoolExecutor(1)
ENDED = threading.Event()
ERRORS = []
POOL.submit(int).result()  # its thread is older than all tests


def write(future):
    try:
        do(("now", "Ghost"))
    except Exception as error:
        ERRORS.append(error)
    finally:
        ENDED.set()


@app.post("/callbacks/{when}", status_code=202)
async def callback(when: str):
    job = POOL.submit(GATE.wait, 60) if when == "late" else POOL.submit(int)
    job.add_done_callback(write)


@app.post("/own_future", status_code=202)
async def own_future():
    future = Future()
    future.add_done_callback(write)
    threading.Timer(0.05, future.set_result, (None,)).start()
"""

LATE_CALLBACK = """
import callbacks


async def test_waits(arena, client):
    await client.post("/callbacks/now")
    await arena.settled()
    assert callbacks.ENDED.is_set()
    callbacks.ENDED.clear()
    assert (await client.get("/dancers")).json() == ["Sand", "Ghost"]


async def test_waits_for_a_future_of_the_app(arena, client):
    await client.post("/own_future")
    await arena.settled()
    assert callbacks.ENDED.is_set()
    callbacks.ENDED.clear()
    assert (await client.get("/dancers")).json() == ["Sand", "Ghost"]


async def test_leaves_a_job(client):
    assert (await client.post("/callbacks/late")).status_code == 202


async def test_the_next_one(client):
    callbacks.GATE.set()
    assert await callbacks.asyncio.to_thread(callbacks.ENDED.wait, 30)
    assert [type(error).__name__ for error in callbacks.ERRORS] == ["LateWorkError"]
    assert (await client.get("/dancers")).json() == ["Sand"]
"""

LAZY = """
from functools import cache
from multiprocessing.pool import ThreadPool

from workers import ENDS, GATE, app, asyncio, do, threading

POOL = cache(lambda: ThreadPool(1))
BEGUN = threading.Event()


def work(job):
    BEGUN.set()
    try:
        do(job)
        ENDS.put(None)
    except Exception as error:
        ENDS.put(error)


@app.post("/pool/{when}/{name}", status_code=202)
async def pool(when: str, name: str):
    POOL().apply_async(work, ((when, name),))
"""

LAZY_JOB = """
import lazy


async def test_begins_the_pool(arena, client):
    await client.post("/pool/now/Late")
    assert await lazy.asyncio.to_thread(lazy.ENDS.get, True, 30) is None
    assert (await client.get("/dancers")).json() == ["Sand", "Late"]


async def test_leaves_jobs(client):
    lazy.BEGUN.clear()
    await client.post("/pool/late/Cut")
    assert await lazy.asyncio.to_thread(lazy.BEGUN.wait, 30)
    await client.post("/pool/now/Ghost")


async def test_the_next_one(client):
    lazy.GATE.set()
    get = lazy.ENDS.get
    assert await lazy.asyncio.to_thread(get, True, 30) is not None
    assert await lazy.asyncio.to_thread(get, True, 30) is None
    assert (await client.get("/dancers")).json() == ["Sand", "Ghost"]
"""


@pytest.mark.slow
@EACH
def test_a_callback_of_a_job_belongs_to_the_test_of_its_request(example: Example, how: str) -> None:
    """A job that ends after its test has its callbacks called in the thread of a pool."""
    project = app_with_workers(example, how, test_it=LATE_CALLBACK, callbacks=CALLBACKS)
    project = project.change("pytest.ini", "workers:app", "callbacks:app")
    run = project.run("-q", "--arena-settle=0.3", *isolation(how)).expect(passed=4)
    run.says("refused: a connection for work that a request of an earlier test had begun: ")


@pytest.mark.slow
@EACH
def test_a_commit_of_a_librarys_thread_of_an_earlier_test_is_named(
    example: Example, how: str
) -> None:
    """pytest-arena does not see which test has given it the job."""
    project = app_with_workers(example, how, test_it=LAZY_JOB, lazy=LAZY)
    project = project.change("pytest.ini", "workers:app", "lazy:app")
    run = project.run("-q", "--arena-settle=0.1", *isolation(how)).expect(passed=3)
    run.says(
        "arena: test_it.py::test_the_next_one: a thread that began in an earlier test "
        "commits to dancers in it: ",
        "workers.py:",
    )


WIDE_CLIENT = """
import pytest


@pytest.fixture(scope="module")
def wide_client(arena):
    return arena.test_client()


@pytest.mark.parametrize("turn", [1, 2])
def test_orders(wide_client, turn):
    assert wide_client.post("/dancers/Wide").status_code == 201
    assert wide_client.get("/dancers").json() == ["Sand", "Wide"]
"""


def test_a_thread_of_a_wide_fixtures_client_belongs_to_no_test(example: Example) -> None:
    """The first request starts the thread in a test, and later tests use it too."""
    run = example.with_files(test_it=WIDE_CLIENT).run("-q").expect(passed=2)
    run.never_says("a thread that began")

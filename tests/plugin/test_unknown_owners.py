"""Threads that outlive a test, and whose jobs pytest-arena cannot attribute to a test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.example import Example

WORKERS = """
import asyncio
import threading
from multiprocessing.pool import ThreadPool
from queue import SimpleQueue

from sqlalchemy import create_engine, text

from app import app

engine = create_engine("sqlite:///dev.db")
GATE = threading.Event()  # opened by a test
BEGUN = threading.Event()  # a job has begun
ENDS = SimpleQueue()  # how each job has ended
QUEUES = {kind: SimpleQueue() for kind in ("import", "test", "request")}
STARTED = set()
POOLS = []


def do(when, name):
    BEGUN.set()
    try:
        if when == "late":
            GATE.wait(60)
        with engine.connect() as connection:
            connection.execute(text("INSERT INTO dancers (name) VALUES (:name)"), {"name": name})
            connection.commit()
        ENDS.put(None)
    except Exception as error:
        ENDS.put(error)


def work(jobs):
    while True:
        do(*jobs.get())


def start(kind):
    if kind not in STARTED:
        STARTED.add(kind)
        threading.Thread(target=work, args=(QUEUES[kind],), daemon=True).start()


start("import")


async def ended():
    return await asyncio.to_thread(ENDS.get, True, 30)


@app.post("/jobs/{kind}/{when}/{name}", status_code=202)
async def add(kind: str, when: str, name: str):
    if kind == "pool":
        if not POOLS:
            POOLS.append(ThreadPool(1))
        POOLS[0].apply_async(do, (when, name))
    else:
        start(kind)
        QUEUES[kind].put((when, name))
"""

OLDER = """
import workers


async def test_leaves_a_job(client):
    assert (await client.post("/jobs/import/late/Ghost")).status_code == 202


async def test_the_next_one(client):
    workers.GATE.set()
    assert await workers.ended() is None
    assert (await client.get("/dancers")).json() == ["Sand", "Ghost"]
"""

OF_A_POOL = """
import workers


async def test_begins_the_pool(client):
    await client.post("/jobs/pool/now/Late")
    assert await workers.ended() is None
    assert (await client.get("/dancers")).json() == ["Sand", "Late"]


async def test_leaves_a_job(client):
    workers.BEGUN.clear()
    await client.post("/jobs/pool/late/Ghost")
    assert await workers.asyncio.to_thread(workers.BEGUN.wait, 30)


async def test_the_next_one(client):
    workers.GATE.set()
    assert await workers.ended() is None
    assert (await client.get("/dancers")).json() == ["Sand", "Ghost"]
"""

BEGUN = """
import pytest
import workers


async def begins_the_worker(client, kind):
    if kind == "test":
        workers.start("test")
    assert (await client.post(f"/jobs/{kind}/now/Late")).status_code == 202
    assert await workers.ended() is None
    assert (await client.get("/dancers")).json() == ["Sand", "Late"]


async def goes_on(client, kind):
    assert (await client.post(f"/jobs/{kind}/now/Ghost")).status_code == 202
    assert await workers.ended() is not None
    assert (await client.get("/dancers")).json() == ["Sand"]


STEPS = [(kind, step) for kind in ("test", "request") for step in (begins_the_worker, goes_on)]


@pytest.mark.parametrize(("kind", "step"), STEPS)
async def test_each(client, kind, step):
    await step(client, kind)
"""


def with_workers(example: Example, tests: str) -> Example:
    """Return an app whose workers take jobs from queues."""
    project = example.change("pytest.ini", "app:app", "workers:app")
    return project.with_files(workers=WORKERS, test_it=tests)


def test_a_commit_of_a_thread_that_is_older_than_all_tests_is_named(example: Example) -> None:
    """pytest-arena cannot see which test has begun its job."""
    run = with_workers(example, OLDER).run("-q").expect(passed=2)
    run.says(
        "arena: test_it.py::test_the_next_one: a thread that began before the first test "
        "commits to dancers in it: ",
        "workers.py:",
        "connection.execute(text(",
    )


@pytest.mark.slow
def test_a_commit_of_a_librarys_thread_of_an_earlier_test_is_named(example: Example) -> None:
    """pytest-arena does not see which test has given it the job."""
    run = with_workers(example, OF_A_POOL).run("-q", "-oarena_settle=0.1").expect(passed=3)
    run.says(
        "arena: test_it.py::test_the_next_one: a thread that began in an earlier test "
        "commits to dancers in it: ",
        "workers.py:",
    )


def test_a_worker_that_a_test_begins_is_refused_with_the_line_that_begins_it(
    example: Example,
) -> None:
    """Its queue does not show whose job it does in a later test."""
    run = with_workers(example, BEGUN).run("-q", "-oarena_settle=0.1").expect(passed=4)
    assert run.output.count("begun at ") == 2, run.output
    run.says(
        "refused: a connection for a thread, a job or a task that an earlier test had begun: ",
        "refused: a connection for work that a request of an earlier test had begun: ",
        "with engine.connect() as connection:; begun at ",
        "threading.Thread(target=work, args=(QUEUES[kind],), daemon=True).start()",
        "or begin it in the lifespan or in a session fixture, if it is a worker of all tests",
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

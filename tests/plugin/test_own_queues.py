"""Jobs that requests put into a queue of the app, for a worker that is older than the request."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.plugin.test_late_work import isolation
from tests.plugin.test_postgresql_story import on_postgresql

if TYPE_CHECKING:
    from tests.example import Example

WORKERS = """
import asyncio
import queue
import threading
from contextlib import asynccontextmanager

from fastapi import Request
from sqlalchemy import create_engine, text

from app import app, engine as async_engine

sync_engine = create_engine("SYNC_URL")
INSERT = text("INSERT INTO dancers (name) VALUES (:name)")
GATE = threading.Event()  # opened by a test
HOLDS = threading.Event()  # a job has its connection
ENDS = queue.SimpleQueue()  # how each job has ended
QUEUES = {kind: queue.Queue() for kind in ("import", "lifespan", "fixture", "request")}
LOOP = asyncio.new_event_loop()
LOOP_JOBS = asyncio.Queue()
STARTED = set()


def do(job):
    when, name = job
    if when == "late":
        GATE.wait(60)
    with sync_engine.connect() as connection:
        connection.execute(text("SELECT * FROM dancers"))
        if when == "held":
            HOLDS.set()
            GATE.wait(60)
        connection.execute(INSERT, {"name": name})
        connection.commit()


def work(jobs):
    while True:
        job = jobs.get()
        try:
            do(job)
            ENDS.put(None)
        except Exception as error:  # a worker survives a job that fails
            ENDS.put(error)


async def ado(job):
    when, name = job
    if when == "late":
        await asyncio.to_thread(GATE.wait, 60)
    async with async_engine.connect() as connection:
        await connection.execute(text("SELECT * FROM dancers"))
        if when == "held":
            HOLDS.set()
            await asyncio.to_thread(GATE.wait, 60)
        await connection.execute(INSERT, {"name": name})
        await connection.commit()


async def awork(takes):
    while True:
        job = await takes()
        try:
            await ado(job)
            ENDS.put(None)
        except Exception as error:
            ENDS.put(error)


def start(kind):
    if kind not in STARTED:
        STARTED.add(kind)
        threading.Thread(target=work, args=(QUEUES[kind],), daemon=True).start()


start("import")
threading.Thread(target=LOOP.run_forever, daemon=True).start()
asyncio.run_coroutine_threadsafe(awork(lambda: LOOP_JOBS.get()), LOOP)


@asynccontextmanager
async def lifespan(_):
    start("lifespan")
    jobs = asyncio.Queue()
    waiting = asyncio.create_task(awork(lambda: asyncio.wait_for(jobs.get(), 600)))
    yield {"jobs": jobs}
    waiting.cancel()


app.router.lifespan_context = lifespan


@app.post("/jobs/{kind}/{when}/{name}", status_code=202)
async def add(request: Request, kind: str, when: str, name: str):
    if kind == "loop":
        LOOP.call_soon_threadsafe(LOOP_JOBS.put_nowait, (when, name))
    elif kind == "wait_for":
        await request.state.jobs.put((when, name))
    else:
        if kind == "request":
            start(kind)
        QUEUES[kind].put((when, name))
"""

CONFTEST = """
import pytest
import workers


@pytest.fixture(scope="session", autouse=True)
def worker():
    workers.start("fixture")
"""

KINDS = '("import", "lifespan", "fixture", "loop")'

SETTLED = f"""
import pytest
import workers

KINDS = (*{KINDS}, "request", "wait_for")


@pytest.mark.parametrize("turn", range(3))
@pytest.mark.parametrize("kind", KINDS)
async def test_async(arena, client, kind, turn):
    assert (await client.post(f"/jobs/{{kind}}/now/Late")).status_code == 202
    await arena.settled()
    assert workers.ENDS.get_nowait() is None
    assert (await client.get("/dancers")).json() == ["Sand", "Late"]


@pytest.mark.parametrize("kind", KINDS)
def test_sync(arena, test_client, kind):
    assert test_client.post(f"/jobs/{{kind}}/now/Late").status_code == 202
    arena.settled()
    assert workers.ENDS.get_nowait() is None
    assert test_client.get("/dancers").json() == ["Sand", "Late"]


@pytest.mark.parametrize("kind", KINDS)
async def test_does_not_ask(client, kind):
    assert (await client.post(f"/jobs/{{kind}}/now/Late")).status_code == 202


async def test_all_jobs_were_done():
    assert [workers.ENDS.get_nowait() for _ in {KINDS}] == [None] * len({KINDS})


async def test_nothing_has_come_here(client):
    assert (await client.get("/dancers")).json() == ["Sand"]
"""

LEFT = f"""
import pytest
import workers


async def leaves_jobs(arena, client, kind, when):
    workers.GATE.clear()
    workers.HOLDS.clear()
    assert (await client.post(f"/jobs/{{kind}}/{{when}}/Ghost")).status_code == 202
    assert (await client.post(f"/jobs/{{kind}}/now/Queued")).status_code == 202
    if when == "held":
        assert await workers.asyncio.to_thread(workers.HOLDS.wait, 30)


async def goes_on(arena, client, kind, when):
    workers.GATE.set()
    for _ in range(2):
        assert await workers.asyncio.to_thread(workers.ENDS.get, True, 30) is not None
    assert (await client.get("/dancers")).json() == ["Sand"]
    await client.post(f"/jobs/{{kind}}/now/Late")  # the same worker, for this test
    await arena.settled()
    assert workers.ENDS.get(timeout=30) is None
    assert (await client.get("/dancers")).json() == ["Sand", "Late"]


WHENS = ("late", "held")
STEPS = [(k, w, step) for k in {KINDS} for w in WHENS for step in (leaves_jobs, goes_on)]


@pytest.mark.parametrize(("kind", "when", "step"), STEPS)
async def test_each(arena, client, kind, when, step):
    await step(arena, client, kind, when)
"""


QUIET_APP = """
import queue
import threading
from contextlib import asynccontextmanager

from workers import INSERT, app, async_engine, asyncio, sync_engine, text

EVENTS = queue.Queue()  # nobody takes them, unless a test looks
PLACES = queue.LifoQueue()  # requests borrow a place, and give it back
BATCH = asyncio.Queue()
BEATS = queue.Queue()
BEAT = threading.Event()
ERRORS = []
PLACES.put("left")
begin = app.router.lifespan_context


@asynccontextmanager
async def lifespan(app):
    async with begin(app) as state:
        yield state
    while not BATCH.empty():
        name = BATCH.get_nowait()
        with sync_engine.begin() as connection:
            connection.execute(INSERT, {"name": f"{name} of the batch"})


app.router.lifespan_context = lifespan


def poll():
    while True:
        try:
            if BEATS.get(timeout=0.001) == "stop":
                return
            BEATS.task_done()
            with sync_engine.begin() as connection:
                connection.execute(text("UPDATE dancers SET name = name"))
            BEAT.set()
        except queue.Empty:
            pass
        except Exception as error:
            ERRORS.append(error)


ASKED = threading.Event()
STOPPED = threading.Event()


async def poll_in_a_loop():
    while not STOPPED.is_set():
        await asyncio.sleep(0.001)
        if ASKED.is_set():
            ASKED.clear()
            async with async_engine.begin() as connection:
                await connection.execute(text("UPDATE dancers SET name = name"))
            BEAT.set()


@app.post("/events/{name}")
def event(name: str):
    place = PLACES.get()
    EVENTS.put(name)
    BATCH.put_nowait(name)
    with sync_engine.begin() as connection:
        connection.execute(INSERT, {"name": name})
    PLACES.put(place)


@app.get("/events")
async def stream():
    own = asyncio.Queue()
    for number in range(3):
        own.put_nowait(number)
    return await own.get()
"""

QUIET = """
import threading
import pytest
import quiet
import workers


@pytest.fixture(scope="session", autouse=True)
def poller():
    thread = threading.Thread(target=quiet.poll)
    thread.start()
    polling = quiet.asyncio.run_coroutine_threadsafe(quiet.poll_in_a_loop(), workers.LOOP)
    yield
    quiet.STOPPED.set()
    polling.result(30)
    quiet.BEATS.put("stop")
    thread.join()
    assert not quiet.ERRORS


@pytest.fixture(scope="module", autouse=True)
def drained():
    yield
    while not quiet.EVENTS.empty():
        quiet.EVENTS.get_nowait()
    with quiet.sync_engine.begin() as connection:
        connection.execute(quiet.INSERT, {"name": "Module"})
        assert not quiet.ERRORS


@pytest.mark.parametrize("turn", range(3))
class TestEach:
    async def test_async(self, client, turn):
        assert (await client.post("/events/Async")).status_code == 200
        assert (await client.get("/events")).json() == 0
        assert (await client.get("/dancers")).json() == ["Sand", "Async"]

    def test_sync(self, test_client, turn):
        assert test_client.post("/events/Sync").status_code == 200
        assert test_client.get("/dancers").json() == ["Sand", "Sync"]

    def test_looks_into_the_queue(self, test_client, turn):
        assert quiet.EVENTS.get_nowait() in {"Async", "Sync"}  # an earlier test has left it
        test_client.post("/events/Seen")
        assert test_client.get("/dancers").json() == ["Sand", "Seen"]

    async def test_beats(self, client, turn):
        quiet.BEAT.clear()
        workers.LOOP.call_soon_threadsafe(quiet.BEATS.put, "beat")
        assert await quiet.asyncio.to_thread(quiet.BEAT.wait, 30)
        assert not quiet.ERRORS
        quiet.BEAT.clear()
        quiet.ASKED.set()
        assert await quiet.asyncio.to_thread(quiet.BEAT.wait, 30)
"""


UNSEEN_APP = """
import threading
from queue import SimpleQueue

import workers
from workers import ENDS, GATE, app, do

QUEUES = {"import": SimpleQueue(), "test": SimpleQueue(), "request": SimpleQueue()}
STARTED = set()


def work(jobs):
    while True:
        try:
            do(jobs.get())
            ENDS.put(None)
        except Exception as error:
            ENDS.put(error)


def start(kind):
    if kind not in STARTED:
        STARTED.add(kind)
        threading.Thread(target=work, args=(QUEUES[kind],), daemon=True).start()


start("import")


@app.post("/simple/{kind}/{when}/{name}", status_code=202)
async def simple(kind: str, when: str, name: str):
    start(kind)
    QUEUES[kind].put((when, name))
"""

UNSEEN = """
import unseen


async def test_leaves_a_job(client):
    assert (await client.post("/simple/import/late/Ghost")).status_code == 202


async def test_the_next_one(client):
    unseen.GATE.set()
    assert await unseen.workers.asyncio.to_thread(unseen.ENDS.get, True, 30) is None
    assert (await client.get("/dancers")).json() == ["Sand", "Ghost"]
"""

BEGUN = """
import pytest
import unseen


async def begins_the_worker(client, kind):
    if kind == "test":
        unseen.start("test")
    assert (await client.post(f"/simple/{kind}/now/Late")).status_code == 202
    assert await unseen.workers.asyncio.to_thread(unseen.ENDS.get, True, 30) is None
    assert (await client.get("/dancers")).json() == ["Sand", "Late"]


async def goes_on(client, kind):
    assert (await client.post(f"/simple/{kind}/now/Ghost")).status_code == 202
    assert await unseen.workers.asyncio.to_thread(unseen.ENDS.get, True, 30) is not None
    assert (await client.get("/dancers")).json() == ["Sand"]


STEPS = [(kind, step) for kind in ("test", "request") for step in (begins_the_worker, goes_on)]


@pytest.mark.parametrize(("kind", "step"), STEPS)
async def test_each(client, kind, step):
    await step(client, kind)
"""


def app_with_workers(example: Example, how: str, **files: str) -> Example:
    """Return an app whose workers take jobs from queues."""
    url, project = "sqlite:///dev.db", example
    if how != "copy":
        url, project = "postgresql+psycopg://me@db.example.org/shop", on_postgresql(example)
    project = project.change("pytest.ini", "app:app", "workers:app")
    workers = WORKERS.replace("SYNC_URL", url)
    return project.with_files(workers=workers, conftest=CONFTEST, **files)


EACH = pytest.mark.parametrize(
    "how",
    [
        "copy",
        pytest.param("undo", marks=pytest.mark.slow),
        pytest.param("clone", marks=pytest.mark.slow),
    ],
)


@EACH
def test_a_job_of_an_own_queue_is_waited_for(example: Example, how: str) -> None:
    """Wherever its worker began."""
    project = app_with_workers(example, how, test_it=SETTLED)
    run = project.run("--arena-settle=30", *isolation(how))
    run.expect(passed=32).never_says("refused", "cut off", "began before")


@EACH
def test_a_job_of_an_own_queue_never_writes_in_the_next_test(example: Example, how: str) -> None:
    """Neither the job that the worker does then, nor the job behind it; each is named."""
    project = app_with_workers(example, how, test_it=LEFT)
    run = project.run("--arena-settle=0.1", "-q", *isolation(how))
    run.expect(1, passed=16, errors=4)
    run.says("has ended, and work that a request had begun was cut off: ", "QUEUES[kind].put(")
    run.says("refused: a connection for work that a request of an earlier test had begun: ")
    run.says("ConnectionLeak: the test ended with a connection that was not returned")


@pytest.mark.slow
def test_nor_does_one_whose_worker_calls_task_done_before_it_writes(example: Example) -> None:
    """No test waits for the rest of the job. It is still the job's until the worker asks again."""
    project = app_with_workers(example, "copy", test_it=LEFT)
    project = project.change(
        "workers.py", "            do(job)", "            jobs.task_done(), do(job)"
    )
    run = project.run("--arena-settle=0.1", "-q").expect(1, passed=16, errors=4)
    run.says("refused: a connection for work that a request of an earlier test had begun: ")


@pytest.mark.slow
@EACH
def test_what_is_no_job_of_a_worker_is_left_alone(example: Example, how: str) -> None:
    """Pollers of wider fixtures, places of a pool, events that a test looks at, own consumers."""
    project = app_with_workers(example, how, test_it=QUIET, quiet=QUIET_APP)
    project = project.change("pytest.ini", "workers:app", "quiet:app")
    run = project.run("--arena-settle=0.5", "-q", *isolation(how))
    run.expect(passed=12).never_says("refused", "cut off", "began before")


@pytest.mark.slow
@EACH
def test_a_commit_of_a_thread_that_is_older_than_all_tests_is_named(
    example: Example, how: str
) -> None:
    """pytest-arena cannot see which test has begun a job of another kind of queue."""
    project = app_with_workers(example, how, test_it=UNSEEN, unseen=UNSEEN_APP)
    project = project.change("pytest.ini", "workers:app", "unseen:app")
    run = project.run("-q", *isolation(how)).expect(passed=2)
    run.says(
        "arena: test_it.py::test_the_next_one: a thread that began before the first test "
        "commits to dancers in it: ",
        "workers.py:",
        "connection.execute(INSERT",
    )


@pytest.mark.slow
def test_a_worker_that_a_test_begins_is_refused_with_the_line_that_begins_it(
    example: Example,
) -> None:
    """Its queue does not show whose job it does in a later test."""
    project = app_with_workers(example, "copy", test_it=BEGUN, unseen=UNSEEN_APP)
    project = project.change("pytest.ini", "workers:app", "unseen:app")
    run = project.run("-q", "--arena-settle=0.1").expect(passed=4)
    assert run.output.count("begun at ") == 2, run.output
    run.says(
        "refused: a connection for a thread, a job or a task that an earlier test had begun: ",
        "refused: a connection for work that a request of an earlier test had begun: ",
        "with sync_engine.connect() as connection:; begun at ",
        "threading.Thread(target=work, args=(QUEUES[kind],), daemon=True).start()",
        "or begin it in the lifespan or in a session fixture, if it is a worker of all tests",
    )


# A session fixture starts the worker, and a test puts a job into its queue.
OF_A_FIXTURE = """
import asyncio
import pytest_asyncio
from app import Dancer, maker

async def work(queue, gate):
    while True:
        await queue.get()
        await gate.wait()
        async with maker() as session:
            session.add(Dancer(name="late"))
            await session.commit()

@pytest_asyncio.fixture(scope="session")
async def worker():
    queue, gate = asyncio.Queue(), asyncio.Event()
    task = asyncio.create_task(work(queue, gate))
    yield queue, gate, task
    task.cancel()

async def test_one(worker):
    queue, gate, task = worker
    await queue.put("job")

async def test_two(worker, client):
    queue, gate, task = worker
    gate.set()
    await asyncio.wait([task])
    assert (await client.get("/dancers")).json() == ["Sand"]
"""


@pytest.mark.slow
def test_a_job_for_the_worker_of_a_session_fixture_is_refused_with_its_line(
    example: Example,
) -> None:
    """The test that put the job there has to wait for it. The worker itself is no late work."""
    options = (
        "asyncio_default_fixture_loop_scope = session\nasyncio_default_test_loop_scope = session"
    )
    project = example.change("pytest.ini", "asyncio_default_fixture_loop_scope = function", options)
    run = project.with_files(test_it=OF_A_FIXTURE).run("-q").expect(passed=2)
    run.says(
        "refused: a connection for a thread, a job or a task that an earlier test had begun: ",
        "await session.commit(); begun at test_it.py:23  await queue.put(",
        "or wait for the queue (await queue.join()), before that test ends",
    )

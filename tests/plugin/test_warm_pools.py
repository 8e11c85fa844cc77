"""Jobs in threads and loops that are older than their test: what they hold ends with that."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.plugin.test_late_work import isolation
from tests.plugin.test_postgresql_story import on_postgresql

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.example import Example, Run

WARM = """
import asyncio
import functools
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import anyio.to_thread
from sqlalchemy import create_engine, text

from app import app, engine as async_engine

sync_engine = create_engine("SYNC_URL")
POOL = ThreadPoolExecutor(1)
LOOP = asyncio.new_event_loop()
TASKS = []
STARTED = []  # pools of lifespans
INSERT = text("INSERT INTO dancers (name) VALUES ('Ghost')")

HOLDS = threading.Event()  # a job has its connection, or is about to ask for it
GATE = threading.Event()  # opened by the next test
ENDED = threading.Event()
ENDS = []


def reset():
    for event in (HOLDS, GATE, ENDED):
        event.clear()
    ENDS.clear()


@asynccontextmanager
async def lifespan(_):
    if not STARTED:  # a cache of the process, as with lru_cache
        STARTED.append(ThreadPoolExecutor(1))
    yield


app.router.lifespan_context = lifespan


def noted(job):
    @functools.wraps(job)
    def noting(when):
        try:
            job(when)
            ENDS.append(None)
        except BaseException as error:
            ENDS.append(error)
        ENDED.set()

    return noting


@noted
def work(when):
    if when == "late":
        HOLDS.set()
        assert GATE.wait(60)
    with sync_engine.connect() as connection:
        if when == "written":
            connection.execute(INSERT)
        if when == "read":
            connection.execute(text("SELECT * FROM dancers")).all()
        HOLDS.set()
        assert GATE.wait(60)
        if when != "written":
            connection.execute(INSERT)
        connection.commit()


async def awork(when):
    wait = functools.partial(asyncio.to_thread, GATE.wait, 60)
    try:
        if when == "late":
            HOLDS.set()
            assert await wait()
        async with async_engine.connect() as connection:
            if when == "written":
                await connection.execute(INSERT)
            if when == "read":
                await connection.execute(text("SELECT * FROM dancers"))
            HOLDS.set()
            assert await wait()
            if when != "written":
                await connection.execute(INSERT)
            await connection.commit()
        ENDS.append(None)
    except BaseException as error:
        ENDS.append(error)
    ENDED.set()


def warm_up():
    with sync_engine.connect() as connection:
        connection.execute(text("SELECT * FROM dancers")).all()


def give(kind, job, *args):
    if kind == "global":
        return asyncio.wrap_future(POOL.submit(job, *args))
    if kind == "lifespan":
        return asyncio.wrap_future(STARTED[0].submit(job, *args))
    if kind == "default":
        return asyncio.get_running_loop().run_in_executor(None, job, *args)
    if kind == "anyio":
        return asyncio.create_task(anyio.to_thread.run_sync(job, *args, abandon_on_cancel=True))
    raise ValueError(kind)


def add():
    with sync_engine.begin() as connection:
        connection.execute(text("INSERT INTO dancers (name) VALUES ('Late')"))


@app.post("/warm/{kind}")
async def warm(kind: str):
    await give(kind, warm_up)


@app.post("/add/{kind}", status_code=202)
async def begin(kind: str):
    TASKS.append(give(kind, add))


@app.post("/hold/{kind}/{when}", status_code=202)
async def hold(kind: str, when: str):
    TASKS.append(give(kind, work, when))
"""

TESTS = """
import os
import pytest
import warm

KINDS, WHENS = os.environ["KINDS"].split(), os.environ["WHENS"].split()


@pytest.mark.parametrize("kind", KINDS)
async def test_warms_up(client, kind):
    assert (await client.post(f"/warm/{kind}")).status_code == 200


async def leaves_a_job(client, kind, when):
    warm.reset()
    assert (await client.post(f"/hold/{kind}/{when}")).status_code == 202
    assert await warm.asyncio.to_thread(warm.HOLDS.wait, 30)


async def goes_on(client, kind, when):
    assert (await client.get("/dancers")).json() == ["Sand"]
    warm.GATE.set()
    assert await warm.asyncio.to_thread(warm.ENDED.wait, 30)
    assert (await client.get("/dancers")).json() == ["Sand"]
    assert warm.ENDS[0] is not None
    assert (await client.post(f"/warm/{kind}")).status_code == 200


STEPS = [(when, kind, step) for when in WHENS for kind in KINDS for step in (leaves_a_job, goes_on)]


@pytest.mark.parametrize(("when", "kind", "step"), STEPS)
async def test_each(client, when, kind, step):
    await step(client, kind, when)
"""

SYNC = """
import os
import pytest
import warm

KINDS, WHENS = os.environ["KINDS"].split(), os.environ["WHENS"].split()


@pytest.mark.parametrize("kind", KINDS)
def test_warms_up(test_client, kind):
    assert test_client.post(f"/warm/{kind}").status_code == 200


def leaves_a_job(test_client, kind, when):
    warm.reset()
    assert test_client.post(f"/hold/{kind}/{when}").status_code == 202
    assert warm.HOLDS.wait(30)


def goes_on(test_client, kind, when):
    assert test_client.get("/dancers").json() == ["Sand"]
    warm.GATE.set()
    assert warm.ENDED.wait(30)
    assert test_client.get("/dancers").json() == ["Sand"]
    assert warm.ENDS[0] is not None
    assert test_client.post(f"/warm/{kind}").status_code == 200


STEPS = [(when, kind, step) for when in WHENS for kind in KINDS for step in (leaves_a_job, goes_on)]


@pytest.mark.parametrize(("when", "kind", "step"), STEPS)
def test_each(test_client, when, kind, step):
    step(test_client, kind, when)
"""

SETTLED = """
import os
import pytest


@pytest.mark.parametrize("turn", range(2))
@pytest.mark.parametrize("kind", os.environ["KINDS"].split())
async def test_is_waited_for(arena, client, kind, turn):
    assert (await client.post(f"/add/{kind}")).status_code == 202
    await arena.settled()
    assert (await client.get("/dancers")).json() == ["Sand", "Late"]


@pytest.mark.parametrize("kind", os.environ["KINDS"].split())
async def test_is_not_asked_for(client, kind):
    assert (await client.post(f"/add/{kind}")).status_code == 202
"""

KINDS = ("global", "lifespan", "default", "anyio")
HOLDING = ("written", "read", "taken")  # what it has done with its connection by then
HOWS = pytest.mark.parametrize(
    "how",
    [
        "copy",
        pytest.param("undo", marks=pytest.mark.slow),
        pytest.param("clone", marks=pytest.mark.slow),
    ],
)


def warm_app(example: Example, how: str, **files: str) -> Example:
    """Return an app whose pools and loops begin before the test that leaves a job in them."""
    url = "sqlite:///dev.db"
    project = example
    if how != "copy":
        url = "postgresql+psycopg://me@db.example.org/shop"
        project = on_postgresql(example)
    # One loop for all tests: its default executor is older than most of them.
    scopes = "".join(
        f"asyncio_default_{each}_loop_scope = session\n" for each in ("test", "fixture")
    )
    project = project.change(
        "pytest.ini", "asyncio_default_fixture_loop_scope = function\n", scopes
    )
    project = project.change("pytest.ini", "app:app", "warm:app")
    return project.with_files(warm=WARM.replace("SYNC_URL", url), **files)


def run_jobs(project: Example, how: str, kinds: Sequence[str], whens: Sequence[str]) -> Run:
    """Run its tests with jobs of these kinds, each in each state, at the end of a test."""
    env = {"KINDS": " ".join(kinds), "WHENS": " ".join(whens)}
    return project.run("-oarena_settle=0.1", *isolation(how), env=env)


@pytest.mark.slow
def test_a_job_in_an_older_thread_ends_with_its_test(example: Example) -> None:
    """Its connection is taken away: what it commits later never lands in the next test."""
    project = warm_app(example, "copy", test_it=TESTS)
    run = run_jobs(project, "copy", ["global"], ["written", "taken"])
    run.expect(1, passed=5, errors=1).says(
        "ConnectionLeak: the test ended with an open transaction"
    )
    run.says("LeakWarning: the test ended with a connection that was not returned")


@pytest.mark.slow
@HOWS
def test_each_pool_and_loop_that_is_older_than_its_test(example: Example, how: str) -> None:
    """Whichever thread does a job, and whatever it has done with its connection by then."""
    run = run_jobs(warm_app(example, how, test_it=TESTS), how, KINDS, HOLDING)
    run.expect(1, passed=4 + 2 * 12, errors=4)


@pytest.mark.slow
@HOWS
def test_a_job_that_asks_for_its_connection_late_is_refused(example: Example, how: str) -> None:
    """Its test is over by then; nothing was committed, so that the run does not fail."""
    run = run_jobs(warm_app(example, how, test_it=TESTS), how, KINDS, ["late"])
    run.expect(passed=4 + 2 * 4).says("refused: a connection for work that a request of an earlier")


@pytest.mark.slow
@HOWS
def test_the_same_in_sync_tests(example: Example, how: str) -> None:
    """Each of which has a thread of its own in which the app answers."""
    project = warm_app(example, how, test_it=SYNC)
    run = run_jobs(project, how, ["global", "lifespan"], HOLDING)
    run.expect(1, passed=2 + 2 * 6, errors=2)


@pytest.mark.parametrize(
    "how, kinds",
    [
        ("copy", ("global",)),
        pytest.param("copy", KINDS, marks=pytest.mark.slow),
        pytest.param("undo", KINDS, marks=pytest.mark.slow),
    ],
)
def test_settled_waits_for_what_is_given_to_older_pools(
    example: Example, how: str, kinds: Sequence[str]
) -> None:
    """In an async test and in a sync one."""
    project = warm_app(example, how, test_it=SETTLED)
    env = {"KINDS": " ".join(kinds)}
    run = project.run("-oarena_settle=30", *isolation(how), env=env)
    run.expect(passed=3 * len(kinds)).never_says("cut off", "refused")


# As pytest-check 3 and OpenTelemetry patch it, and as free-threaded Python 3.14 begins a thread.
INHERITING = """
import contextvars
import threading

start = threading.Thread.start


def start_with_context(thread):
    context = contextvars.copy_context()
    run = thread.run
    thread.run = lambda: context.run(run)
    start(thread)


threading.Thread.start = start_with_context
"""
INHERITED = """
import threading
from contextvars import ContextVar

import pytest
from app import Dancer

value = ContextVar("value", default=0)


@pytest.mark.parametrize("turn", range(3))
async def test_async(client, db_session, turn):
    db_session.add(Dancer(name="Ada"))
    assert (await client.get("/dancers")).json() == ["Sand", "Ada"]


@pytest.mark.parametrize("turn", range(2))
def test_sync(test_client, turn):
    assert test_client.post("/dancers/Ada").status_code == 201


def test_a_thread_has_what_it_inherits_from_others():
    value.set(7)
    seen = []
    thread = threading.Thread(target=lambda: seen.append(value.get()))
    thread.start()
    thread.join()
    assert seen == [7]
"""


@pytest.mark.slow
def test_threads_that_inherit_a_context_serve_every_test(example: Example) -> None:
    """The thread of a pooled aiosqlite connection begins in the first test."""
    project = example.change("pytest.ini", "pythonpath = .", "pythonpath = . site-packages")
    project = project.with_paths({"site-packages/inheriting.py": INHERITING})
    run = project.with_files(test_threads=INHERITED).run("-p", "inheriting", "-p", "no:randomly")
    run.expect(passed=6).never_says("was cut off")


# As sentry_sdk patches it when the app is imported.
SENTRY = """
import threading

start = threading.Thread.start


def sentry_start(thread):
    function = getattr(thread.run, "__func__", thread.run)
    thread.run = lambda: function(threading.current_thread())
    start(thread)


threading.Thread.start = sentry_start
"""
TRACED_BY_SENTRY = """
import threading

import sentry


def test_a_thread_runs():
    seen = []
    thread = threading.Thread(target=seen.append, args=("ran",))
    thread.start()
    thread.join()
    assert seen == ["ran"]


def test_an_app_with_threads(test_client):
    assert test_client.post("/dancers/Ada").status_code == 201
"""


@pytest.mark.slow
def test_threads_run_if_sentry_traces_them(example: Example) -> None:
    """Otherwise ``asyncio.to_thread`` waits forever."""
    run = example.with_files(sentry=SENTRY, test_sentry=TRACED_BY_SENTRY).run("-x")
    run.expect(passed=2).never_says("TypeError")

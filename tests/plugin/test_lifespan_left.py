"""Timers and schedulers that an app's start-up begins, and that no shutdown stops."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.plugin.test_lifespan_work import APP

if TYPE_CHECKING:
    from tests.example import Example

IGNORE = "default::pytest.PytestUnhandledThreadExceptionWarning"

# At the end of the first test, each waits in frames of the standard library.
STARTS = """
import itertools
import sched
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.pool import ThreadPool
from threading import Timer
from types import SimpleNamespace

GATE = Event()
POOL = ThreadPoolExecutor(1)
OTHER_POOL = ThreadPool(1)


def late():
    try:
        beat("late")
    finally:
        is_done.set()


def start_timer(function=late):
    timer = Timer(60, function)
    timer.daemon = True
    timer.finished = SimpleNamespace(wait=GATE.wait, is_set=bool, set=bool)
    timer.start()


def start_timer_of_timers():
    start_timer(start_timer)


def start_scheduler(function=late):
    scheduler = sched.scheduler(itertools.count().__next__, GATE.wait)
    scheduler.enter(60, 1, function)
    Thread(target=scheduler.run, daemon=True).start()


def start_scheduler_with_pool():
    start_scheduler(lambda: POOL.submit(late))


QUEUE = ThreadPoolExecutor(1)
QUEUE.submit(GATE.wait)  # the start-up's job waits for this one


def queue_in_pool():
    QUEUE.submit(late)


def beat_in_pools():
    POOL.submit(beat, "pool").result()
    OTHER_POOL.apply(beat, ["other pool"])


@asynccontextmanager
async def lifespan(app):
    beat_in_pools()
    if not GATE.is_set():
        START()
    yield


app = FastAPI(lifespan=lifespan)


@app.get("/")
async def read():
    return None
"""
TESTS = """
from app import GATE, Beat, beat_in_pools, is_done
from sqlalchemy import select


def test_starts_it(test_client):
    assert test_client.get("/").status_code == 200


def test_next(db_session):
    GATE.set()
    assert is_done.wait(30)
    assert db_session.scalars(select(Beat.by)).all() == []


def test_pools_serve_each_test(test_client, db_session):
    test_client.get("/")
    beat_in_pools()
    assert db_session.scalars(select(Beat.by)).all() == ["pool", "other pool"] * 2
"""


@pytest.mark.parametrize(
    "start, who",
    [
        ("start_timer", "timer"),
        pytest.param("start_timer_of_timers", "timer", marks=pytest.mark.slow),
        ("start_scheduler", "thread"),
        pytest.param("start_scheduler_with_pool", "thread", marks=pytest.mark.slow),
        pytest.param("queue_in_pool", "thread", marks=pytest.mark.slow),
    ],
)
def test_what_waits_for_its_time_writes_in_no_later_test(
    example: Example, start: str, who: str
) -> None:
    """Its thread has no frame of the app at the end of its test. A line names it."""
    begin = APP.index("def work():")
    app = APP[:begin] + STARTS.replace("START()", f"{start}()")
    project = example.change("pytest.ini", "arena_seed = seed:seed\n", "")
    run = project.with_files(app=app, test_it=TESTS).run("-q", "-W", IGNORE)
    run.expect(passed=3).never_says("sqlalchemy/orm/session.py")
    run.says(
        f"refused: a connection for a {who} that the lifespan of an earlier test had started",
        "app.py:28  with Session(engine) as session, session.begin():",
    )


def test_a_timer_after_the_last_test_says_what_it_is(example: Example) -> None:
    """Its error names the timer, in a few lines."""
    begin = APP.index("def work():")
    app = APP[:begin] + STARTS.replace("START()", "start_timer()")
    app = app.replace("timer.daemon = True", "timer.daemon = False")
    conftest = """
def pytest_unconfigure():
    import app
    import threading
    app.GATE.set()
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.join(30)
"""
    first = TESTS[: TESTS.index("def test_next")]
    project = example.change("pytest.ini", "arena_seed = seed:seed\n", "")
    project = project.with_files(app=app, test_it=first, conftest=conftest)
    run = project.run("-q", "-W", IGNORE)
    run.expect(passed=1).never_says("[A203]", "sqlalchemy/orm/session.py")
    run.says("refused: a connection for a timer that the lifespan of an earlier test had started")

"""A thread, a job or a task that a test begins itself, and does not wait for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.plugin.test_late_work import isolation
from tests.plugin.test_warm_pools import HOWS, warm_app

if TYPE_CHECKING:
    from tests.example import Example

# Each is begun without a request, in one test, and goes on in the next.
TESTS = """
import contextvars
import os
import threading
import pytest
import warm

WHEN = os.environ["WHEN"]


@pytest.fixture(scope="session", autouse=True)
def warmed_up():
    warm.POOL.submit(int).result(30)
    warm.STARTED.append(warm.POOL)  # the lifespan has nothing more to start
    threading.Thread(target=warm.LOOP.run_forever, daemon=True).start()
    yield
    warm.LOOP.call_soon_threadsafe(warm.LOOP.stop)


def start_thread():
    warm.reset()
    threading.Thread(target=warm.work, args=(WHEN,)).start()
    assert warm.HOLDS.wait(30)


def start_thread_with_loop():
    warm.reset()
    threading.Thread(target=lambda: warm.asyncio.run(warm.awork(WHEN))).start()
    assert warm.HOLDS.wait(30)


def start_thread_of_context():
    warm.reset()
    threading.Thread(target=contextvars.copy_context().run, args=(warm.work, WHEN)).start()
    assert warm.HOLDS.wait(30)


def start_thread_of_asyncio():
    warm.reset()
    threading.Thread(target=warm.asyncio.run, args=(warm.awork(WHEN),)).start()
    assert warm.HOLDS.wait(30)


def submit_loop():
    warm.reset()
    warm.POOL.submit(warm.asyncio.run, warm.awork(WHEN))
    assert warm.HOLDS.wait(30)


def submit_job():
    warm.reset()
    warm.POOL.submit(warm.work, WHEN)
    assert warm.HOLDS.wait(30)


def begin_task():
    warm.reset()
    warm.asyncio.run_coroutine_threadsafe(warm.awork(WHEN), warm.LOOP)
    assert warm.HOLDS.wait(30)


def goes_on():
    warm.GATE.set()
    assert warm.ENDED.wait(30)
    assert warm.ENDS[0] is not None


@pytest.fixture
def thread_of_a_fixture():
    start_thread()


BEGINNINGS = [
    start_thread,
    start_thread_with_loop,
    start_thread_of_context,
    start_thread_of_asyncio,
    submit_job,
    submit_loop,
    begin_task,
]
STEPS = pytest.mark.parametrize("step", [step for each in BEGINNINGS for step in (each, goes_on)])


@STEPS
def test_sync(test_client, step):
    assert test_client.get("/dancers").json() == ["Sand"]
    step()
    assert test_client.get("/dancers").json() == ["Sand"]


@STEPS
async def test_async(client, step):
    assert (await client.get("/dancers")).json() == ["Sand"]
    step()
    assert (await client.get("/dancers")).json() == ["Sand"]


def test_fixture(thread_of_a_fixture, test_client):
    assert test_client.get("/dancers").json() == ["Sand"]


def test_next(test_client):
    goes_on()
    assert test_client.get("/dancers").json() == ["Sand"]
"""


@pytest.mark.parametrize(
    "how",
    [
        "copy",
        pytest.param("undo", marks=pytest.mark.slow),
        pytest.param("clone", marks=pytest.mark.slow),
    ],
)
def test_what_asks_for_a_connection_late_is_refused(example: Example, how: str) -> None:
    """Its test is over: what it would write is in no later test, and in none for good."""
    project = warm_app(example, how, test_it=TESTS)
    run = project.run("-oarena_settle=0", *isolation(how), env={"WHEN": "late"}).expect(passed=30)
    run.says("refused: a connection for a thread, a job or a task that an earlier test had begun")


@pytest.mark.slow
@HOWS
@pytest.mark.parametrize("when", ["read", "taken"])
def test_what_holds_a_connection_loses_it(example: Example, how: str, when: str) -> None:
    """And its test says where it was taken."""
    project = warm_app(example, how, test_it=TESTS)
    run = project.run("-oarena_settle=0", *isolation(how), env={"WHEN": when})
    run.expect(passed=30)
    run.says("LeakWarning: the test ended with a connection that was not returned")


TEAR_DOWNS = """
import threading
import pytest
import warm


def dancers():
    with warm.sync_engine.connect() as connection:
        return connection.scalars(warm.text("SELECT name FROM dancers")).all()


@pytest.fixture
def thread_of_a_tear_down(arena):
    yield
    warm.reset()
    threading.Thread(target=warm.work, args=("late",)).start()
    assert warm.HOLDS.wait(30)


@pytest.fixture(scope="class")
def thread_of_a_class(arena):
    yield
    thread = threading.Thread(target=warm.add)
    thread.start()
    thread.join()


class TestTearDowns:
    def test_begins(self, thread_of_a_class, thread_of_a_tear_down):
        assert dancers() == ["Sand"]

    def test_next(self, thread_of_a_class):
        warm.GATE.set()
        assert warm.ENDED.wait(30)
        assert warm.ENDS[0] is not None
        assert dancers() == ["Sand"]

    def test_last(self, thread_of_a_class, thread_of_a_tear_down):
        assert dancers() == ["Sand"]


def test_after_the_class(arena):
    warm.GATE.set()
    assert warm.ENDED.wait(30)
    assert warm.ENDS[0] is not None
    assert dancers() == ["Sand"]
"""


@HOWS
def test_a_thread_of_a_tear_down_gets_no_connection_later(example: Example, how: str) -> None:
    """The thread of a function fixture belongs to its test. The one of a class fixture does not."""
    project = warm_app(example, how, test_it=TEAR_DOWNS)
    run = project.run("-p", "no:randomly", *isolation(how)).expect(passed=4)
    run.says("refused: a connection for a thread, a job or a task that an earlier test had begun")

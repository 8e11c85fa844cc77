"""Threads, jobs, tasks and delayed calls that a class fixture begins and does not end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.plugin.test_late_work import isolation
from tests.plugin.test_warm_pools import HOWS, warm_app

if TYPE_CHECKING:
    from tests.example import Example

TESTS = """
import asyncio
import threading
import pytest
import warm


async def wait_and_add():
    while not warm.GATE.is_set():
        await asyncio.sleep(0.001)
    add()


def add():
    try:
        warm.add()
        warm.ENDS.append(None)
    except BaseException as error:
        warm.ENDS.append(error)
    warm.ENDED.set()


def add_after_the_gate():
    if warm.GATE.wait(60):
        add()


def add_later():
    if warm.GATE.is_set():
        add()
    else:
        asyncio.get_running_loop().call_later(0.001, add_later)


def start_thread():
    threading.Thread(target=add_after_the_gate).start()


def start_timer():
    threading.Timer(0, add_after_the_gate).start()


def submit_job():
    warm.POOL.submit(add_after_the_gate)


def give_to_executor():
    asyncio.get_running_loop().run_in_executor(None, add_after_the_gate)


def start_task():
    warm.TASKS.append(asyncio.create_task(wait_and_add()))


BEGINNINGS = [start_thread, start_timer, submit_job, give_to_executor, start_task, add_later]


def names():
    with warm.sync_engine.connect() as connection:
        return connection.scalars(warm.text("SELECT name FROM dancers")).all()


def both(begin):
    @pytest.fixture(scope="class")
    async def left(arena):
        warm.reset()
        begin()

    @pytest.fixture(scope="class")
    async def left_by_tear_down(arena):
        yield
        warm.reset()
        begin()

    return left, left_by_tear_down


def classes(fixture):
    class TestLeaves:
        @pytest.mark.usefixtures(fixture)
        async def test_it(self):
            pass

    class TestNext:
        async def test_it(self, arena):
            warm.GATE.set()
            while not warm.ENDED.is_set():
                await asyncio.sleep(0.001)
            assert warm.ENDS[0] is not None
            assert names() == ["Sand"]

    return TestLeaves, TestNext


warm.POOL.submit(int).result(30)
for begin in BEGINNINGS:
    for fixture, value in zip((begin.__name__, f"{begin.__name__}_at_end"), both(begin)):
        globals()[f"left_{fixture}"] = value
        leaves, next_one = classes(f"left_{fixture}")
        globals()[f"Test_{fixture}"] = leaves
        globals()[f"Test_{fixture}_next"] = next_one


class TestWhileTheFixtureLives:
    def test_its_thread_writes(self, left_start_thread):
        warm.GATE.set()
        assert warm.ENDED.wait(30)
        assert warm.ENDS[0] is None
        assert names() == ["Sand", "Late"]
"""


@HOWS
def test_what_a_wide_fixture_leaves_gets_no_connection_later(example: Example, how: str) -> None:
    """A thread may write as long as its fixture lives."""
    project = warm_app(example, how, test_it=TESTS)
    run = project.run("-p", "no:randomly", "-W", "ignore", *isolation(how)).expect(passed=25)
    for kind, begin in (
        ("thread", "start_thread"),
        ("timer", "start_timer"),
        ("thread", "submit_job"),
        ("thread", "give_to_executor"),
        ("task", "start_task"),
        ("task", "add_later"),
    ):
        run.says(f"refused: a connection for a {kind} that class fixture left_{begin} had started")
        run.says(f"a {kind} that class fixture left_{begin}_at_end had started")


OWN_RUNNER = """
import asyncio
import pytest
from sqlalchemy import text
from app import engine

runner = asyncio.Runner()


async def count():
    async with engine.connect() as connection:
        return await connection.scalar(text("SELECT count(*) FROM dancers"))


@pytest.fixture(scope="class")
def dancers(arena):
    return runner.run(count())


class TestFirst:
    def test_it(self, dancers):
        assert runner.run(count()) == dancers


def test_after_the_fixture():
    assert runner.run(count()) == 1


def test_the_last():
    runner.close()
"""


def test_a_runner_of_the_suite_outlives_the_fixture_that_used_it_first(example: Example) -> None:
    """It runs all its coroutines in a copy of the context of the first call."""
    example.with_files(test_it=OWN_RUNNER).run("-p", "no:randomly").expect(passed=3)

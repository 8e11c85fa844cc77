"""Tasks of the start-up that are not done when the app is shut down."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.example import Example

STARTS = """
import asyncio
from contextlib import asynccontextmanager


async def add(name):
    async with maker.begin() as session:
        session.add(Dancer(name=name))
        await session.flush()


async def not_begun():
    await add("Ghost")


async def sleeps():
    await asyncio.sleep(60)
    await add("Ghost")


async def in_a_loop_with_an_end():
    for name in ["Ghost", "Grain"]:
        await asyncio.sleep(60)
        await add(name)


async def polls():
    while True:
        await asyncio.sleep(60)
        await add("Ghost")


async def polls_in_turns():
    while not asyncio.current_task().done():
        await asyncio.sleep(60)


async def waits():
    await asyncio.Event().wait()


async def ends_at_shutdown():
    await asyncio.sleep(60)


async def is_done():
    await asyncio.sleep(0)


@asynccontextmanager
async def lifespan(app):
    BEFORE
    yield
    AFTER


app.router.lifespan_context = lifespan
"""
TESTS = """
async def test_async(client):
    assert (await client.get("/dancers")).json() == ["Sand"]


def test_sync(test_client):
    assert test_client.get("/dancers").json() == ["Sand"]
"""
WORDS = "has ended, and work that the app's start-up had begun was cut off"


def _run(example: Example, before: str, after: str = "pass") -> str:
    app = example.files["app.py"] + STARTS.replace("BEFORE", before).replace("AFTER", after)
    return example.with_files(app=app, test_it=TESTS).run("-q").expect(passed=2).output


@pytest.mark.parametrize(
    "task, line",
    [
        ("sleeps", "await asyncio.sleep(60)"),
        ("in_a_loop_with_an_end", "await asyncio.sleep(60)"),
    ],
)
def test_a_task_with_more_to_do_is_named(example: Example, task: str, line: str) -> None:
    """The production server has the time in which the task ends. A test has not."""
    output = _run(example, f"app.state.task = asyncio.create_task({task}())")
    assert output.count(WORDS) == 1
    assert line in output
    assert ", also in 1 more" in output


@pytest.mark.slow
def test_a_task_that_has_not_begun_is_named(example: Example) -> None:
    """The shutdown has begun it, and nothing awaits it."""
    output = _run(example, "pass", "app.state.task = asyncio.create_task(not_begun())")
    assert output.count(WORDS) == 1
    assert "async def not_begun():" in output


@pytest.mark.slow
def test_a_task_in_the_middle_of_a_statement_is_named(example: Example) -> None:
    """The transaction is rolled back."""
    output = _run(example, "pass", "asyncio.create_task(not_begun()); await asyncio.sleep(0)")
    assert output.count(WORDS) == 1
    assert "await session.flush()" in output


@pytest.mark.parametrize(
    "task",
    [
        "polls",
        pytest.param("polls_in_turns", marks=pytest.mark.slow),
        "waits",
        pytest.param("is_done", marks=pytest.mark.slow),
    ],
)
def test_a_task_without_an_end_is_no_fault(example: Example, task: str) -> None:
    """The shutdown cancels it, as in production."""
    assert WORDS not in _run(example, f"app.state.task = asyncio.create_task({task}())")


@pytest.mark.slow
def test_a_task_that_the_shutdown_cancels_is_no_fault(example: Example) -> None:
    """It need not await the end of the task."""
    start = "app.state.task = asyncio.create_task(ends_at_shutdown())"
    assert WORDS not in _run(example, start, "app.state.task.cancel()")

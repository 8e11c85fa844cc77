"""The error of a task that no code has awaited, in the report of a failed test."""

import ast
import asyncio
import gc
from contextlib import asynccontextmanager

import pytest
from async_app import app, maker
from fastapi import FastAPI
from models import Order


async def fail():
    task = asyncio.current_task()  # in its own traceback: a cycle
    async with maker.begin() as session:
        session.add(Order(item=None))
        await session.flush()
    task.cancel()


@app.post("/fails", status_code=202)
async def begin_to_fail():
    app.state.began = asyncio.create_task(fail())
    app.state.began = None


@pytest.fixture
def collector_waits(monkeypatch):
    """The collector runs while pytest parses the test's source. Python 3.11 allows that."""
    thresholds = gc.get_threshold()
    parse = ast.parse

    def parse_and_collect(*args, **kwargs):
        gc.set_threshold(gc.get_count()[0] + 20)
        gc.enable()
        return parse(*args, **kwargs)

    monkeypatch.setattr(ast, "parse", parse_and_collect)
    gc.disable()
    yield
    gc.enable()
    gc.set_threshold(*thresholds)


@pytest.mark.expect("AssertionError", at="assert False")
async def test_that_failed_after_the_answer(client, arena, collector_waits):
    await client.post("/fails")
    await arena.settled()
    assert False


async def order_when_asked():
    await app.state.asked.wait()
    async with maker.begin() as session:
        session.add(Order(item="vase"))


@app.post("/order-later", status_code=202)
async def begin_to_order():
    app.state.asked = asyncio.Event()
    app.state.began = asyncio.create_task(order_when_asked())


@app.get("/asks")
async def ask_for_the_order():
    app.state.asked.set()
    await app.state.began


@pytest.mark.expect("AssertionError", at="assert False")
async def test_that_an_earlier_request_goes_on_in_another_one(client):
    await client.post("/order-later")
    await client.get("/asks")
    assert False


@asynccontextmanager
async def waits_for_work(app):
    yield
    await app.state.work


patient = FastAPI(lifespan=waits_for_work)


async def work():
    await asyncio.sleep(0.1)


@patient.post("/works", status_code=202)
async def begin_to_work():
    patient.state.work = asyncio.create_task(work())


@pytest.mark.expect("AssertionError", at="assert False")
@pytest.mark.parametrize("arena_app", [patient])
async def test_that_failed_before_the_end_of_work(arena_app, client):
    await client.post("/works")
    assert False

"""How many statements a request has sent: in the story of a failed test, and as an assertion."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.plugin.shop import HOWS, env_of, shop

if TYPE_CHECKING:
    from tests.example import Example

ROUTES = """

@app.get("/slowly")
async def slowly(db=Depends(get_db)):
    numbers = list(await db.scalars(select(Order.id)))
    return [(await db.scalar(select(Order).where(Order.id == one))).item for one in numbers]


@app.get("/at-once")
async def at_once(db=Depends(get_db)):
    return [one.item for one in await db.scalars(select(Order))]


@app.get("/nothing")
async def nothing():
    return []


@app.get("/in-a-thread")
def in_a_thread(db=Depends(get_db)):
    return []
"""
TESTS = """
import pytest
from sqlalchemy import select
from app import Order, maker


async def test_first_connection(arena, client):
    with arena.max_statements(1):
        await client.get("/at-once")


@pytest.fixture
async def orders(arena):
    async with arena.session() as session:
        session.add_all([Order(item=f"chair {number}") for number in range(3)])
        await session.commit()


async def test_few(orders, arena, client, db_session):
    with arena.max_statements(1):
        await client.get("/at-once")
        list(await db_session.scalars(select(Order)))
        async with maker() as session:
            list(await session.scalars(select(Order)))
    assert len(arena.statements) == 1
    assert arena.requests[0].statements == list(arena.statements)
    assert arena.statements[0].startswith("SELECT")


def test_in_a_sync_test(arena, test_client):
    with arena.max_statements(1):
        test_client.get("/at-once")
    with arena.max_statements(0):
        test_client.get("/nothing")


async def test_too_many(orders, arena, client):
    with arena.max_statements(3):
        await client.get("/at-once")
        await client.get("/slowly")


async def test_no_request(arena):
    with arena.max_statements(3):
        pass


async def test_an_error_of_the_block_wins(arena, client):
    with pytest.raises(LookupError), arena.max_statements(0):
        await client.get("/at-once")
        raise LookupError


async def test_a_login_does_not_count(orders, arena, client_as):
    with arena.max_statements(1):
        await client_as("staff").get("/at-once")
    assert len(arena.statements) == 5


async def test_of_one(orders, arena, client):
    with arena.max_statements(0):
        await client.get("/at-once")


@pytest.mark.parametrize("count", ["3", -1, None])
def test_no_number(arena, count):
    with pytest.raises(TypeError, match="the most statements, as a number from 0"):
        arena.max_statements(count)


def test_by_a_socket(orders, arena, live_server):
    with arena.max_statements(3):
        live_server.client().get("/slowly")
"""


@pytest.mark.parametrize("how", HOWS)
def test_statements_of_requests_are_counted(example: Example, how: str) -> None:
    """Not those of the test, nor what SQLAlchemy asks a server that it does not know yet."""
    files = shop(example, test_it=TESTS)
    logs_in = "async def login(client, role):\n    await client.get('/slowly')\n"
    files = files.with_files(users=logs_in)
    files = files.change("pytest.ini", "[pytest]", "[pytest]\narena_login = users:login")
    with_routes = files.with_files(app=files.files["app.py"] + ROUTES)
    run = with_routes.run(env=env_of(how)).expect(1, passed=8, failed=4)
    run.says(
        "AssertionError: 5 statements were sent in this block, and 3 are allowed:",
        "GET /at-once 200: 1",
        "GET /slowly 200: 4",
        "3 times: SELECT orders.id, orders.item,",
        "next: load rows that belong together at once: selectinload(…) or a join",
        "GET /slowly 200 (4 statements, 3 alike)",
        "4 statements were sent in this block, and 3 are allowed:",
        "AssertionError: no request was made in this block",
        "AssertionError: 1 statement was sent in this block, and 0 are allowed:",
    )
    run.never_says("contextlib")


THREADS = """
import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from fastapi import FastAPI
from sqlalchemy import create_engine, text

engine = create_engine("sqlite:///shop.db")
app = FastAPI()


def ask(number=0):
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))


@app.get("/executor")
async def executor():
    await asyncio.get_running_loop().run_in_executor(None, ask)


@app.get("/pool")
def pool():
    with ThreadPoolExecutor() as pool:
        pool.submit(ask).result()
        list(pool.map(ask, range(2)))


@app.get("/thread")
def thread():
    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
"""
IN_THREADS = """
import pytest

@pytest.mark.parametrize("path, count", [("executor", 1), ("pool", 3), ("thread", 1)])
def test_counted(arena, test_client, path, count):
    test_client.get(f"/{path}")
    assert len(arena.requests[0].statements) == count


def test_too_many(arena, test_client):
    with pytest.raises(AssertionError, match="3 statements were sent"), arena.max_statements(2):
        test_client.get("/pool")
"""


def test_statements_of_a_requests_threads_are_counted(example: Example) -> None:
    """The thread of a pool works for the request that gave it the job."""
    config = "[pytest]\narena_app = app:app\npythonpath = .\n"
    files = example.with_files(app=THREADS, test_it=IN_THREADS)
    files.with_paths({"pytest.ini": config}).run().expect(passed=4)

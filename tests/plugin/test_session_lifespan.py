"""A lifespan for the whole session runs in one loop, and requests are answered in another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.example import Example

APP = """
import asyncio
import os
from contextlib import asynccontextmanager

from fastapi import FastAPI
from sqlalchemy import select
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

engine = create_async_engine(os.environ.get("DATABASE_URL", "sqlite+aiosqlite:///prod.db"))
sessions = async_sessionmaker(engine)


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


async def work(state):
    while True:
        name, answer = await state.queue.get()
        async with sessions() as session:
            session.add(Item(name=name))
            await session.commit()
        if answer is not None:
            answer.set_result(name)
        state.queue.task_done()


@asynccontextmanager
async def lifespan(app):
    app.state.queue = asyncio.Queue()
    app.state.gate = asyncio.Event()
    app.state.worker = asyncio.create_task(work(app.state))
    yield
    app.state.worker.cancel()


app = FastAPI(lifespan=lifespan)


@app.post("/answer")
async def answer():
    future = asyncio.get_running_loop().create_future()
    app.state.queue.put_nowait(("answer", future))
    return await future


@app.post("/join")
async def join():
    app.state.queue.put_nowait(("join", None))
    await app.state.queue.join()


@app.get("/items")
async def items():
    async with sessions() as session:
        return list(await session.scalars(select(Item.name)))
"""
ANSWERS = """
async def test_a_future(client):
    assert (await client.post("/answer")).json() == "answer"

async def test_a_queue(client):
    await client.post("/join")
    assert (await client.get("/items")).json() == ["join"]

def test_the_sync_client(test_client):
    assert test_client.post("/answer").json() == "answer"

async def test_a_server(live_server, client):
    import httpx2
    async with httpx2.AsyncClient(base_url=live_server.url) as browser:
        assert (await browser.post("/answer")).json() == "answer"
"""


def with_session_lifespan(example: Example, **files: str) -> Example:
    """Return a project whose lifespan has a worker, and serves the whole session."""
    options = "arena_lifespan = session\n"
    project = example.change("pytest.ini", "arena_seed = seed:seed\n", options)
    return project.with_files(app=APP, **files)


WIDE = """
import pytest
from app import app

@pytest.fixture(scope="session")
def outer(arena):
    return arena.test_client()

@pytest.fixture(scope="module")
def wide(arena):
    with arena.test_client() as client:
        yield client

@pytest.fixture(scope="module")
def wide_async(arena):
    return arena.client()

@pytest.mark.parametrize("turn", range(2))
def test_first(wide, turn):
    assert wide.post("/answer").json() == "answer"
    app.state.gate = None

def test_wider(outer, wide):
    assert app.state.gate is not None
    assert outer.post("/answer").json() == "answer"

async def test_async(wide_async, client):
    assert (await wide_async.post("/answer")).json() == "answer"
    assert (await client.post("/answer")).json() == "answer"
"""


@pytest.mark.slow
@pytest.mark.parametrize("path", ["app:app", "factory:create"])
def test_the_first_client_of_a_wide_fixture_starts_the_app(example: Example, path: str) -> None:
    """No test has asked for a client before: its requests would find no state."""
    factory = "from app import app\n\ndef create():\n    return app\n"
    project = with_session_lifespan(example, test_it=WIDE, factory=factory)
    project.run("-q", "-o", f"arena_app={path}").expect(0, passed=4)
    for name in ("test_wider", "test_async"):
        project.run("-q", "-k", name, "-o", f"arena_app={path}").expect(0, passed=1)


BY_ARENA = """
import pytest
from app import app, Item

def test_sync(arena):
    with arena.test_client() as client:
        assert client.post("/answer").json() == "answer"

def test_sync_after_a_row(arena):
    with arena.session() as session:
        session.add(Item(name="own"))
        session.commit()
    client = arena.test_client()
    assert client.post("/answer").json() == "answer"
    assert client.get("/items").json() == ["own", "answer"]

async def test_async(arena):
    client = arena.client()
    assert (await client.post("/answer")).json() == "answer"

def test_database_alone(arena):
    with arena.session() as session:
        session.add(Item(name="own"))
    assert not hasattr(app.state, "queue")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["test_sync", "test_sync_after_a_row", "test_async", "test_database_alone"]
)
def test_the_first_client_of_a_test_starts_the_app(example: Example, name: str) -> None:
    """The test requests `arena` alone. Without a client no app starts."""
    project = with_session_lifespan(example, test_it=BY_ARENA)
    project.run("-q", f"test_it.py::{name}").expect(0, passed=1)


TWICE = """
import pytest

@pytest.mark.parametrize("turn", range(2))
async def test_queue(client, turn):
    await client.post("/join")
"""


@pytest.mark.slow
def test_a_queue_that_requests_of_two_loops_join_names_the_option(example: Example) -> None:
    """A queue belongs to the loop of the first test that joins it."""
    run = with_session_lifespan(example, test_it=TWICE).run("-q").expect(1, passed=1, failed=1)
    run.says("app.py:58 uses it in another loop", "next: arena_lifespan = on")


USES_IT = """
import pytest

@pytest.mark.parametrize("turn", range(3))
async def test_it(client, turn): ...
"""


def test_a_start_up_that_fails_is_explained_once(example: Example) -> None:
    """Later tests name the first one that needed it."""
    project = with_session_lifespan(example, test_it=USES_IT)
    start = "async def lifespan(app):\n"
    project = project.change("app.py", start, f"{start}    raise RuntimeError('no broker')\n")
    run = project.run("-q").expect(1, errors=3)
    assert run.output.count("[A702]") == 1
    assert run.output.count("RuntimeError: no broker  (as in test_it.py::test_it[0])") == 2


@pytest.mark.slow
def test_a_request_waits_for_a_worker_of_the_lifespan(example: Example) -> None:
    """The worker wakes the loop of the request: by a future, and by the end of a job."""
    with_session_lifespan(example, test_it=ANSWERS).run("-q").expect(passed=4)

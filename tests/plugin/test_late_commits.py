"""An answer that leaves before its commit is named, and fails its test where the commit fails."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.plugin.shop import HOWS, env_of

if TYPE_CHECKING:
    from tests.example import Example, Run

APP = """
import asyncio
import os
from fastapi import BackgroundTasks, Depends, FastAPI
from sqlalchemy import create_engine, event, select, text
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    item: Mapped[str] = mapped_column(unique=True)


URL = os.environ.get("DATABASE_URL", "sqlite+aiosqlite:///shop.db")
engine = create_async_engine(URL)
maker = async_sessionmaker(engine)
SYNC_URL = URL.replace("+aiosqlite", "").replace("+asyncpg", "+psycopg")
sync_maker = sessionmaker(create_engine(SYNC_URL))
app = FastAPI()


async def get_db():
    async with maker() as session:
        yield session
        await session.commit()  # behind


async def begin_db():
    async with maker.begin() as session:  # begins
        yield session


def get_sync_db():
    with sync_maker() as session:
        yield session
        session.commit()  # in a thread


async def get_connection():
    async with engine.begin() as connection:  # a connection
        yield connection


async def swallow_db():
    async with maker() as session:
        yield session
        try:
            await session.commit()  # swallowed
        except Exception:
            pass


@app.post("/added/{item}", status_code=201)
async def added(item: str, db=Depends(get_db)):
    db.add(Order(item=item))


@app.post("/flushed/{item}", status_code=201)
async def flushed(item: str, db=Depends(get_db)):
    db.add(Order(item=item))
    await db.flush()


@app.post("/begins/{item}", status_code=201)
async def begins(item: str, db=Depends(begin_db)):
    db.add(Order(item=item))


@app.post("/thread/{item}", status_code=201)
def thread(item: str, db=Depends(get_sync_db)):
    db.add(Order(item=item))


@app.post("/connection/{item}", status_code=201)
async def connection(item: str, db=Depends(get_connection)):
    await db.execute(text("INSERT INTO orders (item) VALUES (:item)"), {"item": item})


@app.post("/swallowed/{item}", status_code=201)
async def swallowed(item: str, db=Depends(swallow_db)):
    db.add(Order(item=item))


# Those that have done all that they answer for.


@app.post("/committed/{item}", status_code=201)
async def committed(item: str, db=Depends(get_db)):
    db.add(Order(item=item))
    await db.commit()


@event.listens_for(engine.sync_engine, "handle_error")
def lose(context):
    context.is_disconnect = "no such column" in str(context.original_exception)


@app.post("/lost/{item}")
async def lost(item: str):
    async with maker.begin() as session:
        session.add(Order(item=item))
        await session.flush()
        await session.execute(text("SELECT lost"))


@app.post("/inside/{item}", status_code=201)
async def inside(item: str, db=Depends(get_db, scope="function")):
    db.add(Order(item=item))


@app.get("/read")
async def read(db=Depends(get_db)):
    return list(await db.scalars(select(Order.item)))


async def log(item):
    async with maker.begin() as session:
        session.add(Order(item=item))


def log_in_a_thread(item):
    with sync_maker.begin() as session:
        session.add(Order(item=item))


@app.post("/background/{item}", status_code=201)
async def background(item: str, tasks: BackgroundTasks, db=Depends(get_db)):
    db.add(Order(item=item))
    await db.commit()
    tasks.add_task(log, item + " logged")
    tasks.add_task(log_in_a_thread, item + " logged in a thread")


@app.post("/task/{item}", status_code=201)
async def task(item: str, db=Depends(get_db)):
    app.state.task = asyncio.create_task(log(item))
    await asyncio.wait([app.state.task], timeout=0)  # it begins before the answer


@app.post("/autocommit/{item}", status_code=201)
async def autocommit(item: str):
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(text("INSERT INTO orders (item) VALUES (:item)"), {"item": item})
"""
MIDDLEWARE = """

@app.middleware("http")
async def pass_on(request, call_next):
    return await call_next(request)
"""
LATE = """
import httpx2
import pytest
from app import app


@pytest.mark.parametrize("way", ["added", "flushed", "begins", "thread", "connection"])
async def test_async(client, way):
    assert (await client.post(f"/{way}/chair")).status_code == 201
    assert (await client.get("/read")).json() == ["chair"]


def test_sync(test_client):
    assert test_client.post("/added/chair").status_code == 201


async def test_own_client():
    transport = httpx2.ASGITransport(app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        assert (await client.post("/added/chair")).status_code == 201


def test_by_a_socket(live_server):
    assert live_server.client().post("/added/chair").status_code == 201


async def test_that_fails(client):
    await client.post("/added/chair")
    assert 0, "as wanted"
"""
RIGHT = """
import pytest

WAYS = ["committed", "inside", "background", "task", "autocommit"]


@pytest.mark.parametrize("way", WAYS)
async def test_async(client, arena, way):
    assert (await client.post(f"/{way}/chair")).status_code == 201
    await arena.settled()
    assert (await client.get("/read")).json()[0] == "chair"


@pytest.mark.parametrize("way", WAYS)
def test_sync(test_client, arena, way):
    assert test_client.post(f"/{way}/chair").status_code == 201
    arena.settled()
    assert test_client.get("/read").json()[0] == "chair"
"""
FAILING = """
import pytest
from sqlalchemy.exc import IntegrityError, OperationalError
from app import Order


@pytest.fixture(autouse=True)
def chair(arena):
    with arena.session() as session:
        session.add(Order(item="chair"))
        session.commit()


async def test_expected(client):
    with pytest.raises(IntegrityError):
        await client.post("/added/chair")


def test_expected_in_a_thread(test_client):
    with pytest.raises(IntegrityError):
        test_client.post("/thread/chair")


async def test_swallowed(client):
    assert (await client.post("/swallowed/chair")).status_code == 201


def test_by_a_socket(live_server):
    assert live_server.client().post("/begins/chair").status_code == 201


async def test_before_the_answer(client):
    with pytest.raises(IntegrityError):
        await client.post("/committed/chair")
    with pytest.raises(IntegrityError):
        await client.post("/inside/chair")


async def test_whose_answer_tells_the_error(client):
    with pytest.raises(OperationalError):
        await client.post("/lost/sofa")
"""


def run_of(example: Example, tests: str, *options: str, more: str = "", how: str = "copy") -> Run:
    """Run tests of the shop."""
    files = example.with_files(app=APP + more, test_it=tests)
    without_seed = files.change("pytest.ini", "arena_seed = seed:seed\n", "")
    return without_seed.run(*options, env=env_of(how))


def place(words: str) -> str:
    """Return the line of the app with these words."""
    lines = APP.splitlines()
    return next(f"app.py:{number}" for number, line in enumerate(lines, 1) if words in line)


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize(
    "more", ["", pytest.param(MIDDLEWARE, marks=pytest.mark.slow)], ids=["alone", "middleware"]
)
def test_an_answer_before_its_commit_is_named(example: Example, more: str, how: str) -> None:
    """In the summary once for each line of the app, and in the story of a test that failed."""
    run = run_of(example, LATE, more=more, how=how).expect(1, passed=8, failed=1)
    for way, words in {
        "added": "# behind",
        "begins": "# begins",
        "thread": "# in a thread",
        "connection": "# a connection",
    }.items():
        assert run.output.count(f"POST /{way}/chair answered 201 before its commit") == 1
        run.says(f"{place(words)}: LateCommitWarning: POST /{way}/chair answered 201 before its")
    run.says(f"    answered 201 before its commit ({place('# behind')}")
    run.never_says("GET /read answered")


@pytest.mark.parametrize(
    "more", ["", pytest.param(MIDDLEWARE, marks=pytest.mark.slow)], ids=["alone", "middleware"]
)
def test_an_answer_after_its_commit_is_not_accused(example: Example, more: str) -> None:
    """Nor one whose background tasks commit work of their own."""
    run = run_of(example, RIGHT, "-Werror::pytest_arena.LateCommitWarning", more=more).expect(
        0, passed=10
    )
    run.never_says("before its commit")


@pytest.mark.slow
def test_a_late_commit_that_fails_fails_its_test(example: Example) -> None:
    """Also where the test expects the error, which no client in production is told of."""
    run = run_of(example, FAILING).expect(1, passed=6, errors=4)
    assert run.output.count("[A605]") == 4
    error = r"and then raised IntegrityError: (\(sqlite3.IntegrityError\) )?UNIQUE constraint"
    for way, words in {
        "added": "# behind",
        "thread": "# in a thread",
        "swallowed": "# swallowed",
        "begins": "# begins",
    }.items():
        what = rf"LateCommitError: POST /{way}/chair answered 201 before its commit, {error}"
        cause = f"cause: {place(words)}"
        assert re.search(rf"{what}.*\n.*\n +{cause}", run.output), way

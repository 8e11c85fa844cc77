"""What the app's lifespan writes and never commits is named, as that of a request is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.plugin.shop import env_of

if TYPE_CHECKING:
    from tests.example import Example

APP = """
from contextlib import asynccontextmanager
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

maker = async_sessionmaker(create_async_engine("sqlite+aiosqlite:///dev.db"))


class Base(DeclarativeBase):
    pass


class Dancer(Base):
    __tablename__ = "dancers"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


@asynccontextmanager
async def lifespan(app):
    async with maker() as session:
        session.add(Dancer(name="admin"))
        await session.flush()
    async with maker.begin() as session:
        session.add(Dancer(name="user"))
    yield
    async with maker() as session:
        session.add(Dancer(name="bye"))  # not even flushed


app = FastAPI(lifespan=lifespan)


@app.get("/health")
async def health():
    return "ok"
"""

TESTS = """
async def test_async(client):
    assert (await client.get("/health")).status_code == 200


def test_sync(test_client):
    assert test_client.get("/health").status_code == 200
"""

START = "LIFESPAN of the app wrote dancers (1 row) and never committed it: lost"
END = "LIFESPAN of the app added Dancer, and never flushed or committed it: lost"


def test_what_the_app_s_start_and_end_forget_to_commit_is_named(example: Example) -> None:
    """In the summary, once for each line of the app."""
    run = example.with_files(app=APP, test_it=TESTS).run("-q").expect(passed=2)
    run.says(START, "app.py:24", END, "app.py:29")
    assert run.output.count(START) == 1, run.output


LIVE = """
import pytest

@pytest.mark.parametrize("turn", range(2))
def test_it(live_server, turn):
    assert live_server.client().get("/health").status_code == 200
"""


@pytest.mark.slow
def test_a_commit_of_the_lifespan_in_the_live_server_s_thread_is_the_test_s(
    example: Example,
) -> None:
    """The thread is older than the second test. Only what is lost is named."""
    run = example.with_files(app=APP, test_it=LIVE).run("-q").expect(passed=2)
    run.says(START).never_says("a thread that began")


# The app elects a leader by a lock that it keeps until it stops.
LEADER = """
import os
from contextlib import asynccontextmanager

import asyncpg
from fastapi import FastAPI
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

url = os.environ["DATABASE_URL"]
engine = create_async_engine(url)


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    item: Mapped[str]


@asynccontextmanager
async def lifespan(app):
    leader = await asyncpg.connect(url.replace("+asyncpg", ""))
    await leader.execute("SELECT pg_advisory_lock(99)")
    yield
    await leader.close()


app = FastAPI(lifespan=lifespan)


@app.post("/forgotten")
async def forgotten():
    async with engine.connect() as connection:
        await connection.execute(insert(Order).values(item="chair"))


@app.post("/kept")
async def kept():
    async with engine.begin() as connection:
        await connection.execute(insert(Order).values(item="lamp"))
"""

WITH_A_LEADER = """
import pytest

@pytest.mark.parametrize("turn", range(2))
async def test_forgotten(client, turn):
    assert (await client.post("/forgotten")).status_code == 200

@pytest.mark.parametrize("turn", range(2))
async def test_kept(client, turn):
    assert (await client.post("/kept")).status_code == 200
"""


@pytest.mark.slow
def test_a_lock_that_the_lifespan_keeps_hides_no_lost_write_pitfall_131(
    example: Example,
) -> None:
    """The lock is held during each test, and is no change of it."""
    project = example.change("pytest.ini", "arena_seed = seed:seed\n", "arena_lifespan = session\n")
    project = project.with_files(app=LEADER, test_it=WITH_A_LEADER)
    error = "-Werror::pytest_arena.LostWriteWarning"
    options = "-v", "-p", "no:randomly", "-o", "arena_drivers=redirect", error
    run = project.run(*options, env=env_of("undo")).expect(1, passed=4, errors=2)
    run.says("POST /forgotten 200 wrote orders (1 row) and never committed it")
    run.says("test_kept[0]", "changed shop", "test_kept[1]", "changed shop")

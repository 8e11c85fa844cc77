"""What the app's lifespan writes and never commits is named, as that of a request is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_arena.testing import Example

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

START = "LIFESPAN of the app wrote dancers (1 row) and never committed it: lost ("
END = "LIFESPAN of the app added Dancer, and never flushed or committed it: lost ("


def test_what_the_app_s_start_and_end_forget_to_commit_is_named(example: Example) -> None:
    """In the summary, once for each line of the app."""
    run = example.with_files(app=APP, test_it=TESTS).run("-q").expect(passed=2)
    run.says(START, "app.py:24", END, "app.py:29")
    assert run.output.count(START) == 1, run.output


@pytest.mark.slow
@pytest.mark.parametrize("test", ["test_async", "test_sync"])
def test_it_fails_its_test_where_that_is_asked_for(example: Example, test: str) -> None:
    """The message speaks of the app, not of a client."""
    project = example.with_files(app=APP, test_it=TESTS)
    run = project.run("-k", test, "--arena-lost-writes=fail").expect(1, passed=1, errors=1)
    run.says("LIFESPAN of the app wrote dancers (1 row), and the app never committed it")
    run.says("the app has started or stopped without an error, and in production")


LIVE = """
import pytest

@pytest.mark.parametrize("turn", range(2))
def test_it(live_server, turn):
    assert live_server.client().get("/health").status_code == 200
"""


def test_a_commit_of_the_lifespan_in_the_live_server_s_thread_is_the_test_s(
    example: Example,
) -> None:
    """The thread is older than the second test. Only what is lost is named."""
    run = example.with_files(app=APP, test_it=LIVE).run("-q").expect(passed=2)
    run.says(START).never_says("a thread that began")

"""Rows that a task or a thread of the lifespan writes in a test which no request has asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.example import Example

APP = """
import asyncio
import os
from contextlib import asynccontextmanager
from queue import SimpleQueue
from threading import Event, Thread

from fastapi import FastAPI
from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

engine = create_engine(os.environ.get("DATABASE_URL", "sqlite:///prod.db"))
turns = SimpleQueue()
is_done = Event()


class Base(DeclarativeBase):
    pass


class Beat(Base):
    __tablename__ = "beats"
    id: Mapped[int] = mapped_column(primary_key=True)
    by: Mapped[str]


def beat(by):
    with Session(engine) as session, session.begin():
        session.add(Beat(by=by))


def work():
    while turns.get():
        beat("thread")
        is_done.set()


@asynccontextmanager
async def lifespan(app):
    async def poll():
        while True:
            await app.state.turn.wait()
            app.state.turn.clear()
            beat("task")
            app.state.beaten.set()

    beat("start")
    app.state.turn = asyncio.Event()
    app.state.beaten = asyncio.Event()
    task = asyncio.create_task(poll())
    thread = Thread(target=work)
    thread.start()
    yield
    task.cancel()
    turns.put(False)
    thread.join()


app = FastAPI(lifespan=lifespan)


@app.post("/task")
async def wake_task():
    app.state.turn.set()
    await app.state.beaten.wait()


@app.post("/thread")
async def wake_thread():
    is_done.clear()
    turns.put(True)
    await asyncio.to_thread(is_done.wait)


@app.post("/request")
async def by_request():
    beat("request")
"""
TESTS = """
import pytest


@pytest.mark.parametrize("who", ["task", "thread", "request"])
def test_it(test_client, who):
    test_client.post(f"/{who}")
    assert who == "nobody"
"""


def test_what_the_lifespan_writes_in_a_failed_test_is_named(example: Example) -> None:
    """Not what its start-up writes, and not what a request writes."""
    project = example.change("pytest.ini", "arena_seed = seed:seed\n", "")
    run = project.with_files(app=APP, test_it=TESTS).run("-q").expect(1, failed=3)
    words = "a task or a thread of the lifespan sent writes to beats (1 commit)"
    assert run.output.count(words) == 2
    by_task, by_thread, by_request = run.output.split("test_it.py:8: AssertionError")[1:]
    assert words in by_task
    assert words in by_thread
    assert words not in by_request


SESSION_APP = APP.replace('    beat("start")\n', "")
SESSION_TESTS = """
import pytest
from app import is_done, turns


@pytest.mark.parametrize("turn", range(2))
def test_it(test_client, turn):
    test_client.post("/thread")
    assert turn == "never"
"""


@pytest.mark.slow
def test_so_is_what_a_lifespan_for_the_session_writes(example: Example) -> None:
    """Also in the first test, whose client starts it."""
    project = example.change("pytest.ini", "arena_seed = seed:seed\n", "arena_lifespan = session\n")
    run = project.with_files(app=SESSION_APP, test_it=SESSION_TESTS).run("-q").expect(1, failed=2)
    assert (
        run.output.count("a task or a thread of the lifespan sent writes to beats (1 commit)") == 2
    )


LEFT_APP = APP.replace("    turns.put(False)\n    thread.join()\n", "").replace(
    "Thread(target=work)", "Thread(target=work, daemon=True)"
)
LEFT_TESTS = """
import threading

import pytest
from app import Beat, is_done, turns
from sqlalchemy import select

ERRORS = []


@pytest.fixture(scope="module", autouse=True)
def excepthook():
    threading.excepthook = lambda details: (ERRORS.append(details.exc_value), is_done.set())


def test_first(test_client):
    test_client.post("/request")


def test_next(db_session):
    is_done.clear()
    turns.put(True)  # as a clock would wake it
    assert is_done.wait(30)
    assert db_session.scalars(select(Beat.by)).all() == []
    assert type(ERRORS[0]).__name__ == "LateWorkError"


def test_lifespan_of_its_own(test_client, db_session):
    is_done.clear()
    turns.put(True)
    assert is_done.wait(30)
    assert db_session.scalars(select(Beat.by)).all() == ["start", "thread"]
"""


def test_a_thread_that_a_shutdown_does_not_join_writes_in_no_later_test(
    example: Example,
) -> None:
    """It gets no connection. A line names it, also under ``-q``."""
    project = example.change("pytest.ini", "arena_seed = seed:seed\n", "")
    run = project.with_files(app=LEFT_APP, test_it=LEFT_TESTS).run("-q").expect(passed=3)
    run.says(
        "refused: a connection for a thread that the lifespan of an earlier test had started",
        "app.py:28  with Session(engine) as session, session.begin():",
        "next: stop and join the thread in the lifespan's shutdown",
    )


HOLDING_APP = LEFT_APP.replace(
    "def work():\n",
    """def work():
    with suppress(Exception), Session(engine) as session:
        session.add(Beat(by="thread"))
        session.flush()
        is_done.set()
        turns.get()
""",
).replace("import asynccontextmanager", "import asynccontextmanager, suppress")
HOLDING_TESTS = """
import threading

from app import Beat, is_done, turns
from sqlalchemy import select

ERRORS = []


def test_first(test_client):
    test_client.get("/nothing")
    assert is_done.wait(30)


def test_next(db_session, monkeypatch):
    is_done.clear()
    monkeypatch.setattr(
        threading, "excepthook", lambda details: (ERRORS.append(details.exc_value), is_done.set())
    )
    turns.put(True)  # the thread leaves its first session
    turns.put(True)
    assert is_done.wait(30)
    assert db_session.scalars(select(Beat.by)).all() == []
    assert type(ERRORS[0]).__name__ == "LateWorkError"
"""


def test_nor_does_one_whose_open_transaction_failed_its_test(example: Example) -> None:
    """pytest-arena ends that transaction, and refuses the thread's next connection."""
    project = example.change("pytest.ini", "arena_seed = seed:seed\n", "")
    files = project.with_files(app=HOLDING_APP, test_it=HOLDING_TESTS)
    run = files.run("-q").expect(1, passed=2, errors=1)
    run.says(
        "ConnectionLeak: the test ended with an open transaction",
        "refused: a connection for a thread that the lifespan of an earlier test had started",
    )

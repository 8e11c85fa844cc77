"""An app that works by itself: it polls the database all the time, also between two tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.libraries import GIVES_BACK_WHAT_IS_CANCELLED
from tests.plugin.private_server import PRODUCTION

if TYPE_CHECKING:
    from tests.example import Example

# An outbox that is emptied every millisecond, as people write it.
POLLING = """
import asyncio, contextlib, os, time
from sqlalchemy import create_engine, update
from sqlalchemy.orm import Session

WHERE, WITH = os.environ["POLLER"].split("-")
polling = create_engine(os.environ["SYNC_URL"])
turns, errors = [], []


class Outbox(Base):
    __tablename__ = "outbox"
    id: Mapped[int] = mapped_column(primary_key=True)
    sent: Mapped[bool] = mapped_column(default=False)


WAITING = select(Outbox.id).where(Outbox.sent.is_(False)).order_by(Outbox.id)


def sent(numbers):
    return update(Outbox).where(Outbox.id.in_(numbers)).values(sent=True)


def empty():
    with Session(polling) as session:
        if numbers := session.scalars(WAITING).all():
            session.execute(sent(numbers))
            session.commit()


async def aempty():
    async with maker() as session:
        if numbers := (await session.scalars(WAITING)).all():
            await session.execute(sent(numbers))
            await session.commit()


async def poll(is_over=lambda: False):
    while not is_over():
        try:
            await (aempty() if WITH == "async" else asyncio.to_thread(empty))
        except Exception as error:
            errors.append(error)
        turns.append(None)
        await asyncio.sleep(0.001)
    await engine.dispose()


@contextlib.asynccontextmanager
async def lifespan(app):
    task = asyncio.create_task(poll()) if WHERE == "task" else None
    yield
    if task is not None:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


app = FastAPI(lifespan=lifespan)
"""

CONFTEST = """
import asyncio, threading
import pytest
import app


@pytest.fixture(scope="session", autouse=True)
def poller():
    over = threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(app.poll(over.is_set)))
    if app.WHERE == "thread":
        thread.start()
    yield
    over.set()
    if app.WHERE == "thread":
        thread.join(30)
    app.polling.dispose()
    assert app.errors == []
    assert app.turns
"""

TESTS = """
import os
import pytest

@pytest.mark.parametrize("turn", range(int(os.environ["TURNS"])))
async def test_a_dancer(client, turn):
    assert (await client.post(f"/dancers/{turn}")).status_code == 201
    assert (await client.get("/dancers")).json() == ["Sand", str(turn)]
"""

# Where every boundary of a test falls into a transaction, or between two rows of an answer.
SLOW = """
import threading, time
import pytest
from sqlalchemy import create_engine, text
from app import Dancer

polling = create_engine("sqlite:///dev.db")
errors, over = [], threading.Event()


def write():
    with polling.connect() as connection:
        connection.execute(text("BEGIN EXCLUSIVE"))
        time.sleep(0.03)
        connection.commit()


def read():
    with polling.connect().execution_options(stream_results=True) as connection:
        rows = connection.execute(text("SELECT 1 UNION ALL SELECT id FROM dancers"))
        assert rows.fetchone() == (1,)
        time.sleep(0.03)
        assert rows.fetchall()


def poll(what):
    while not over.is_set():
        try:
            what()
        except Exception as error:
            errors.append(error)
        time.sleep(0.01)


@pytest.fixture(scope="session", autouse=True, params=[write, read])
def poller(request):
    over.clear()
    thread = threading.Thread(target=poll, args=(request.param,))
    thread.start()
    yield
    over.set()
    thread.join(30)
    polling.dispose()
    assert errors == []


@pytest.mark.parametrize("turn", range(5))
def test_a_row(db_session, turn):
    db_session.add(Dancer(name=f"turn {turn}"))
    db_session.commit()
    assert [one.name for one in db_session.query(Dancer)] == ["Sand", f"turn {turn}"]
"""

# Each test ends while the transaction of a task is open that a wider fixture has started.
TASK = """
import asyncio
from contextlib import asynccontextmanager
import pytest
import pytest_asyncio
from app import Dancer, app, maker


@asynccontextmanager
async def working(app):
    asked, inside, ends = asyncio.Event(), asyncio.Event(), asyncio.Queue()

    async def write():
        async with maker.begin() as session:
            session.add(Dancer(name="late"))
            await session.flush()
            inside.set()
            await asyncio.sleep(0.03)
        ends.put_nowait(None)

    async def work():
        while True:
            await asked.wait()
            asked.clear()
            await write()

    task = asyncio.create_task(work())
    yield asked, inside, ends
    assert not task.done(), task.exception()
    task.cancel()


@asynccontextmanager
async def lifespan(app):
    async with working(app) as app.state.worker:
        yield


@pytest_asyncio.fixture(scope="{0}", loop_scope="{0}")
async def worker():
    app.router.lifespan_context = lifespan
    async with app.router.lifespan_context(app):
        yield app.state.worker


@pytest.mark.asyncio(loop_scope="{0}")
@pytest.mark.parametrize("turn", range(3))
async def test_a_row(worker, client, turn):
    asked, inside, ends = worker
    if turn:
        await asyncio.wait_for(ends.get(), 30)
    assert (await client.get("/dancers")).json() == ["Sand"]
    inside.clear()
    asked.set()
    await inside.wait()
"""

# A statement that no interrupt ends, on a connection that its test has left.
INSIDE = """
import threading
from sqlalchemy import create_engine, event, text
from app import Dancer

engine = create_engine("sqlite:///dev.db")
begun, over, answers = threading.Event(), threading.Event(), []


@event.listens_for(engine, "connect")
def connected(connection, _):
    connection.create_function("wait", 0, lambda: begun.set() or over.wait(30))


def work():
    with engine.connect() as connection:
        connection.execute(text("INSERT INTO dancers (name) VALUES ('late')"))
        try:
            answers.append(connection.execute(text("SELECT wait(), name FROM dancers")).all())
        except Exception as error:
            answers.append(error)


thread = threading.Thread(target=work)


def test_leaves_a_thread():
    thread.start()
    assert begun.wait(30)


def test_starts_on_a_whole_database(db_session):
    assert [one.name for one in db_session.query(Dancer)] == ["Sand"]
    over.set()
    thread.join(30)
    assert "interrupted" in str(answers[0])
    assert [one.name for one in db_session.query(Dancer)] == ["Sand"]
"""

# A pool of a fixture's thread that begins a thread in the middle of each test.
GROWS = """
import threading
from concurrent.futures import ThreadPoolExecutor
import pytest
from sqlalchemy import create_engine, text

polling = create_engine("sqlite:///dev.db")
begin, begun, go_on = [threading.Semaphore(0) for _ in range(3)]
answers = []


def read():
    with polling.connect() as connection:
        begun.release()
        assert go_on.acquire(timeout=30)
        answers.append(connection.scalars(text("SELECT name FROM dancers")).all())
    with polling.connect():  # it is refused none
        answers.append(None)


def work():
    for _ in range(2):
        with ThreadPoolExecutor() as pool:
            begin.acquire(timeout=30)
            pool.submit(read)


@pytest.fixture(scope="session", autouse=True)
def poller():
    thread = threading.Thread(target=work)
    thread.start()
    yield
    thread.join(30)
    polling.dispose()
    assert answers == [["Sand"], None, ["Sand"], None]


def test_reads_nothing():
    begin.release()
    assert begun.acquire(timeout=30)


def test_asks(test_client):
    go_on.release()
    assert test_client.get("/dancers").json() == ["Sand"]
    begin.release()
    assert begun.acquire(timeout=30)


def test_the_next_one():
    go_on.release()
"""

POLLERS = [f"{where}-{way}" for where in ("task", "thread") for way in ("async", "sync")]
URLS = {"copy": "sqlite+aiosqlite:///dev.db", "undo": PRODUCTION, "clone": PRODUCTION}
SYNC = {"copy": "sqlite:///dev.db"}

# Sessions come and go in a thread of a fixture's, as in a worker, beside many that somebody keeps.
SESSIONS = """
import sys, threading
import pytest
from sqlalchemy.orm import Session

sys.setswitchinterval(0.00001)
over, kept, made = threading.Event(), [Session() for _ in range(200)], threading.Event()


def work():
    while not over.is_set():
        few = [Session() for _ in range(10)]
        made.set()


@pytest.fixture(scope="session", autouse=True)
def worker():
    thread = threading.Thread(target=work)
    thread.start()
    yield
    over.set()
    thread.join(30)


@pytest.mark.parametrize("turn", range(40))
def test_a_dancer(test_client, turn):
    made.clear()
    assert test_client.get("/dancers").json() == ["Sand"]
    assert made.wait(30)
"""


def _assert_passes(example: Example, poller: str, isolation: str, turns: int) -> None:
    if poller == "task-async" and not GIVES_BACK_WHAT_IS_CANCELLED:
        pytest.skip("SQLAlchemy before 2.0.55 loses the connection of a task that is cancelled")
    polling = (
        example.change("app.py", "app = FastAPI()\n", POLLING)
        .change("app.py", "db.add(Dancer(name=name))", "db.add_all([Dancer(name=name), Outbox()])")
        .change("app.py", URLS["copy"], URLS[isolation])
        .with_files(conftest=CONFTEST, test_it=TESTS)
    )
    env = {
        "POLLER": poller,
        "TURNS": str(turns),
        "SYNC_URL": SYNC.get(isolation, PRODUCTION.replace("asyncpg", "psycopg")),
        "PYTEST_ADDOPTS": f"--arena-isolation={isolation}",
    }
    process = polling.start("-q", env=env)
    output, _ = process.communicate(timeout=60 + turns)
    assert process.returncode == 0, output[-8000:]
    assert f"{turns} passed" in output


@pytest.mark.slow
@pytest.mark.parametrize("poller", POLLERS)
def test_a_poller_on_a_file_pitfall_141(example: Example, poller: str) -> None:
    """P2: what works beside the tests is waited for, and neither fails nor is ended."""
    _assert_passes(example, poller, "copy", 50)


CANCELLED = """
import asyncio
import contextlib
import sqlite3
import threading
import time
import pytest
import pytest_asyncio
from app import engine
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

threads = []
begun = threading.Event()


def wait():
    threads.append(threading.current_thread())
    begun.set()
    time.sleep(0.3)


class SlowConnection(sqlite3.Connection):
    def __init__(self, *args, **options):
        wait()
        super().__init__(*args, **options)


async def connects():
    slow = create_async_engine(engine.url, connect_args={"factory": SlowConnection})
    async with slow.connect():
        pass


async def executes():
    async with engine.connect() as connection:
        raw = await connection.get_raw_connection()
        await raw.driver_connection.create_function("wait", 0, wait)
        await connection.execute(text("SELECT wait()"))


@pytest_asyncio.fixture
async def poller():
    task = asyncio.create_task(TASK())
    await asyncio.to_thread(begun.wait, 30)
    yield
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


@pytest.mark.asyncio
async def test_ends_before_the_task(poller):
    pass


def test_after_the_thread():
    threads[0].join(30)
    assert not threads[0].is_alive()
"""


@pytest.mark.slow
@pytest.mark.parametrize("task", ["connects", "executes"])
def test_aiosqlite_answers_before_its_loop_is_closed(example: Example, task: str) -> None:
    """Otherwise the thread of a cancelled connection raises in the next test.

    aiosqlite closes no connection of a cancelled connect. Since 3.13 Python warns of that.
    """
    of_aiosqlite = ("-W", "ignore:unclosed database:ResourceWarning")
    project = example.with_files(test_it=CANCELLED.replace("TASK", task))
    run = project.run("-W", "error", *of_aiosqlite)
    run.expect(passed=2)


@pytest.mark.slow
def test_a_transaction_at_each_boundary_pitfall_141(example: Example) -> None:
    """P2: its end is waited for, and so is a reader's."""
    run = example.with_files(test_it=SLOW).run()
    run.expect(passed=10).never_says("a new file has replaced it")


@pytest.mark.slow
@pytest.mark.parametrize("scope", ["session", "module"])
def test_a_transaction_of_a_wider_fixtures_task(example: Example, scope: str) -> None:
    """P2: its end is waited for, and the task goes on in the next test."""
    test = TASK.replace("{0}", scope)
    run = example.with_files(test_it=test).run().expect(passed=3)
    run.never_says("cut off", "was ended", "a new file has replaced it")


@pytest.mark.slow
def test_a_pool_that_grows_in_a_test_pitfall_141(example: Example) -> None:
    """P2: whose thread has begun a thread, his it is, also where that outlives the test."""
    run = example.with_files(test_it=GROWS).run().expect(passed=3)
    run.never_says("cut off", "refused")


@pytest.mark.slow
def test_sessions_that_come_while_they_are_counted_pitfall_141(example: Example) -> None:
    """P2: to look for those that a test left is no error because somebody makes another one."""
    example.with_files(test_it=SESSIONS).run().expect(passed=40)


@pytest.mark.slow
def test_a_statement_that_does_not_end_pitfall_141(example: Example) -> None:
    """P2, P5: whose it is stands in the error; nobody closes the connection under it."""
    run = example.with_files(test_it=INSIDE).run()
    run.expect(status=1, passed=2, errors=1)
    run.says("ConnectionLeak: the test ended with an open transaction", "test_it.py:17")


@pytest.mark.slow
@pytest.mark.parametrize("poller", POLLERS)
def test_a_poller_on_a_file_over_many_tests_pitfall_141(example: Example, poller: str) -> None:
    """P2, P5: a connection that one thread closes while another one enters it is a crash."""
    _assert_passes(example, poller, "copy", 5000)


@pytest.mark.slow
@pytest.mark.parametrize("isolation", ["undo", "clone"])
@pytest.mark.parametrize("poller", POLLERS)
def test_a_poller_on_a_server_pitfall_141(example: Example, poller: str, isolation: str) -> None:
    """P2: as on a file; what a copy takes away under it is opened anew."""
    _assert_passes(example, poller, isolation, 300)

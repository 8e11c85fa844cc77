"""Is a Litestar app asked by its own test client what another app is asked?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.example import Example

APP = """
import asyncio
import threading

from litestar import Litestar, get, post
from sqlalchemy import create_engine, func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

engine = create_engine("sqlite:///dev.db")
GATE, TASKS = threading.Event(), set()  # the gate is opened by a test


class Base(DeclarativeBase):
    pass


class Dancer(Base):
    __tablename__ = "dancers"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


def add(name):
    with Session(engine) as session:
        session.add(Dancer(name=name))
        session.commit()


def after_the_gate():
    GATE.wait(60)
    add("Late")


async def slowly():
    await asyncio.sleep(0.02)
    TASKS.add(asyncio.create_task(asyncio.to_thread(add, "Storm")))


@post("/task")
async def task() -> None:
    TASKS.add(asyncio.create_task(slowly()))


@post("/thread", sync_to_thread=False)
def thread() -> None:
    threading.Thread(target=after_the_gate).start()


@get("/count", sync_to_thread=True)
def count() -> int:
    with Session(engine) as session:
        return session.scalar(select(func.count(Dancer.id)))


@post("/add", sync_to_thread=True)
def new() -> None:
    add("Dune")


@post("/lose", sync_to_thread=True)
def lose() -> None:
    with Session(engine) as session:
        session.add(Dancer(name="Lost"))
        session.flush()


app = Litestar([task, thread, count, new, lose], logging_config=None)
"""

TESTS = """
import threading

import pytest
from litestar.testing import TestClient
from app import GATE, app


@pytest.fixture
def own_client():
    with TestClient(app) as client:
        yield client


@pytest.mark.parametrize("name", ["test_client", "own_client"])
def test_settles(request, arena, name):
    client = request.getfixturevalue(name)
    client.post("/task")
    arena.settled()
    assert client.get("/count").json() == 1


@pytest.mark.parametrize("name", ["test_client", "own_client"])
def test_leaves_a_thread(request, name):
    assert request.getfixturevalue(name).post("/thread").status_code == 201


def test_does_not_meet_what_it_writes(test_client):
    late = [one for one in threading.enumerate() if "after_the_gate" in one.name]
    GATE.set()
    for one in late:
        one.join(30)
    assert len(late) == 2
    assert test_client.get("/count").json() == 0
"""

ASYNC = """
from litestar.testing import AsyncTestClient
from app import app


async def test_fails():
    async with AsyncTestClient(app) as client:
        for _ in range(2):
            assert (await client.post("/add")).status_code == 201
        assert (await client.get("/count")).json() == 0


async def test_loses():
    async with AsyncTestClient(app) as client:
        assert (await client.post("/lose")).status_code == 201
"""


def test_each_request_of_the_async_client_is_one_by_itself(example: Example) -> None:
    """P5, P9: it closes what it has read as async clients do; what an answer wrote is its own."""
    seed = "def seed(session):\n    pass\n"
    run = example.with_files(app=APP, seed=seed, test_it=ASYNC).run().expect(1, passed=1, failed=1)
    assert run.output.count("POST /add 201   dancers +1") == 2, run.output
    run.says("POST /lose 201").never_says("at once")


@pytest.mark.slow
def test_what_a_request_has_begun_is_waited_for_or_named(example: Example) -> None:
    """P5: also where the framework's client asks its own attribute for the app."""
    seed = "def seed(session):\n    pass\n"
    tests = example.with_files(app=APP, seed=seed, test_it=TESTS)
    run = tests.run("-q", "-oarena_settle=0.05", "-p", "no:threadexception")
    run.expect(passed=5)
    run.says("work that a request had begun was cut off", "GATE.wait(60)")


EMITS = """
import asyncio

from litestar import Litestar, Request, get, post
from litestar.events import listener
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

engine = create_async_engine("sqlite+aiosqlite:///dev.db")


class Base(DeclarativeBase):
    pass


class Dancer(Base):
    __tablename__ = "dancers"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


@listener("arrived")
async def write(name: str) -> None:
    await asyncio.sleep(0.02)
    async with AsyncSession(engine) as session:
        session.add(Dancer(name=name))
        await session.commit()


@post("/arrive")
async def arrive(request: Request) -> None:
    request.app.emit("arrived", name="Dune")


@get("/dancers")
async def dancers() -> list[str]:
    async with AsyncSession(engine) as session:
        return list(await session.scalars(select(Dancer.name)))


app = Litestar([arrive, dancers], listeners=[write], logging_config=None)
"""

SETTLES = """
import pytest

@pytest.mark.parametrize("turn", [1, 2])
async def test_async(client, arena, turn):
    await client.post("/arrive")
    await arena.settled()
    assert (await client.get("/dancers")).json() == ["Dune"]


def test_sync(test_client, arena):
    test_client.post("/arrive")
    arena.settled()
    assert test_client.get("/dancers").json() == ["Dune"]
"""


@pytest.mark.slow
def test_settled_waits_for_listeners_of_events(example: Example) -> None:
    """P5: the emitter's worker takes an event once the loop runs again."""
    seed = "def seed(session):\n    pass\n"
    project = example.with_files(app=EMITS, seed=seed, test_it=SETTLES)
    project.run().expect(passed=3)


@pytest.mark.slow
def test_settled_waits_while_a_listener_runs_in_sqlalchemys_greenlet(example: Example) -> None:
    """No frame of the user's code is in sight then."""
    seed = "def seed(session):\n    pass\n"
    column = "    name: Mapped[str]\n"
    slow = "    slow: Mapped[str | None] = mapped_column(default=partial(time.sleep, 0.1))\n"
    imports = "import asyncio\nimport time\nfrom functools import partial\n"
    app = EMITS.replace("import asyncio\n", imports).replace(column, column + slow)
    commit = "        await session.commit()\n"
    flush = "        await session.flush()\n        await asyncio.sleep(0.05)\n"
    app = app.replace(commit, flush + commit)
    project = example.with_files(app=app, seed=seed, test_it=SETTLES)
    project.run().expect(passed=3)

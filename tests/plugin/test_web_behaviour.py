"""What web apps do beside their requests: tasks, late commits, sockets, middleware, sub-apps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.example import Example

# Names of an app's dancers, and one more, written when the app gets to it.
LATE = """
import asyncio
from fastapi import BackgroundTasks, Depends
from app import Dancer, app, get_db, maker

async def add_later(name):
    async with maker() as session:
        session.add(Dancer(name=name))
        await session.commit()

async def after_response():
    async with maker() as session:
        yield session
        await session.commit()

@app.post("/late/yield/{name}")
async def committed_behind_the_yield(name: str, db=Depends(after_response)):
    db.add(Dancer(name=name))

@app.post("/late/background/{name}")
async def in_the_background(name: str, background: BackgroundTasks):
    background.add_task(add_later, name)

GATE = {}

async def waits(name):
    GATE["open"] = asyncio.Event()
    await GATE["open"].wait()  # stands here
    await add_later(name)

@app.post("/late/task/{name}")
async def in_a_task(name: str):
    GATE["task"] = asyncio.create_task(waits(name))
"""

TASKS = """
import asyncio
import pytest
import pytest_asyncio
from late import GATE

pytestmark = pytest.mark.asyncio(loop_scope="module")

async def names(client):
    return (await client.get("/dancers")).json()

async def test_commits_behind_the_yield_are_there_pitfall_115(client):
    await client.post("/late/yield/Grain")
    assert await names(client) == ["Sand", "Grain"]

async def test_background_tasks_have_ended_pitfall_116(client):
    await client.post("/late/background/Grain")
    assert await names(client) == ["Sand", "Grain"]

async def test_a_task_is_left_pitfall_116(client):
    await client.post("/late/task/late")
    await asyncio.sleep(0)
    assert await names(client) == ["Sand"]

async def test_it_does_not_write_here_pitfall_116(client):
    if "open" in GATE:
        GATE["open"].set()
        await asyncio.wait([GATE["task"]], timeout=1)
    assert await names(client) == ["Sand"]

@pytest_asyncio.fixture(loop_scope="module")
async def spawn():
    event, tasks = asyncio.Event(), []
    async def serve():
        await event.wait()
        return "stopped by its own fixture"
    yield lambda: tasks.append(asyncio.create_task(serve()))
    event.set()
    assert await asyncio.gather(*tasks) == ["stopped by its own fixture"]

async def test_a_fixture_ends_its_own_tasks(spawn):
    spawn()

@pytest_asyncio.fixture(loop_scope="module")
async def late_by_a_fixture(client):
    await client.post("/late/task/late")

async def test_a_task_of_a_fixtures_request_pitfall_116(late_by_a_fixture): ...

async def test_it_does_not_write_here_either_pitfall_116(client):
    GATE["open"].set()
    await asyncio.wait([GATE["task"]], timeout=1)
    assert await names(client) == ["Sand"]

@pytest_asyncio.fixture(loop_scope="module")
async def ticking_without_a_request():
    GATE["task"] = asyncio.create_task(asyncio.Event().wait())

async def test_a_task_of_a_fixtures_own_pitfall_116(ticking_without_a_request): ...

async def test_it_has_ended_pitfall_116():
    assert GATE["task"].cancelled()

@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def heart():
    task = asyncio.create_task(asyncio.Event().wait())
    yield task
    task.cancel()

@pytest.mark.parametrize("turn", range(2))
async def test_a_task_of_a_wide_fixture_lives_on(request, client, heart, turn):
    await client.get("/dancers")
    assert not heart.done()
"""


@pytest.mark.slow
def test_what_runs_after_the_response_pitfall_115_116(example: Example) -> None:
    """Work behind a response is seen, and what is still at work ends with its test."""
    with_late = example.change("pytest.ini", "app:app", "late:app").with_files(late=LATE)
    run = with_late.with_files(test_late=TASKS).run().expect(passed=11)
    run.says("test_a_task_is_left_pitfall_116", "work that a request had begun was cut off")
    run.says("late.py:28 await GATE")
    assert run.output.count("cut off") == run.output.count("left a task") == 1


@pytest.mark.slow
def test_without_the_plugin_a_late_task_writes_into_the_next_test_pitfall_116(
    example: Example,
) -> None:
    """The twin: a loop that lives on lets the task finish in another test."""
    conftest = """
import httpx2, pytest
from app import Base, Dancer, app, engine, maker

@pytest.fixture
async def client():
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)
        await connection.run_sync(Base.metadata.create_all)
    async with maker() as session:
        session.add(Dancer(name="Sand"))
        await session.commit()
    transport = httpx2.ASGITransport(app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://testserver") as client:
        yield client
"""
    plain = example.with_files(late=LATE, test_late="import late\n" + TASKS, conftest=conftest)
    run = plain.with_paths({"pytest.ini": PLAIN}).run(plugin=False)
    run.expect(1, passed=8, failed=3).says("test_it_does_not_write_here_pitfall_116")


PLAIN = """
[pytest]
asyncio_mode = auto
asyncio_default_fixture_loop_scope = module
pythonpath = .
"""

# Everything that reaches the engine without a dependency.
BESIDE = """
from contextlib import asynccontextmanager
from fastapi import FastAPI, WebSocket
from fastapi.responses import StreamingResponse
from sqlalchemy import create_engine, func, select
from sqlalchemy.ext.asyncio import create_async_engine
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
import app as whole
from app import Dancer, app, engine

admin_engine = create_engine("sqlite:///dev.db")
second_engine = create_async_engine("sqlite+aiosqlite:///./dev.db")

@app.middleware("http")
async def counting(request, call_next):
    async with engine.connect() as connection:
        count = await connection.scalar(select(func.count()).select_from(Dancer))
    response = await call_next(request)
    response.headers["x-dancers"] = str(count)
    return response

@app.websocket("/ws")
async def websocket(socket: WebSocket):
    await socket.accept()
    async with whole.maker() as session:
        session.add(Dancer(name=await socket.receive_text()))
        await session.commit()
    await socket.send_text("added")
    await socket.close()

@app.get("/stream")
async def stream():
    async def lines():
        async with engine.connect() as connection:
            for name in await connection.scalars(select(Dancer.name).order_by(Dancer.id)):
                yield name + ";"
    return StreamingResponse(lines())

def admin(request):
    with admin_engine.connect() as connection:
        return JSONResponse(list(connection.scalars(select(Dancer.name).order_by(Dancer.id))))

app.mount("/admin", Starlette(routes=[Route("/names", admin)]))

other = FastAPI()

@other.get("/names")
async def names():
    async with second_engine.connect() as connection:
        return list(await connection.scalars(select(Dancer.name).order_by(Dancer.id)))
"""

BESIDE_TESTS = """
import httpx2
import beside

async def test_middleware_and_streams_pitfall_121(client):
    assert (await client.post("/dancers/Grain")).headers["x-dancers"] == "1"
    response = await client.get("/stream")
    assert (response.headers["x-dancers"], response.text) == ("2", "Sand;Grain;")

def test_websockets_pitfall_121(test_client):
    with test_client.websocket_connect("/ws") as socket:
        socket.send_text("Grain")
        assert socket.receive_text() == "added"
    assert test_client.get("/dancers").json() == ["Sand", "Grain"]

async def test_mounted_and_other_apps_pitfall_122(client):
    await client.post("/dancers/Grain")
    assert (await client.get("/admin/names")).json() == ["Sand", "Grain"]
    transport = httpx2.ASGITransport(beside.other)
    async with httpx2.AsyncClient(transport=transport, base_url="http://other") as another:
        assert (await another.get("/names")).json() == ["Sand", "Grain"]

def test_whole_again(test_client):
    assert test_client.get("/dancers").json() == ["Sand"]
"""


@pytest.mark.parametrize(
    "order",
    [(), pytest.param(("-p", "reverse"), marks=pytest.mark.slow)],
    ids=["forwards", "backwards"],
)
def test_engines_used_beside_the_dependencies_pitfall_121_122(
    example: Example, order: tuple[str, ...]
) -> None:
    """Middleware, web sockets, streams, mounted apps and a second app are in the same database."""
    beside = example.change("pytest.ini", "app:app", "beside:app")
    beside = beside.with_files(beside=BESIDE, test_beside=BESIDE_TESTS, reverse=REVERSE)
    beside.run(*order).expect(passed=4)
    assert not (example.folder / "dev.db").exists()


REVERSE = """
def pytest_collection_modifyitems(items):
    items.reverse()
"""

# SQLite's transaction control, in each way that SQLAlchemy's documentation and drivers offer.
CONTROL = """
import sqlite3
import sys
import pytest
from sqlalchemy import create_engine, event, text
from sqlalchemy.exc import IntegrityError
from app import Base

LEGACY = create_engine("sqlite:///dev.db")
RECIPE = create_engine("sqlite:///dev.db")
NEW = create_engine("sqlite:///dev.db", connect_args={"autocommit": False}) \\
    if sys.version_info >= (3, 12) else None
AUTOCOMMIT = create_engine("sqlite:///dev.db", isolation_level="AUTOCOMMIT")
ENGINES = [engine for engine in (LEGACY, RECIPE, NEW) if engine is not None]

@event.listens_for(RECIPE, "connect")
def no_begin_of_the_driver(connection, record):
    connection.isolation_level = None

@event.listens_for(RECIPE, "begin")
def own_begin(connection):
    connection.exec_driver_sql("BEGIN")

def names(engine):
    with engine.connect() as connection:
        return list(connection.scalars(text("SELECT name FROM dancers ORDER BY id")))

@pytest.mark.parametrize("again", [1, 2])
@pytest.mark.parametrize("engine", ENGINES)
def test_savepoints_rollbacks_and_ddl(engine, again):
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO dancers (name) VALUES ('Grain')"))
        with pytest.raises(IntegrityError), connection.begin_nested():
            connection.execute(text("INSERT INTO dancers (name) VALUES ('Sand')"))
    assert names(LEGACY) == ["Sand", "Grain"]
    with engine.connect() as connection:
        connection.execute(text("DELETE FROM dancers"))
        connection.rollback()
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE extra (a)"))
    assert names(engine) == ["Sand", "Grain"]

@pytest.mark.parametrize("again", [1, 2])
def test_autocommit(again):
    with AUTOCOMMIT.connect() as connection:
        connection.execute(text("INSERT INTO dancers (name) VALUES ('Grain')"))
        assert names(LEGACY) == ["Sand", "Grain"]
        connection.execute(text("CREATE TABLE extra (a)"))

def test_the_last_sees_what_stands():
    for engine in ENGINES:
        assert names(engine) == ["Sand"]
        with engine.connect() as connection:
            tables = list(connection.scalars(text("SELECT name FROM sqlite_master")))
        assert "extra" not in tables
"""


@pytest.mark.slow
def test_every_way_of_transaction_control_pitfall_101(example: Example) -> None:
    """The driver's legacy control, the recipe of listeners, `autocommit=False`, autocommit."""
    run = example.with_files(test_control=CONTROL).run()
    assert run.status == 0, run.output
    run.never_says("open transaction")


ASKED = """
from contextlib import asynccontextmanager
import pytest
from fastapi import FastAPI

life = []


@asynccontextmanager
async def lifespan(app):
    life.append("up")
    yield
    life.append("down")


asked = FastAPI(lifespan=lifespan)


@pytest.fixture
def arena_app():
    return asked


@pytest.mark.usefixtures("arena_lifespan")
async def test_up_in_the_tests_loop():
    assert life == ["up"]


def test_up_in_a_thread(arena_lifespan):
    assert life == ["up", "down", "up"]


async def test_once_with_a_client(arena_lifespan, client):
    await client.get("/")
    assert life == ["up", "down"] * 2 + ["up"]


def test_nobody_asks():
    assert life == ["up", "down"] * 3


@pytest.mark.usefixtures("client")
async def test_a_client_that_asks_nothing():
    assert life == ["up", "down"] * 3 + ["up"]
"""


@pytest.mark.slow
def test_the_app_is_up_where_its_lifespan_is_asked_for(example: Example) -> None:
    """In the loop of the coroutine, or in a thread's; without a client."""
    example.with_files(test_asked=ASKED).run().expect(passed=5)

"""A mock of a function of Python is for the app: pytest-arena calls the real one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.example import Example

APP = """
import asyncio
from fastapi.responses import StreamingResponse

failures = []
tasks = set()


async def add_at_the_second_try(name):
    if not failures:
        failures.append(name)
        await asyncio.sleep(2)
    async with maker.begin() as session:
        session.add(Dancer(name=name))


@app.post("/later/{name}")
async def later(name: str):
    task = asyncio.get_running_loop().create_task(add_at_the_second_try(name))
    tasks.add(task)
    task.add_done_callback(tasks.discard)


@app.get("/stream")
async def stream():
    async def numbers():
        for number in range(3):
            yield f"{number}\\n"
            async with maker() as session:
                await session.scalars(select(Dancer))
    return StreamingResponse(numbers())


@app.get("/numbers")
async def without_session():
    async def numbers():
        yield "0\\n"
    return StreamingResponse(numbers())
"""

SLEEP_TESTS = """
import pytest
from unittest.mock import patch
from app import Dancer
from pytest_arena import inserted
from sqlalchemy import select


@pytest.fixture(autouse=True)
def no_pause():
    with patch("app.asyncio.sleep") as sleep:
        yield sleep


async def test_settled(arena, client, db_session, no_pause):
    await client.post("/later/Dune")
    await arena.settled()
    no_pause.assert_awaited_once_with(2)
    assert set(await db_session.scalars(select(Dancer.name))) == {"Sand", "Dune"}


async def test_expected_changes(arena, client):
    async with arena.expect_changes(dancers=inserted(1)):
        await client.post("/later/Dune")


async def test_a_stream(client):
    async with client.stream("GET", "/stream") as response:
        assert [line async for line in response.aiter_lines()] == ["0", "1", "2"]


async def test_a_stream_that_is_left(client):
    async with client.stream("GET", "/stream") as response:
        async for line in response.aiter_lines():
            break
"""


def test_a_mocked_sleep_leaves_waits_for_the_apps_work(example: Example) -> None:
    """An AsyncMock never gives its turn to another task, so a wait by it would block the loop."""
    project = example.with_files(app=example.files["app.py"] + APP, test_it=SLEEP_TESTS)
    project.run().expect(passed=4).never_says("cut off")


THREAD_TESTS = """
from unittest.mock import patch
import httpx2
from app import app


async def test_dancers():
    with patch("app.threading.Thread"):
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://app") as client:
            assert (await client.get("/dancers")).json() == ["Sand"]
"""


@pytest.mark.slow
def test_a_mocked_thread_does_not_skip_the_build_of_a_template(example: Example) -> None:
    """The test uses no fixture of pytest-arena, so it builds the template while the mock is on."""
    app = "import threading\n" + example.files["app.py"]
    example.with_files(app=app, test_it=THREAD_TESTS).run().expect(passed=1)


MOCKS = """
from contextlib import ExitStack
from unittest.mock import AsyncMock, MagicMock, Mock, mock_open, patch

import httpx2
import pytest
from app import Dancer, app
from pytest_arena import inserted
from sqlalchemy import select

real_client = httpx2.AsyncClient


def refused(*args, **options):
    raise OSError("no network")


MOCKS = {
    "asyncio.wait": AsyncMock,
    "asyncio.wait_for": AsyncMock,
    "asyncio.gather": AsyncMock,
    "asyncio.to_thread": AsyncMock,
    "asyncio.run": Mock,
    "asyncio.Queue": Mock,
    "builtins.open": lambda: mock_open(read_data="{}"),
    "httpx2.AsyncClient": MagicMock,
    "json.load": Mock,
    "os.makedirs": Mock,
    "os.path.exists": lambda: Mock(return_value=True),
    "os.path.isfile": lambda: Mock(return_value=False),
    "os.remove": Mock,
    "pathlib.Path.exists": lambda: Mock(return_value=True),
    "pathlib.Path.mkdir": Mock,
    "pathlib.Path.open": lambda: mock_open(read_data="{}"),
    "pathlib.Path.read_text": lambda: Mock(return_value="{}"),
    "pathlib.Path.write_bytes": Mock,
    "shutil.copyfile": Mock,
    "shutil.rmtree": Mock,
    "socket.create_connection": lambda: refused,
    "subprocess.run": Mock,
    "time.monotonic": lambda: lambda: 1000.0,
    "time.time": lambda: lambda: 1000.0,
    "uuid.uuid4": lambda: Mock(return_value="fixed"),
}


@pytest.fixture(params=MOCKS)
def mocked(request):
    with patch(request.param, MOCKS[request.param]()):
        yield


@pytest.fixture
def all_mocked():
    with ExitStack() as mocks:
        for name, make in MOCKS.items():
            mocks.enter_context(patch(name, make()))
        yield


async def test_a_build_of_the_template(all_mocked):
    transport = httpx2.ASGITransport(app)
    async with real_client(transport=transport, base_url="http://app") as client:
        assert (await client.get("/dancers")).json() == ["Sand"]
        assert (await client.post("/dancers/Dune")).status_code == 201


async def test_a_client(mocked, client, arena, db_session):
    assert (await client.get("/dancers")).json() == ["Sand"]
    async with arena.expect_changes(dancers=inserted(1)):
        await client.post("/dancers/Dune")
    await arena.settled()
    async with client.stream("GET", "/stream") as response:
        assert [line async for line in response.aiter_lines()] == ["0", "1", "2"]
    assert set(await db_session.scalars(select(Dancer.name))) == {"Sand", "Dune"}


async def test_a_stream_without_a_task_of_the_app(client):
    with patch("asyncio.create_task") as mock:  # SQLAlchemy's async sessions call it
        async with client.stream("GET", "/numbers") as response:
            assert [line async for line in response.aiter_lines()] == ["0"]
    mock.assert_not_called()
"""


@pytest.mark.slow
def test_a_mock_of_a_function_that_pytest_arena_calls_has_no_effect_on_it(
    example: Example,
) -> None:
    """The first test builds the template while all mocks are on."""
    project = example.with_files(app=example.files["app.py"] + APP, test_it=MOCKS)
    project.run("-p", "no:randomly").expect(passed=27)

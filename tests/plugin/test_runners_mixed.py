"""P5: whichever runner, loop and thread a test has, and all of them in one run."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.example import Example

# An app that says when its lifespan runs, and in which loop a request finds it.
LIFESPAN = """
import asyncio
from contextlib import asynccontextmanager

LOG = []

@asynccontextmanager
async def lifespan(app):
    LOG.append("up")
    app.state.loop = asyncio.get_running_loop()
    yield
    LOG.append("down")

app = FastAPI(lifespan=lifespan)
"""

STRICT = """
import asyncio
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings, strategies as st
from starlette.testclient import TestClient
from app import Dancer, app, engine, maker, LOG

async def count():
    async with maker() as session:
        return len(list(await session.scalars(Dancer.__table__.select())))

async def add(name):
    async with maker() as session:
        session.add(Dancer(name=name))
        await session.commit()

async def story():
    assert await count() == 1
    await asyncio.gather(*(add(str(number)) for number in range(4)))
    assert await count() == 5

@pytest.fixture(autouse=True, params=range(2))
def twice(request):
    yield

@pytest.mark.asyncio
async def test_function_loop(client):
    await story()
    assert len((await client.get("/dancers")).json()) == 5
    assert app.state.loop is asyncio.get_running_loop()

@pytest.mark.asyncio(loop_scope="module")
async def test_module_loop(client):
    await story()
    assert len((await client.get("/dancers")).json()) == 5

@pytest.mark.asyncio(loop_scope="session")
async def test_session_loop(client):
    await story()
    assert len((await client.get("/dancers")).json()) == 5

@pytest_asyncio.fixture(loop_scope="session")
async def of_another_loop(client):
    await client.post("/dancers/fixture")

@pytest.mark.asyncio
async def test_a_fixture_of_another_loop(of_another_loop, client, db_session):
    assert (await client.get("/dancers")).json() == ["Sand", "fixture"]
    db_session.add(Dancer(name="test"))
    assert (await client.get("/dancers")).json() == ["Sand", "fixture", "test"]

@pytest.fixture
def anyio_backend():
    return "asyncio"

@pytest.mark.anyio
async def test_anyio(client, anyio_backend):
    await story()
    assert len((await client.get("/dancers")).json()) == 5

def test_plain(test_client):
    assert test_client.get("/dancers").json() == ["Sand"]
    asyncio.run(story())
    assert len(test_client.get("/dancers").json()) == 5

@pytest.mark.asyncio
async def test_sync_client_in_an_async_test_pitfall_006(client, test_client):
    for number in range(3):
        assert test_client.post(f"/dancers/s{number}").status_code == 201
        assert (await client.post(f"/dancers/a{number}")).status_code == 201
    assert test_client.get("/dancers").json() == (await client.get("/dancers")).json()
    assert await count() == 7

def test_a_bare_test_client_pitfall_007():
    bare = TestClient(app)
    for number in range(50):
        assert bare.post(f"/dancers/{number}").status_code == 201
    assert len(bare.get("/dancers").json()) == 51

@given(st.integers())
@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
@pytest.mark.asyncio
async def test_hypothesis_async(db_session, client, number):
    before = len((await client.get("/dancers")).json())
    db_session.add(Dancer(name=f"{number} {before}"))
    assert len((await client.get("/dancers")).json()) == before + 1

@given(st.integers())
@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
def test_hypothesis_sync(test_client, number):
    before = len(test_client.get("/dancers").json())
    assert test_client.post(f"/dancers/{number}-{before}").status_code == 201

def test_the_lifespan_was_always_shut_down():
    assert LOG[::2] == ["up"] * (len(LOG) // 2)
    assert LOG[1::2] == ["down"] * (len(LOG) // 2)
"""

UNIT = """
import asyncio
import unittest
from test_it import count, story

class TestUnit(unittest.TestCase):
    def test_unit(self):
        asyncio.run(story())

    test_again = test_unit

class TestIsolated(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        assert await count() == 1

    async def test_isolated_pitfall_009(self):
        await story()

    test_again = test_isolated_pitfall_009
"""


def test_runners_of_all_kinds_in_one_run_pitfall_008_117(example: Example) -> None:
    """P5, P2: each of them twice, in one file, under warnings as errors."""
    strict = example.change("app.py", "app = FastAPI()\n", LIFESPAN).change(
        "pytest.ini", "= auto", "= strict"
    )
    project = strict.with_files(test_it=STRICT, test_unit=UNIT)
    project.run("-p", "anyio", "-p", "_hypothesis_pytestplugin").expect(passed=11 * 2 + 4)

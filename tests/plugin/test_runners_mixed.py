"""P5: whichever runner, loop and thread a test has, and all of them in one run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

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

MANY = """
import asyncio
import pytest
from app import Dancer, maker, LOG

@pytest.mark.parametrize("number", range(100))
async def test_a_hundred_loops_pitfall_003(client, number):
    assert (await client.post("/dancers/more")).status_code == 201

# pytest-asyncio's issue 402: a sessionmaker made at import time, three tests, three loops.
async def write():
    async with maker() as session:
        session.add(Dancer(name="x"))
        await session.commit()

async def test_one_pitfall_004(): await write()
async def test_two_pitfall_004(): await write()
async def test_three_pitfall_004(): await write()

@pytest.mark.parametrize("turn", range(3))
async def test_concurrent_requests_pitfall_011(client, turn):
    answers = await asyncio.gather(*(client.get("/dancers") for _ in range(10)))
    assert [answer.json() for answer in answers] == [["Sand"]] * 10
    answers = await asyncio.gather(*(client.post(f"/dancers/{n}") for n in range(5)))
    assert {answer.status_code for answer in answers} == {201}

@pytest.fixture
async def broken(client):
    await client.get("/dancers")
    raise RuntimeError("set-up")

@pytest.mark.xfail(raises=RuntimeError, strict=True)
async def test_broken(broken): ...

@pytest.mark.xfail(raises=ZeroDivisionError, strict=True)
async def test_failing(client):
    await client.get("/dancers")
    1 / 0

async def test_skipped(client):
    await client.get("/dancers")
    pytest.skip("half-way")

@pytest.mark.xfail(raises=ZeroDivisionError, strict=True)
def test_failing_sync(test_client):
    test_client.get("/dancers")
    1 / 0

def test_the_lifespan():
    ups, downs = LOG.count("up"), LOG.count("down")
    assert (ups, ups - downs) == EXPECTED
"""

UVLOOP = """
import pytest
import uvloop

@pytest.fixture(scope="session")
def event_loop_policy():
    return uvloop.EventLoopPolicy()
"""


# What a coroutine finds under trio: no loop of asyncio's runs.
ANOTHER_RUNNER = """
import pytest

def pytest_pyfunc_call(pyfuncitem):
    wanted = pyfuncitem._fixtureinfo.argnames
    coroutine = pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in wanted})
    with pytest.raises(StopIteration):
        coroutine.send(None)
    return True

@pytest.fixture
def requested(client):
    client.get("/dancers").send(None)
"""

UNDER_ANOTHER_RUNNER = """
async def test_without_our_fixtures(): ...
async def test_with_a_client(client): ...
async def test_with_a_session(db_session): ...
async def test_with_a_fixture_that_makes_a_request(requested): ...
"""


def with_lifespan(example: Example) -> Example:
    """The usual app with a lifespan that keeps a log."""
    return example.change("app.py", "app = FastAPI()\n", LIFESPAN)


@pytest.mark.slow
def test_runners_of_all_kinds_in_one_run_pitfall_008_117(example: Example) -> None:
    """P5, P2: each of them twice, in one file, under warnings as errors."""
    strict = with_lifespan(example).change("pytest.ini", "= auto", "= strict")
    project = strict.with_files(test_it=STRICT, test_unit=UNIT)
    project.run("-p", "anyio", "-p", "_hypothesis_pytestplugin").expect(passed=11 * 2 + 4)


@pytest.mark.slow
def test_runners_of_many_loops_pings_and_small_pools_pitfall_001_018(example: Example) -> None:
    """P5: a hundred loops; pools of one; uvloop; debug mode; a lifespan that always ends."""
    project = with_lifespan(example).with_files(test_it=MANY.replace("EXPECTED", "(107, 0)"))
    counts = {"passed": 107, "xfailed": 3, "skipped": 1}
    project.run().expect(**counts)
    small = project.change("app.py", '///dev.db"))', '///dev.db"), pool_size=1, max_overflow=0)')
    small = small.change("app.py", "max_overflow=0", "max_overflow=0, pool_pre_ping=True")
    debugged = small.with_paths({"conftest.py": UVLOOP}).change(
        "pytest.ini",
        "pythonpath",
        # The second one is Python 3.14's, of the policy that pytest-asyncio asks for.
        "    ignore:Overriding the .event_loop_policy"
        "\n    ignore:.asyncio.:DeprecationWarning\npythonpath",
    )
    debugged.run(env={"PYTHONASYNCIODEBUG": "1"}).expect(**counts)


@pytest.mark.slow
def test_runners_with_a_static_pool_in_memory_pitfall_011(example: Example) -> None:
    """Pitfall 11: one connection shared by all requests and all loops."""
    static = example.change(
        "app.py",
        'os.environ.get("DATABASE_URL", "sqlite+aiosqlite:///dev.db"))',
        '"sqlite+aiosqlite://", poolclass=StaticPool)\nLOG = []',
    ).change("app.py", "import os\n", "import os\nfrom sqlalchemy.pool import StaticPool\n")
    reads = MANY.partition("    answers = await asyncio.gather(*(client.post")
    run = static.with_files(test_it=reads[0]).run()
    run.expect(passed=106)


@pytest.mark.slow
def test_runners_with_a_lifespan_of_the_session_and_none(example: Example) -> None:
    """`arena_lifespan`: once for all tests, or not at all."""
    project = with_lifespan(example)
    counts = {"passed": 107, "xfailed": 3, "skipped": 1}
    for value, expected in (("session", "(1, 1)"), ("off", "(0, 0)")):
        tests = MANY.replace("EXPECTED", expected)
        run = project.with_files(test_it=tests).run(f"-oarena_lifespan={value}")
        run.expect(**counts)


@pytest.mark.slow
def test_runners_that_are_no_asyncio_loop(example: Example) -> None:
    """P8: trio's tests run as they are; one that uses what needs an asyncio loop is told so."""
    strict = example.change("pytest.ini", "= auto", "= strict")
    project = strict.with_files(conftest=ANOTHER_RUNNER, test_it=UNDER_ANOTHER_RUNNER)
    run = project.run().expect(1, passed=1, failed=2, errors=1)
    run.says("under trio uses a fixture of pytest-arena", "next: @pytest.fixture", "[A101]")
    run.never_says("RuntimeError")
    assert run.output.count("sessions of pytest-arena need an asyncio loop") == 3

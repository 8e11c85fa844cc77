"""Hypothesis: each example begins with the state that the fixtures have left."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.example import Example

PLUGINS = ("-p", "_hypothesis_pytestplugin", "-p", "anyio")

# Text is compared with what the same example has done: one row too many, and it fails.
EACH = """
import pytest
from hypothesis import HealthCheck, example, given, settings, strategies as st
from sqlalchemy import func, select
from app import Dancer, app

settings.register_profile("quick", deadline=None, max_examples=10)
settings.load_profile("quick")
RUNS = []

@settings(max_examples=40)
@given(st.text("ab", min_size=1))
async def test_async(db_session, client, name):
    assert (await client.get("/dancers")).json() == ["Sand"]
    assert "k" not in client.cookies and "x-y" not in client.headers
    client.cookies["k"], client.headers["x-y"] = "v", "1"
    assert not app.dependency_overrides
    app.dependency_overrides[len] = len
    db_session.add(Dancer(name="P" + name))
    assert (await client.post(f"/dancers/{name}")).status_code == 201
    assert (await client.get("/dancers")).json() == ["Sand", "P" + name, name]
    db_session.add(Dancer(name="pending"))
    RUNS.append(name)

def test_there_were_forty():
    assert len(RUNS) == 40

@given(st.text("ab", min_size=1))
def test_sync(db_session, test_client, name):
    assert test_client.get("/dancers").json() == ["Sand"]
    assert db_session.scalar(select(func.count(Dancer.id))) == 1
    assert "k" not in test_client.cookies
    test_client.cookies["k"] = "v"
    db_session.add(Dancer(name="P" + name))
    assert test_client.post(f"/dancers/{name}").status_code == 201
    assert test_client.get("/dancers").json() == ["Sand", "P" + name, name]
    db_session.add(Dancer(name="pending"))

@pytest.fixture(scope="module")
def anyio_backend():
    return "asyncio"

@given(st.integers())
@pytest.mark.anyio
async def test_anyio(anyio_backend, client, number):
    assert (await client.get("/dancers")).json() == ["Sand"]
    await client.post(f"/dancers/{number}")

@pytest.fixture
async def fixed(db_session):
    dancer = Dancer(name="Fix")
    db_session.add(dancer)
    await db_session.flush()
    return dancer

@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 3))
@example(2)
@example(0)
async def test_an_instance_of_a_fixture(db_session, client, fixed, number):
    assert (fixed.name, fixed in db_session) == ("Fix", True)
    assert (await client.get("/dancers")).json() == ["Sand", "Fix"]
    fixed.name = f"changed {number}"
    await db_session.commit()
    assert (await client.get("/dancers")).json() == ["Sand", f"changed {number}"]
    if number > 1:
        await db_session.delete(fixed)
        assert (await client.get("/dancers")).json() == ["Sand"]

class TestMethods:
    @given(st.integers())
    async def test_method(self, client, number):
        assert (await client.get("/dancers")).json() == ["Sand"]
        await client.post("/dancers/Dune")

@given(number=st.integers())
def test_late(arena, request, number):
    assert arena.session().scalar(select(func.count(Dancer.id))) in (1, 2)
    assert request.getfixturevalue("wide") == 2
    client = arena.test_client()
    assert client.get("/dancers").json() == ["Sand", "Wide"]
    client.post("/dancers/Dune")

@pytest.fixture(scope="module")
def wide(arena):
    with arena.session() as session:
        session.add(Dancer(name="Wide"))
        session.commit()
        return session.scalar(select(func.count(Dancer.id)))

@given(st.integers())
def test_wide(wide, test_client, number):
    assert test_client.get("/dancers").json() == ["Sand", "Wide"]
    test_client.post("/dancers/Dune")

def test_after(test_client):
    assert test_client.get("/dancers").json() == ["Sand", "Wide"]
"""

FAILING = """
import pytest
from hypothesis import Phase, given, settings, strategies as st
from app import Dancer, maker

settings.register_profile("quick", deadline=None, phases=[Phase.generate, Phase.shrink])
settings.load_profile("quick")

@given(st.integers(0, 1000))
async def test_fails(client, number):
    assert (await client.get("/dancers")).json() == ["Sand"]
    await client.post(f"/dancers/number-{number}")
    assert number < 100

@given(st.integers())
async def test_leaks(number):
    session = test_leaks.session = maker()
    session.add(Dancer(name="never"))
    await session.flush()

@pytest.fixture
def mine(db_session):
    return db_session

@given(st.integers())
async def test_a_fixture_of_the_user(mine, number):
    pass

async def test_after(client):
    assert (await client.get("/dancers")).json() == ["Sand"]
"""

BESIDE_OURS = """
import pytest
from hypothesis import given, strategies as st


@pytest.fixture
def mine():
    pass


@given(st.integers())
async def test_both(db_session, mine, number):
    pass
"""

UNIT = """
import unittest
from hypothesis import given, settings, strategies as st
from sqlalchemy import create_engine, text

engine = create_engine("sqlite:///dev.db")

class TestUnit(unittest.TestCase):
    @given(st.integers())
    def test_unit(self, number):
        with engine.begin() as connection:
            assert connection.scalar(text("SELECT count(*) FROM dancers")) == 1
            connection.execute(text("INSERT INTO dancers (name) VALUES ('x')"))
"""

SHUTDOWN = """
from contextlib import asynccontextmanager
import pytest
from hypothesis import given, settings, strategies as st
from app import app

settings.register_profile("quick", deadline=None, max_examples=5)
settings.load_profile("quick")

class Rates:
    is_open = True

@asynccontextmanager
async def lifespan(app):
    app.state.rates = Rates()
    yield
    app.state.rates.is_open = False

@pytest.fixture(scope="module", autouse=True)
def started():
    app.router.lifespan_context = lifespan

@given(st.integers())
def test_sync(test_client, number):
    assert test_client.get("/dancers").json() == ["Sand"]
    assert app.state.rates.is_open
    app.state.rates.is_open = None

@given(st.integers())
def test_late(arena, number):
    arena.test_client().get("/dancers")
    assert app.state.rates.is_open

@given(st.integers())
def test_role(test_client, live_server, number):
    with live_server.client() as client:
        assert client.get("/dancers").json() == ["Sand"]

@given(st.integers())
async def test_async(client, number):
    assert (await client.get("/dancers")).json() == ["Sand"]
    assert app.state.rates.is_open
"""


@pytest.mark.slow
def test_the_shutdown_of_an_example_finds_the_state_of_its_start_up(example: Example) -> None:
    """pytest-arena restores app.state after the shutdown, as at the end of a test."""
    example.with_files(test_it=SHUTDOWN).run(*PLUGINS).expect(passed=4)


@pytest.mark.slow
def test_each_example_begins_like_the_first_pitfall_079(example: Example) -> None:
    """P2: under pytest-asyncio, anyio and none, with wide data and what fixtures have handed out.

    No health check has to be switched off for fixtures of ours.
    """
    project = example.with_files(test_each=EACH, test_unit=UNIT)
    project.run(*PLUGINS).expect(passed=10)


@pytest.mark.slow
def test_the_health_check_names_the_fixture_of_the_user(example: Example) -> None:
    """Not ours, which comes first: the reader would look for a fault in it."""
    run = example.with_files(test_both=BESIDE_OURS).run(*PLUGINS).expect(status=1, failed=1)
    run.says("'test_both.py::test_both' uses a function-scoped fixture 'mine'")
    run.never_says("function-scoped fixture 'db_session'")


@pytest.mark.slow
def test_what_fails_is_told_of_the_smallest_example_pitfall_079(example: Example) -> None:
    """Shrinking and replaying see the same state: the smallest number, its database is kept."""
    run = example.with_files(test_fail=FAILING).run(*PLUGINS, "--arena-keep=failed")
    run.expect(status=1, failed=3, passed=1).never_says("Flaky", "inconsistent")
    run.says("number=100", "ConnectionLeak: the test ended with an open transaction")
    run.says("uses a function-scoped fixture 'mine'")
    kept = next((run.folder.parent / "cache" / "kept").glob("*test_fails*"))
    assert b"number-100" in kept.read_bytes()

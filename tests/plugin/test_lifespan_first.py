"""The app starts before the rows of the test's own fixtures, as it does in production."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.example import Example

# The usual app, whose start-up makes the first dancer where there is none.
STARTS = """
from contextlib import asynccontextmanager
from sqlalchemy import func

@asynccontextmanager
async def lifespan(app):
    async with maker() as session:
        if not await session.scalar(select(func.count(Dancer.id))):
            session.add(Dancer(name="made at start-up"))
            await session.commit()
    yield

app = FastAPI(lifespan=lifespan)
"""
NO_ROWS = "def seed(session):\n    pass\n"

ASYNC = """
import pytest
from app import Dancer

pytestmark = MARKS
EXPECTED = ["made at start-up", "by a fixture"]

@pytest.fixture
async def dancer(db_session):
    db_session.add(Dancer(name="by a fixture"))
    await db_session.commit()

@pytest.fixture
async def by_hand(arena):
    async with arena.session() as session:
        session.add(Dancer(name="by a fixture"))
        await session.commit()

@pytest.fixture
def pending(db_session):
    db_session.add(Dancer(name="by a fixture"))

async def test_client_last(dancer, client):
    assert (await client.get("/dancers")).json() == EXPECTED

async def test_client_first(client, dancer):
    assert (await client.get("/dancers")).json() == EXPECTED

async def test_a_client_for_roles(dancer, client_as, client):
    assert (await client.get("/dancers")).json() == EXPECTED

async def test_what_is_pending(pending, client):
    assert (await client.get("/dancers")).json() == EXPECTED

async def test_a_session_by_hand(by_hand, client):
    assert (await client.get("/dancers")).json() == EXPECTED

async def test_rows_of_the_test_itself(client, db_session):
    db_session.add(Dancer(name="by a fixture"))
    await db_session.commit()
    assert (await client.get("/dancers")).json() == EXPECTED

@pytest.mark.usefixtures("arena_lifespan")
async def test_without_a_client(dancer, arena):
    assert (await arena.client().get("/dancers")).json() == EXPECTED
"""

SYNC = """
import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import Session
from app import Dancer, engine

EXPECTED = ["made at start-up", "by a fixture"]
own = create_engine(engine.url.set(drivername="sqlite"))

@pytest.fixture
def dancer(db_session):
    db_session.add(Dancer(name="by a fixture"))
    db_session.commit()

@pytest.fixture
def by_hand(arena):
    with arena.session() as session:
        session.add(Dancer(name="by a fixture"))
        session.commit()

@pytest.fixture
def of_the_suite():
    with Session(own) as session:
        session.add(Dancer(name="by a fixture"))
        session.commit()

def test_client_last(dancer, test_client):
    assert test_client.get("/dancers").json() == EXPECTED

def test_client_first(test_client, dancer):
    assert test_client.get("/dancers").json() == EXPECTED

def test_a_session_by_hand(by_hand, test_client):
    assert test_client.get("/dancers").json() == EXPECTED

def test_a_session_of_the_suite(test_client, of_the_suite):
    assert test_client.get("/dancers").json() == EXPECTED

def test_with_shuts_it_down(test_client, dancer):
    with test_client:
        assert test_client.get("/dancers").json() == EXPECTED

@pytest.mark.usefixtures("arena_lifespan")
def test_without_a_client(dancer, arena):
    assert arena.test_client().get("/dancers").json() == EXPECTED
"""


# Rows by other ways than sessions of pytest-arena's, before a loop runs or a client is asked for.
LATE = """
import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import Session
from app import Dancer, engine, maker

own = create_engine(engine.url.set(drivername="sqlite"))

@pytest.fixture
async def of_the_suite():
    async with maker() as session:
        session.add(Dancer(name="too early"))
        await session.commit()

@pytest.fixture
def plain():
    with Session(own) as session:
        session.add(Dancer(name="too early"))
        session.commit()

async def test_async(client, of_the_suite):
    assert len((await client.get("/dancers")).json()) == 2

def test_sync(plain, test_client):
    assert len(test_client.get("/dancers").json()) == 2

@pytest.fixture
async def up(client):
    await client

async def test_cured(up, of_the_suite, client):
    assert len((await client.get("/dancers")).json()) == 2

def test_cured_as_well(test_client, plain):
    assert len(test_client.get("/dancers").json()) == 2

def test_nothing_to_say(plain, test_client):
    test_client.get("/dancers")
    assert 0, "as wanted"
"""

# A fixture's loop is the session's, a test has a loop of its own: a worker that the start-up
# begins serves the requests of the test.
LOOPS = """
import pytest_asyncio
from app import Dancer

@pytest_asyncio.fixture(loop_scope="session")
async def dancer(db_session):
    db_session.add(Dancer(name="by a fixture"))
    await db_session.commit()

async def test_worker(dancer, client):
    assert (await client.get("/ask")).json() == "answered"

def test_each_start_has_its_end():
    from app import life
    assert life == ["up", "up", "down", "down"]
"""
WORKER = """
import asyncio
from contextlib import asynccontextmanager

life = []

@asynccontextmanager
async def lifespan(app):
    life.append("up")
    app.state.queue = asyncio.Queue()
    async def work(queue):
        while True:
            (await queue.get()).set_result("answered")
    worker = asyncio.create_task(work(app.state.queue))
    yield
    worker.cancel()
    life.append("down")

app = FastAPI(lifespan=lifespan)

@app.get("/ask")
async def ask():
    answer = asyncio.get_running_loop().create_future()
    app.state.queue.put_nowait(answer)
    return await asyncio.wait_for(answer, 5)
"""


# An app that needs the session, and an app that needs what the start-up must find.
OVERRIDDEN = """
import pytest
from app import Dancer, app

class TestNeedsTheSession:
    @pytest.fixture
    def arena_app(self, db_session):
        app.state.session = db_session
        yield app
        del app.state.session

    async def test_it_has_the_session(self, db_session, client):
        assert app.state.session is db_session
        assert (await client.get("/dancers")).json() == ["made at start-up"]

class TestNeedsAFake:
    @pytest.fixture
    async def fake(self):
        app.state.fake = "there"
        yield
        del app.state.fake

    @pytest.fixture
    def arena_app(self, fake):
        return app

    async def test_the_start_finds_it(self, db_session, client):
        db_session.add(Dancer(name="by a fixture"))
        await db_session.commit()
        assert (await client.get("/fake")).json() == "there"

    async def test_the_client_comes_late(self, arena, request):
        async with arena.session() as session:
            session.add(Dancer(name="by a fixture"))
            await session.commit()
        assert (await arena.client().get("/dancers")).json() == ["by a fixture"]

class TestHasAClientOfItsOwn:
    @pytest.fixture
    def client(self):
        return "of the suite"

    async def test_the_app_is_not_started(self, db_session, client):
        assert client == "of the suite"
        assert await db_session.get(Dancer, 1) is None
"""
FAKE = """
@app.get("/fake")
async def fake():
    return app.state.found
"""


@pytest.fixture
def starting(example: Example) -> Example:
    """The usual app, which makes a row at its start where it has none."""
    return example.change("app.py", "app = FastAPI()\n", STARTS).with_files(seed=NO_ROWS)


def test_the_app_starts_before_the_rows_of_fixtures(starting: Example) -> None:
    """Whichever fixture comes first, in async and in sync tests, and rows of the test itself."""
    project = starting.with_files(test_asyncio=ASYNC.replace("MARKS", "[]"), test_sync=SYNC)
    project.run("-p", "no:randomly").expect(passed=13)
    project.run("-p", "no:randomly", "-oarena_lifespan=session").expect(passed=13)


@pytest.mark.slow
def test_the_app_starts_before_the_rows_of_fixtures_under_anyio(starting: Example) -> None:
    """Its runner calls fixtures and the test in one task."""
    marks = "[pytest.mark.anyio, pytest.mark.parametrize('anyio_backend', ['asyncio'])]"
    project = starting.with_files(test_anyio=ASYNC.replace("MARKS", marks))
    project.change("pytest.ini", "= auto", "= strict").run("-p", "anyio").expect(passed=7)


@pytest.mark.slow
def test_a_late_start_is_told(starting: Example) -> None:
    """In the report of a test that failed, where the start-up has used the database."""
    run = starting.with_files(test_late=LATE).run("-p", "no:randomly")
    run.expect(1, passed=2, failed=3).says(
        """
        before the app started dancers +1
            + dancers id=1 name='too early'
            the app's start-up has seen these rows: in production it runs first
            next: `await client` in an async fixture before the rows are written
        """,
        "next: ask for `test_client` before the fixture that writes them",
    )
    unaware = starting.change("app.py", STARTS, "app = FastAPI()\n").with_files(test_late=LATE)
    unaware.run("-k", "nothing_to_say").expect(1, failed=1).never_says("start-up")


@pytest.mark.slow
def test_an_app_of_the_suites_own(starting: Example) -> None:
    """What a fixture `arena_app` needs is there before the app starts."""
    found = STARTS.replace(
        "    yield\n", "    app.state.found = getattr(app.state, 'fake', '')\n    yield\n"
    )
    project = starting.change("app.py", STARTS, found + FAKE)
    project.with_files(test_own=OVERRIDDEN).run("-p", "no:randomly").expect(passed=4)


@pytest.mark.slow
def test_the_app_runs_in_the_loop_of_the_test(example: Example) -> None:
    """Also where a fixture's loop is another one: the app is started again, and both are ended."""
    project = example.change("app.py", "app = FastAPI()\n", WORKER).with_files(test_loops=LOOPS)
    project.run("-p", "no:randomly").expect(passed=2)


# The autouse fixture sets `db_session` up first, so that `arena_app` cannot be set up early.
WAITING = """
import app as module
import pytest
from app import Dancer

@pytest.fixture(autouse=True)
def patched(db_session):
    pass

@pytest.fixture
def dancer(db_session):
    db_session.add(Dancer(name="Ada"))

@pytest.fixture
def arena_app(arena_app, dancer):
    arena_app.dependency_overrides[module.get_db] = lambda: "overridden"
    return arena_app

async def test_the_override(client):
    assert (await client.get("/db")).json() == "overridden"
"""
DB = """
@app.get("/db")
async def db(db=Depends(get_db)):
    return str(db)
"""


def test_an_override_of_the_app_that_needs_a_session_is_used(example: Example) -> None:
    """The first attempt to set it up fails, because it needs the fixture that is being set up."""
    project = example.with_paths({"app.py": example.files["app.py"] + DB})
    project.with_files(test_waiting=WAITING).run().expect(passed=1)

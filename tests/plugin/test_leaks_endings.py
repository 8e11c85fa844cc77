"""However a test ends and whatever it leaves, the next one starts on a whole database."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.example import Example

LEAKS = """
import pytest
from sqlalchemy import NullPool, create_engine, select, text
from app import Dancer, app, engine, maker

KEPT = []

async def names(client):
    return (await client.get("/dancers")).json()

async def test_1_an_open_transaction(client):
    session = maker()
    KEPT.append(session)
    session.add(Dancer(name="left"))
    await session.flush()  # the line that took it

async def test_2_after_it(client):
    assert await names(client) == ["Sand"]
    assert (await client.post("/dancers/next")).status_code == 201
    await KEPT.pop().close()
    assert await names(client) == ["Sand", "next"]

async def test_3_a_connection(client):
    KEPT.append(await engine.connect())  # took a connection

async def test_4_after_it(client):
    assert await names(client) == ["Sand"]

def test_5_a_sync_transaction(arena):
    twin = create_engine(arena.url.replace("+aiosqlite", ""), poolclass=NullPool)
    connection = twin.connect()
    KEPT.append(connection)
    connection.execute(text("DELETE FROM dancers"))  # not committed

async def test_6_after_it(client):
    assert await names(client) == ["Sand"]
    assert (await client.post("/dancers/next")).status_code == 201

async def test_a_failed_test_keeps_its_session_pitfall_067(client):
    session = maker()
    session.add(Dancer(name="left"))
    await session.flush()
    raise RuntimeError("the traceback keeps the session")

async def test_7_after_it(client):
    assert await names(client) == ["Sand"]
    assert (await client.post("/dancers/next")).status_code == 201
    KEPT.clear()

def other(): ...

async def test_overrides_pitfall_120(client):
    app.dependency_overrides[names] = other
    app.state.answer = 42

async def test_a_connection_in_the_apps_state(client):
    app.state.held = await engine.connect()
    await app.state.held.execute(Dancer.__table__.insert().values(name="held"))

def test_8_after_it():
    assert not hasattr(app.state, "held")
    assert app.dependency_overrides == {}
    assert not hasattr(app.state, "answer")

@pytest.fixture(scope="class")
def overriding():
    app.dependency_overrides[names] = other
    yield
    del app.dependency_overrides[names]

class TestOverridesOfAWideFixture:
    @pytest.mark.parametrize("turn", [1, 2])
    async def test_they_stay_as_long_as_it(self, overriding, client, turn):
        assert app.dependency_overrides == {names: other}
        app.dependency_overrides.clear()

def test_9_after_it():
    assert app.dependency_overrides == {}
"""

ENDINGS = """
import pytest
from app import Dancer, app, engine, maker

async def add(name):
    async with maker() as session:
        session.add(Dancer(name=name))
        await session.commit()

@pytest.fixture(autouse=True)
async def whole(client):
    assert (await client.get("/dancers")).json() == ["Sand"]

async def test_skip(client):
    await add("skipped")
    pytest.skip("half-way")

@pytest.mark.xfail(strict=True)
async def test_xfail():
    await add("xfailed")
    assert False

@pytest.mark.xfail(strict=True)
async def test_xpass_strict():
    await add("xpassed")

@pytest.fixture
async def broken():
    await add("broken")
    raise RuntimeError("set-up")

async def test_broken_set_up(broken): ...

@pytest.fixture
async def broken_end():
    yield
    await add("broken end")
    raise RuntimeError("tear-down")

async def test_broken_tear_down(broken_end): ...

@pytest.fixture
async def leaving_and_broken():
    yield
    session = maker()
    session.add(Dancer(name="left"))
    await session.flush()
    raise RuntimeError("and left")

async def test_both_at_the_end(leaving_and_broken): ...

def test_subtests(subtests, test_client):
    for name in ("a", "b"):
        with subtests.test(name):
            assert test_client.post(f"/dancers/{name}").status_code == 201
    with subtests.test("failing"):
        assert len(test_client.get("/dancers").json()) == 4

async def test_last(client): ...
"""

RERUN = """
import pytest
from _pytest.runner import runtestprotocol

def pytest_runtest_protocol(item, nextitem):
    if "again" not in item.name:
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for _ in range(3):
        reports = runtestprotocol(item, nextitem=nextitem, log=False)
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True

@pytest.fixture(scope="module")
def wide(arena):
    from app import Dancer
    with arena.session() as session:
        session.add(Dancer(name="wide"))
        session.commit()

# What is the user's own wins.
@pytest.fixture
def client():
    return "mine"

@pytest.fixture
def db_session():
    return "mine"

@pytest.fixture
def event_loop():
    return "mine"
"""

RERUN_TESTS = """
def test_again(wide, test_client):
    assert test_client.get("/dancers").json() == ["Sand", "wide"]
    assert test_client.post("/dancers/again").status_code == 201

def test_names_of_the_users_own_pitfall_083(client, db_session, event_loop, arena):
    assert client == db_session == event_loop == "mine"
    with arena.session() as session:
        assert session.in_transaction() is False
    assert arena.test_client().get("/dancers").json() == ["Sand", "wide"]

def double(number):
    '''
    >>> double(2)
    4
    '''
    return 2 * number
"""

INTERRUPTED = """
import pytest
from app import Dancer

@pytest.fixture(scope="module")
def wide(arena):
    with arena.session() as session:
        session.add(Dancer(name="wide"))
        session.commit()
    yield
    with arena.session() as session:
        session.add(Dancer(name="end"))
        session.commit()

async def test_1(wide, client, db_session):
    db_session.add(Dancer(name="pending"))
    assert len((await client.get("/dancers")).json()) == 3
    raise {error}

async def test_2(wide, client): ...
"""

WIDE_CLIENT = """
import pytest
from starlette.testclient import TestClient
from sqlalchemy import create_engine
from app import app

engine, KEPT = create_engine("sqlite:///dev.db"), []

@app.post("/kept")
def keep():
    KEPT.append(engine.connect())

@pytest.fixture(scope="module")
def own():
    with TestClient(app) as own:
        yield own

def test_leaves_a_connection(own):
    own.post("/kept")
"""

# The worker of a connection that is taken back ends when the loop is closed, as it may at any time.
CLOSED_LOOP = """
import asyncio, sqlite3, threading
from sqlalchemy.ext.asyncio import create_async_engine

runner, closed, kept = asyncio.Runner(), threading.Event(), []

class Slow(sqlite3.Connection):
    def close(self):
        closed.wait(60)
        super().close()

engine = create_async_engine("sqlite+aiosqlite:///dev.db", connect_args={"factory": Slow})

async def leave():
    kept.append(await engine.connect())
    return await kept[0].get_raw_connection()

def test_leaves_a_connection():
    kept.append(runner.run(leave()).driver_connection._thread)

def test_closes_its_loop():
    runner.close()
    closed.set()
    kept[-1].join(60)
    assert not kept[-1].is_alive()
"""


def test_leaks_fail_their_test_and_disturb_no_other(example: Example) -> None:
    """P2, P7: the line that wrote, or took it, is named; a failed test has no second error."""
    run = example.with_files(test_it=LEAKS).run("-p", "no:cacheprovider")
    run.expect(1, passed=13, failed=1, errors=3)
    run.says("the line that took it", "# took a connection", "# not committed")
    run.says("ERROR at teardown of test_1_an_open_transaction", "an open transaction")
    run.warns("a connection that was not returned", "test_3_a_connection")
    run.says(
        "ERROR at teardown of test_a_connection_in_the_apps_state", "await app.state.held.execute"
    )


@pytest.mark.skipif(pytest.version_tuple < (9,), reason="subtests are pytest 9's own")
def test_endings_of_every_kind_leave_a_whole_database(example: Example) -> None:
    """P2: skip, xfail, errors in set-up and tear-down, both at once, subtests."""
    run = example.with_files(test_it=ENDINGS).run()
    run.expect(1, passed=3, failed=3, skipped=1, xfailed=1, errors=3)
    run.says("RuntimeError: and left", "ConnectionLeak: the test ended with an open transaction")


@pytest.mark.slow
def test_endings_where_the_shutdown_fails_as_well(example: Example) -> None:
    """P8: the test's own failure is what is told, the lifespan's comes beside it."""
    lifespan = (
        "from contextlib import asynccontextmanager\n@asynccontextmanager\nasync def life(app):\n"
        "    yield\n    raise RuntimeError('at shutdown')\napp = FastAPI(lifespan=life)\n"
    )
    tests = (
        "async def test_it(client):\n    await client.get('/dancers')\n    assert 'mine' == 'x'\n"
        "async def test_other(client):\n    await client.get('/dancers')\n"
    )
    run = example.change("app.py", "app = FastAPI()\n", lifespan).with_files(test_it=tests).run()
    run.expect(1, failed=2, errors=1).says("assert 'mine' == 'x'", "ERROR at teardown of test_it")
    run.says("FAILED test_it.py::test_it - AssertionError", "at shutdown")


@pytest.mark.slow
@pytest.mark.usefixtures("whole_process")
def test_a_test_without_a_database_costs_nothing(example: Example) -> None:
    """P10: no template, no file, no HTTP library for tests that ask for none."""
    tests = (
        "import os, sys\nfrom pathlib import Path\n"
        "def test_plain():\n    assert 'starlette.testclient' not in sys.modules\n"
        "    assert not {'httpx', 'httpx2', 'alembic'} & set(sys.modules)\n"
        "async def test_async(): ...\n"
    )
    run = example.with_files(test_it=tests).run()
    run.expect(passed=2).never_says("database dev")
    assert not list(run.folder.parent.glob("cache/templates/*"))


@pytest.mark.slow
def test_endings_by_x_maxfail_and_ctrl_c(example: Example) -> None:
    """P7: the run ends early; everything is left, nothing is said twice, nothing breaks."""
    for error, args, status in (
        ("KeyboardInterrupt", (), 2),
        ("RuntimeError('x')", ("-x",), 1),
        ("pytest.exit('enough')", ("--maxfail=1",), 2),
    ):
        run = example.with_files(test_it=INTERRUPTED.format(error=error)).run(*args)
        assert run.status == status, run.output
        run.never_says("INTERNALERROR", "Traceback (most recent call last):\n", "IsolationError")
        assert not (run.folder / "dev.db").exists()


@pytest.mark.slow
def test_reruns_doctests_and_names_of_the_users_own(example: Example) -> None:
    """P2: a test that is run three times starts three times on a whole database."""
    project = example.with_paths({"conftest.py": RERUN}).with_files(test_it=RERUN_TESTS)
    project.run("--doctest-modules", "test_it.py").expect(passed=3)


@pytest.mark.slow
def test_runs_that_run_no_test(example: Example) -> None:
    """P10: collecting, listing fixtures, and a run without the plugin make no database."""
    project = example.with_files(test_it=RERUN_TESTS)
    run = project.run("--collect-only", "-q")
    assert run.status == 0, run.output
    run.says("2 tests collected").never_says("database dev")
    assert project.run("--fixtures").says("db_session", "client_as").status == 0
    quiet = project.change("pytest.ini", "    error\n", "")
    off = quiet.run("-p", "no:pytest_arena.plugin", "--co", "-q", plugin=False)
    assert off.status == 0, off.output
    late = project.with_paths({"conftest.py": "pytest_plugins = ['pytest_arena.plugin']"})
    assert late.run(plugin=False).says("was loaded too late").status == 4


def test_what_a_request_of_a_wide_client_keeps_is_the_tests(example: Example) -> None:
    """The client's thread is the fixture's, and it starts the one in which the endpoint works."""
    run = example.with_files(test_it=WIDE_CLIENT).run().expect(passed=1)
    run.warns("KEPT.append(engine.connect())", "test_leaves_a_connection")


def test_what_ends_a_connection_answers_no_loop_pitfall_148(example: Example) -> None:
    """P2: its loop may be closed by then, and the worker's failure be another test's."""
    run = example.with_files(test_it=CLOSED_LOOP).run().expect(passed=2)
    run.warns("kept.append(await engine.connect())", "test_leaves_a_connection")


FREED = """
import gc, weakref

SEEN = []

async def test_1_asks(client):
    gc.disable()
    assert (await client.post("/dancers/x")).status_code == 201
    SEEN.append(weakref.ref(client))

def test_2_finds_nothing_of_it():
    running = [one for one in gc.get_objects() if type(one).__name__ == "RunningTest"]
    gc.enable()
    assert SEEN[0]() is None
    assert len(running) == 1
"""


def test_what_a_test_has_had_waits_for_no_garbage_collection(example: Example) -> None:
    """Else each test would leave hundreds of objects to it, which is slow, and late."""
    example.with_files(test_freed=FREED).run().expect(passed=2)

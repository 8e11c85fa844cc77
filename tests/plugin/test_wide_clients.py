"""Clients that wide fixtures have created. They act for the test that sends a request."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.parameters import slow_except

if TYPE_CHECKING:
    from tests.example import Example

ENDPOINTS = """
from app import Dancer, app, get_db
from fastapi import Depends, Request, Response


@app.post("/lost/{name}", status_code=201)
async def lose(name: str, db=Depends(get_db)):
    db.add(Dancer(name=name))
    await db.flush()


@app.post("/login/{name}")
async def login(name: str, response: Response):
    response.set_cookie("user", name)


@app.get("/me")
async def me(request: Request):
    return [request.cookies.get("user"), request.headers.get("authorization")]
"""

SYNC = """
import pytest
from app import Dancer
from pytest_arena import inserted


@pytest.fixture(scope="{scope}")
def wide(arena):
    with arena.test_client() as client:
        client.post("/login/fixture")
        yield client


class TestIt:
    @pytest.mark.parametrize("turn", [1, 2])
    def test_lost(self, wide, turn):
        assert wide.post("/lost/Ada").status_code == 201

    def test_requests(self, wide, arena):
        with arena.session() as session:
            session.add(Dancer(name="Pending"))
            assert wide.get("/dancers").json() == ["Sand", "Pending"]
        with arena.expect_changes(dancers=inserted(1)), arena.max_statements(5):
            wide.post("/dancers/Ada")
        assert [request.path for request in arena.requests] == ["/dancers", "/dancers/Ada"]
        assert arena.changes(-1).tables == ("dancers",)

    def test_story(self, wide):
        wide.post("/dancers/Ada")
        assert wide.get("/dancers").json() == []
"""

ASYNC = """
import pytest
import pytest_asyncio
from app import Dancer
from pytest_arena import inserted
{marker}


@{fixture}
async def wide(arena):
    async with arena.client() as client:
        await client.post("/login/fixture")
        yield client


class TestIt:
    @pytest.mark.parametrize("turn", [1, 2])
    async def test_lost(self, wide, turn):
        assert (await wide.post("/lost/Ada")).status_code == 201

    async def test_requests(self, wide, arena):
        async with arena.session() as session:
            session.add(Dancer(name="Pending"))
            assert (await wide.get("/dancers")).json() == ["Sand", "Pending"]
        async with arena.expect_changes(dancers=inserted(1)):
            with arena.max_statements(5):
                await wide.post("/dancers/Ada")
        assert [request.path for request in arena.requests] == ["/dancers", "/dancers/Ada"]
        assert arena.changes(-1).tables == ("dancers",)

    async def test_story(self, wide):
        await wide.post("/dancers/Ada")
        assert (await wide.get("/dancers")).json() == []
"""

OF_ANYIO = """
pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def anyio_backend():
    return "asyncio"
"""

OF_MODULE = 'pytest.fixture(scope="module")'
IN_MODULE_LOOP = 'pytestmark = pytest.mark.asyncio(loop_scope="module")'
MODULE_LOOP = 'pytest_asyncio.fixture(scope="module", loop_scope="module")'
KINDS = {
    "sync-module": SYNC.format(scope="module"),
    "sync-class": SYNC.format(scope="class"),
    "sync-session": SYNC.format(scope="session"),
    "asyncio": ASYNC.format(marker="", fixture=MODULE_LOOP),
    "asyncio-module-loop": ASYNC.format(marker=IN_MODULE_LOOP, fixture=MODULE_LOOP),
    "anyio": ASYNC.format(marker=OF_ANYIO, fixture=OF_MODULE),
}
EACH = pytest.mark.parametrize("kind", slow_except(KINDS, "sync-module", "asyncio"))


def app_with_endpoints(example: Example, test: str) -> Example:
    """The app of the examples with more endpoints."""
    project = example.with_files(endpoints=ENDPOINTS, test_it=test)
    return project.change("pytest.ini", "app:app", "endpoints:app")


def options(kind: str) -> tuple[str, ...]:
    """The tests run in their order, under the runner of this kind."""
    if kind == "anyio":
        return "-p", "no:randomly", "-p", "anyio", "-o", "asyncio_mode=strict"
    return "-p", "no:randomly"


@EACH
def test_a_request_belongs_to_the_running_test(example: Example, kind: str) -> None:
    """Each test has its lost writes, its requests, its changes and its story."""
    project = app_with_endpoints(example, KINDS[kind])
    run = project.run("-oarena_lost_writes=fail", *options(kind))
    run.expect(1, passed=3, failed=1, errors=2)
    run.says(
        "ERROR test_it.py::TestIt::test_lost[1] - Failed: LostWriteError: POST /lost/Ada",
        "ERROR test_it.py::TestIt::test_lost[2] - Failed: LostWriteError: POST /lost/Ada",
        "POST /dancers/Ada 201 dancers +1",
    )


LIFESPAN = """
from contextlib import asynccontextmanager
from fastapi import FastAPI, Request, Response


@asynccontextmanager
async def lifespan(app):
    app.state.pool = object()
    yield


app = FastAPI(lifespan=lifespan)


@app.get("/pool")
async def pool(request: Request):
    return hasattr(request.app.state, "pool")


@app.post("/login/{name}")
async def login(name: str, response: Response):
    response.set_cookie("user", name)


@app.get("/me")
async def me(request: Request):
    return [request.cookies.get("user"), request.headers.get("authorization")]


def log_in(client, role):
    client.headers["authorization"] = role
"""

RESTORED_SYNC = """
import pytest
from fastapi.testclient import TestClient
from lives import app


@pytest.fixture(scope="module")
def of_the_suite():
    with TestClient(app) as client:
        yield client


@pytest.mark.parametrize("turn", [1, 2])
def test_the_suites(of_the_suite, turn):
    assert of_the_suite.get("/pool").json()


@pytest.fixture(scope="module")
def entered(arena):
    with arena.test_client() as client:
        client.post("/login/fixture")
        yield client


@pytest.fixture(scope="module")
def returned(arena):
    return arena.test_client()


@pytest.fixture(scope="module")
def staff(arena):
    return arena.test_client_as("staff")


@pytest.mark.parametrize("turn", [1, 2])
def test_entered(entered, turn):
    assert entered.get("/me").json() == ["fixture", None]
    assert entered.get("/pool").json()
    entered.post("/login/test")
    entered.headers["authorization"] = "test"
    assert entered.get("/me").json() == ["test", "test"]


@pytest.mark.parametrize("turn", [1, 2])
def test_returned(returned, turn):
    assert returned.get("/me").json() == [None, None]
    assert returned.get("/pool").json()
    returned.post("/login/test")


@pytest.mark.parametrize("turn", [1, 2])
def test_login(staff, turn):
    assert staff.get("/me").json() == [None, "staff"]
    del staff.headers["authorization"]


@pytest.fixture(scope="class")
def of_class(entered):
    entered.post("/login/class")


class TestOfAClass:
    @pytest.mark.parametrize("turn", [1, 2])
    def test_in_the_class(self, of_class, entered, turn):
        assert entered.get("/me").json() == ["class", None]
        entered.post("/login/test")


def test_asked_for_later(request):
    late = request.getfixturevalue("of_module")
    assert late.get("/me").json() == ["late", None]
    late.post("/login/test")


@pytest.fixture(scope="module")
def of_module(arena):
    client = arena.test_client()
    client.post("/login/late")
    return client


def test_asked_for_before(of_module):
    assert of_module.get("/me").json() == ["late", None]
"""

RESTORED_ASYNC = """
import pytest
import pytest_asyncio
{marker}


@{fixture}
async def entered(arena):
    async with arena.client() as client:
        await client.post("/login/fixture")
        yield client


@{fixture}
async def returned(arena):
    return arena.client()


@{fixture}
async def staff(arena):
    return arena.client_as("staff")


@pytest.mark.parametrize("turn", [1, 2])
async def test_entered(entered, turn):
    assert (await entered.get("/me")).json() == ["fixture", None]
    assert (await entered.get("/pool")).json()
    await entered.post("/login/test")
    entered.headers["authorization"] = "test"
    assert (await entered.get("/me")).json() == ["test", "test"]


@pytest.mark.parametrize("turn", [1, 2])
async def test_returned(returned, turn):
    assert (await returned.get("/me")).json() == [None, None]
    assert (await returned.get("/pool")).json()
    await returned.post("/login/test")


@pytest.mark.parametrize("turn", [1, 2])
async def test_login(staff, turn):
    assert (await staff.get("/me")).json() == [None, "staff"]
    del staff.headers["authorization"]
"""


def restored(kind: str) -> str:
    """The tests of this kind's runner."""
    if kind == "sync":
        return RESTORED_SYNC
    marker = {"asyncio": "", "asyncio-module-loop": IN_MODULE_LOOP, "anyio": OF_ANYIO}[kind]
    fixture = OF_MODULE if kind == "anyio" else MODULE_LOOP
    return RESTORED_ASYNC.format(marker=marker, fixture=fixture)


@pytest.mark.parametrize(
    "kind",
    [
        "sync",
        "asyncio",
        pytest.param("asyncio-module-loop", marks=pytest.mark.slow),
        pytest.param("anyio", marks=pytest.mark.slow),
    ],
)
def test_a_test_gets_the_client_as_its_fixture_left_it(example: Example, kind: str) -> None:
    """Cookies, headers and logins are restored."""
    project = example.with_files(lives=LIFESPAN, test_it=restored(kind))
    config = "lives:app\narena_login = lives:log_in"
    project = project.change("pytest.ini", "app:app", config)
    number = 12 if kind == "sync" else 6
    project.run(*options(kind)).expect(passed=number)


STARTS = """
from contextlib import asynccontextmanager
from app import Dancer, app, maker


@asynccontextmanager
async def lifespan(app):
    async with maker() as session:
        session.add(Dancer(name="Start"))
        await session.commit()
    yield


app.router.lifespan_context = lifespan
"""

STARTED = """
import pytest
from sqlalchemy import text


@pytest.fixture(scope="module")
def wide(arena):
    with arena.session() as session:
        names = "SELECT name FROM dancers ORDER BY id"
        first = arena.test_client()
        second = arena.test_client()
        assert session.scalars(text(names)).all() == ["Sand", "Start"]
    return first, second


@pytest.mark.parametrize("turn", [1, 2])
def test_it(wide, turn):
    for client in wide:
        assert client.get("/dancers").json() == ["Sand", "Start"]
    wide[0].post("/dancers/Ada")
"""

STARTED_ASYNC = """
import pytest
import pytest_asyncio
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def wide(arena):
    return arena.client()


@pytest.mark.parametrize("turn", [1, 2])
async def test_it(wide, turn):
    assert (await wide.get("/dancers")).json() == ["Sand", "Start"]
    await wide.post("/dancers/Ada")
"""


def test_the_app_of_a_wide_fixtures_client_starts_where_its_rows_belong(
    example: Example,
) -> None:
    """A sync client starts the app in the fixture. An async one starts the app in each test."""
    project = example.with_files(starts=STARTS, test_it=STARTED, test_async=STARTED_ASYNC)
    project = project.change("pytest.ini", "app:app", "starts:app")
    project.run("-p", "no:randomly").expect(passed=4)


LATE = """
import asyncio
import pytest
from app import app

LATER = []


@app.post("/later")
async def later():
    LATER.append(asyncio.create_task(asyncio.Event().wait()))


@pytest.fixture(scope="module")
def wide(arena):
    return arena.test_client()


def test_late(wide):
    wide.post("/later")


def test_next(wide):
    assert wide.get("/dancers").json() == ["Sand"]
"""


def test_work_of_a_request_belongs_to_the_running_test(example: Example) -> None:
    """It is named with its test, and with no later one."""
    project = example.with_files(test_it=LATE)
    run = project.run("-oarena_settle=0.1", "-q", "-p", "no:randomly").expect(passed=2)
    run.says("test_it.py::test_late has ended, and work that a request had begun was cut off")
    run.never_says("test_next")


LITESTAR = """
from app import Base, Dancer, engine
from litestar import Litestar, Request, Response, get, post
from litestar.datastructures import Cookie


@post("/login")
async def login() -> Response[None]:
    return Response(None, cookies=[Cookie(key="user", value="test")])


@get("/user")
async def user(request: Request) -> dict[str, str]:
    return request.cookies


app = Litestar([login, user], logging_config=None)
"""

OF_LITESTAR = """
import pytest
from lite import app
from litestar.testing import TestClient


@pytest.fixture(scope="module")
def ours(arena):
    return arena.test_client()


@pytest.fixture(scope="module")
def suites():
    with TestClient(app) as client:
        yield client


@pytest.mark.parametrize("turn", [1, 2])
@pytest.mark.parametrize("name", ["ours", "suites"])
def test_it(request, name, turn):
    client = request.getfixturevalue(name)
    assert client.get("/user").json() == {}
    client.post("/login")
    assert client.get("/user").json() == {"user": "test"}
"""


@pytest.mark.slow
def test_the_wide_clients_of_litestar_are_restored(example: Example) -> None:
    """Those of pytest-arena, and those of the suite."""
    project = example.with_files(lite=LITESTAR, test_it=OF_LITESTAR)
    project = project.change("pytest.ini", "app:app", "lite:app")
    # Litestar leaves streams of anyio.
    project.run("-p", "no:unraisableexception").expect(passed=4)

"""Clients that the reader has made himself: arena knows their requests to the app under test."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.plugin.shop import HOWS, env_of, shop

if TYPE_CHECKING:
    from tests.example import Example, Run

KNOWN = """
import asyncio
import httpx
import httpx2
import pytest
from sqlalchemy import select
from starlette.middleware.cors import CORSMiddleware
from starlette.testclient import TestClient
from app import Order, app, maker

of_the_module = TestClient(app)


def in_a_function(inner):
    async def answering(scope, receive, send):
        await inner(scope, receive, send)
    return answering


@pytest.fixture(params=[httpx2, httpx], ids=["httpx2", "httpx"])
async def own(request):
    transport = request.param.ASGITransport(app)
    async with request.param.AsyncClient(transport=transport, base_url="http://own") as client:
        yield client


async def test_of_a_fixture(own, arena, db_session):
    db_session.add(Order(item="vase"))
    assert (await own.get("/orders")).json() == ["vase"]
    response = await own.post("/orders/chair")
    assert arena.changes(response).tables == ("orders", "stock")
    assert [(one.path, one.status) for one in arena.requests] == [
        ("/orders", 200), ("/orders/chair", 201)
    ]


async def test_that_asks_at_once_and_is_answered_by_an_error(own, arena, db_session):
    db_session.add(Order(item="vase"))
    both = await asyncio.gather(own.get("/orders"), own.get("/orders"))
    assert [one.json() for one in both] == [["vase"], ["vase"]]
    with pytest.raises(LookupError):
        await own.post("/breaks")
    assert arena.requests[-1].error == "LookupError: no such thing"
    assert arena.changes(-1).tables == ("visits",)


def test_of_the_module(arena, db_session):
    db_session.add(Order(item="vase"))
    assert of_the_module.get("/orders").json() == ["vase"]
    response = of_the_module.post("/old/chair")
    assert arena.changes(response).tables == ("orders", "stock")
    assert [(one.path, one.status) for one in arena.requests] == [
        ("/orders", 200), ("/old/chair", 307), ("/orders/chair", 201)
    ]
    with pytest.raises(LookupError):
        of_the_module.post("/breaks")
    assert arena.changes(-1).tables == ("visits",)
    with of_the_module.stream("GET", "/orders") as response:
        assert response.read() == b'["vase","A"]'.replace(b"A", b"chair")
    assert len(arena.requests) == 5
    with TestClient(app) as client, client.websocket_connect("/socket") as socket:
        assert socket.receive_text() == "2"
    assert arena.requests[-1].method == "WEBSOCKET"


async def test_sync_in_an_async_test(arena, db_session):
    db_session.add(Order(item="vase"))
    assert of_the_module.get("/orders").json() == []  # as if arena were not there
    await db_session.commit()
    assert of_the_module.get("/orders").json() == ["vase"]
    assert len(arena.requests) == 2


def cors(inner):
    return CORSMiddleware(inner, allow_origins="*")


@pytest.mark.parametrize("wrap", [in_a_function, cors])
def test_inside_of_middleware(arena, db_session, wrap):
    db_session.add(Order(item="vase"))
    assert TestClient(wrap(app)).get("/orders").json() == ["vase"]
    assert len(arena.requests) == 1


async def test_beside_clients_of_ours(own, client, arena):
    await own.post("/orders/chair")
    response = await client.post("/orders/lamp")
    await own.get("/orders")
    assert [one.path for one in arena.requests] == ["/orders/chair", "/orders/lamp", "/orders"]
    assert arena.changes(response).tables == ("orders", "stock")


@pytest.fixture(scope="module")
def wide(arena):
    of_the_module.post("/orders/lamp")


def test_what_a_wider_fixture_asks_is_no_tests(wide, arena):
    assert not arena.requests
    assert len(of_the_module.get("/orders").json()) == 1
"""

MORE = """

from fastapi import WebSocket


@app.websocket("/socket")
async def socket(socket: WebSocket):
    await socket.accept()
    async with maker() as session:
        await socket.send_text(str(len((await session.scalars(select(Order))).all())))
    await socket.close()
"""

FILTERS = ("-W", "ignore::DeprecationWarning")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["copy", "undo"])  # a clone cannot tell which request it was
def test_their_requests_are_known_as_those_of_ours(example: Example, how: str) -> None:
    """What the test has pending is committed before, what they changed can be told."""
    project = shop(example, test_it=KNOWN)
    project = project.with_files(app=project.files["app.py"] + MORE)
    project.run(*FILTERS, env=env_of(how)).expect(passed=11)


FAILING = """
import pytest
from sqlalchemy import text
from starlette.testclient import TestClient
from app import Order, app, get_db, maker


async def test_never_flushed(db_session):
    db_session.add_all([Order(item="vase"), Order(item="lamp")])
    assert TestClient(app).get("/orders").json() == ["vase", "lamp"]


def test_flushed(test_client, db_session):
    test_client.get("/orders")
    db_session.add(Order(item="vase"))
    db_session.flush()
    assert 0


async def test_in_a_block_of_its_own(client):
    async with maker() as session:
        session.add_all([Order(item="vase"), Order(item="lamp")])
        await session.flush()
        assert (await client.get("/orders")).json() == ["vase", "lamp"]


@pytest.fixture
async def session():
    async with maker() as session:
        yield session
        await session.rollback()


async def test_of_a_fixture(session, client):
    await session.execute(text("UPDATE stock SET amount = 7 WHERE item = 'lamp'"))
    await client.get("/orders")
    assert 0


async def test_without_a_request(session):
    session.add(Order(item="vase"))
    await session.flush()
    assert 0


async def test_that_the_app_shares(session, client):
    app.dependency_overrides[get_db] = lambda: session
    session.add(Order(item="vase"))
    assert (await client.get("/orders")).json() == ["vase"]
    await client.post("/pay/1")
    assert 0


async def test_that_commits(session, client, db_session):
    db_session.add(Order(item="vase"))
    await client.get("/orders")
    session.add(Order(item="lamp"))
    await session.commit()
    assert 0


async def test_whose_app_leaves_it_open(client):
    await client.post("/leaves")
    assert 0
"""

LEAVING = """


@app.post("/leaves")
async def leaves():
    app.state.session = maker()
    app.state.session.add(Order(item="vase"))
    await app.state.session.flush()
"""

WROTE = "the test or its fixture wrote"
OPEN = "and did not commit it:"
UNSEEN = "GET /orders could not see it"
NEXT = "next: commit it before the request: await session.commit()"
UPDATE = """await session.execute(text("UPDATE stock SET amount = 7 WHERE item = 'lamp'"))"""
NOT_COMMITTED = {
    "test_never_flushed": ["2 objects pending in db_session: await db_session.commit()"],
    "test_flushed": [
        f"{WROTE} orders (1 row) {OPEN} test_it.py:16  db_session.flush()",
        NEXT.replace("await ", ""),
    ],
    "test_in_a_block_of_its_own": [
        f"{WROTE} orders (2 rows) {OPEN} test_it.py:23  await session.flush()",
        UNSEEN,
        NEXT,
    ],
    "test_of_a_fixture": [f"{WROTE} stock (1 row) {OPEN} test_it.py:35  {UPDATE}", UNSEEN, NEXT],
    "test_without_a_request": [
        f"{WROTE} orders (1 row) {OPEN} test_it.py:42  await session.flush()",
        NEXT.replace("the request", "the app reads it"),
    ],
}


@pytest.mark.slow
@pytest.mark.parametrize("how", HOWS)
def test_a_failed_test_tells_what_it_has_not_committed(example: Example, how: str) -> None:
    """Not what the app has left, nor what it shares with the test, nor what is committed."""
    project = shop(example, test_it=FAILING)
    run = project.with_files(app=project.files["app.py"] + LEAVING).run(*FILTERS, env=env_of(how))
    run.expect(1, failed=8)
    assert not_committed(run) == NOT_COMMITTED


def not_committed(run: Run) -> dict[str, list[str]]:
    """What the report of each test says of that."""
    parts = re.split(r"^_{4,} (\w+) _{4,}$", run.output, flags=re.MULTILINE)[1:]
    told = r"^not committed\n((?:    .*\n)+)"
    found = {
        name: re.search(told, report, re.MULTILINE)
        for name, report in zip(parts[::2], parts[1::2], strict=True)
    }
    lines = {name: one[1].splitlines() for name, one in found.items() if one}
    return {name: [re.sub(r": /\S+/", ": ", one.strip()) for one in lines[name]] for name in lines}


OTHERWISE = """
import httpx2
import pytest
from litestar import Litestar, get
from litestar.testing import AsyncTestClient, TestClient as LitestarClient
from starlette.testclient import TestClient
from sqlalchemy import select
from app import Order, app, maker


@get("/orders")
async def orders() -> list[str]:
    async with maker() as session:
        return list(await session.scalars(select(Order.item)))


litestar = Litestar([orders], logging_config=None)


def create():
    return app


def test_litestars(arena, db_session):
    db_session.add(Order(item="vase"))
    db_session.commit()
    with LitestarClient(litestar) as client:
        db_session.add(Order(item="lamp"))
        response = client.get("/orders")
    assert response.json() == ["vase", "lamp"]
    assert not arena.changes(response)
    assert len(arena.requests) == 1


async def test_litestars_async(arena, db_session):
    async with AsyncTestClient(litestar) as client:
        db_session.add(Order(item="vase"))
        await db_session.commit()
        assert (await client.get("/orders")).json() == ["vase"]
    assert len(arena.requests) == 1


async def test_any(arena, db_session):
    db_session.add(Order(item="vase"))
    transport = httpx2.ASGITransport(app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://own") as client:
        assert (await client.get("/orders")).json() == ["vase"]
    assert len(arena.requests) == 1


@pytest.mark.parametrize("turn", range(2))
def test_work_that_goes_on_is_waited_for(arena, turn):
    client = TestClient(app)
    with client:
        client.post("/later/vase")
        arena.settled()
        assert client.get("/orders").json() == ["vase"]


def test_a_forgotten_commit():
    assert TestClient(app).post("/leaves").status_code == 200
"""

LATER = """

import asyncio

tasks = set()


async def add(item):
    await asyncio.sleep(0.02)
    async with maker.begin() as session:
        session.add(Order(item=item))


@app.post("/later/{item}")
async def later(item: str):
    tasks.add(asyncio.create_task(add(item)))


@app.post("/leaves")
async def leaves(db=Depends(get_db)):
    db.add(Order(item="vase"))
    await db.flush()
"""


@pytest.mark.slow
@pytest.mark.parametrize("named", ["", "test_it:create"])
def test_where_nobody_says_which_app_it_is_the_one_that_is_asked(
    example: Example, named: str
) -> None:
    """No app is configured, or a factory; of other frameworks; and its late work is known."""
    project = shop(example, test_it=OTHERWISE)
    project = project.with_files(app=project.files["app.py"] + LATER)
    run = project.run(*FILTERS, "-o", f"arena_app={named}").expect(passed=6)
    run.says("test_it.py::test_a_forgotten_commit: POST /leaves 200 wrote orders (1 row) and never")


@pytest.mark.slow
def test_the_libraries_classes_are_as_they_were(example: Example) -> None:
    """When the run is over; none of them is imported where nobody has."""
    watcher = """
import atexit
import sys

NAMES = {
    "httpx2": ("ASGITransport", "handle_async_request"),
    "httpx": ("ASGITransport", "handle_async_request"),
    "starlette.testclient": ("_TestClientTransport", "handle_request"),
    "litestar.testing.transport": ("TestClientTransport", "handle_request"),
}


def seen():
    for module, (kind, name) in NAMES.items():
        if module in sys.modules:
            method = getattr(getattr(sys.modules[module], kind), name)
            yield module, method.__code__.co_filename.endswith("_app/_client.py")


def pytest_runtest_teardown():
    print("DURING", dict(seen()))


atexit.register(lambda: print("AFTER", dict(seen())))
"""
    project = shop(example, test_it=OTHERWISE).with_files(watcher=watcher)
    run = project.run(
        "-p", "watcher", "-k", "litestars", "-s", "-o", "arena_app=", *FILTERS
    ).expect(passed=2)
    run.says("DURING {'httpx2': True, 'httpx': True, 'starlette.testclient': True")
    run.says("AFTER {'httpx2': False, 'httpx': False, 'starlette.testclient': False")


@pytest.mark.slow
@pytest.mark.usefixtures("whole_process")
def test_a_library_that_looks_otherwise_is_imported_all_the_same(example: Example) -> None:
    """Some of the classes have private names: what is not there is not watched."""
    project = example.with_files(httpx="", test_it="import httpx\n\ndef test_it(): ...\n")
    project.run("-o", "arena_app=", "-o", "arena_schema=").expect(passed=1)


COOKIES = """
import httpx
import pytest
from app import app
from fastapi import Request, Response
from fastapi.testclient import TestClient

client = TestClient(app)


@app.post("/login")
def login(response: Response, name: str):
    response.set_cookie("name", name)


@app.get("/me")
def me(request: Request) -> str:
    return request.cookies.get("name", "nobody")


@pytest.fixture(scope="module")
def staff():
    staff = TestClient(app)
    staff.post("/login?name=staff")
    return staff


@pytest.mark.parametrize("turn", range(2))
def test_it(turn, staff):
    assert client.get("/me").json() == "nobody"
    client.post("/login?name=admin")
    assert client.get("/me").json() == "admin"
    assert staff.get("/me").json() == "staff"


@pytest.fixture(scope="module")
def library_client():
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


@pytest.mark.parametrize("turn", range(2))
async def test_a_librarys_client(turn, library_client):
    assert (await library_client.get("/me")).json() == "nobody"
    await library_client.post("/login?name=admin")
    assert (await library_client.get("/me")).json() == "admin"
"""


def test_a_login_by_a_modules_client_ends_with_the_test(example: Example) -> None:
    """The cookies that a wider fixture's client got in the fixture stay."""
    example.with_files(test_it=COOKIES).run().expect(passed=4)


FACTORY = """
import asyncio
from app import engine, Order, maker, router
from fastapi import FastAPI
from flask import Flask
from litestar import Litestar, get
from sqlalchemy import create_engine, select
from sqlalchemy.orm import Session


def fast():
    app = FastAPI()
    app.include_router(router, prefix="/v1")
    return app


def starry():
    @get("/v1/orders")
    async def orders() -> list[str]:
        async with maker() as session:
            return list(await session.scalars(select(Order.item)))

    return Litestar([orders])


def flask():
    app = Flask("shop")
    sync = create_engine("sqlite:///shop.db")

    @app.get("/v1/orders")
    def orders():
        with Session(sync) as session:
            return list(session.scalars(select(Order.item)))

    return app


fast_app, starry_app, flask_app = fast(), starry(), flask()
"""
SECOND = """
import pytest
from app import Order
from factory import fast, flask, starry
from fastapi.testclient import TestClient
from litestar.testing import TestClient as LitestarClient

CLIENTS = {
    "fast": lambda: TestClient(fast()),
    "starry": lambda: LitestarClient(starry()),
    "flask": lambda: flask().test_client(),
}


@pytest.mark.parametrize("name", CLIENTS)
def test_it(arena, db_session, pytestconfig, name):
    if name not in pytestconfig.getini("arena_app"):
        pytest.skip("another framework")
    db_session.add(Order(item="vase"))
    response = CLIENTS[name]().get("/v1/orders")
    assert (response.json() if name != "flask" else response.json) == ["vase"]
    assert [request.path for request in arena.requests] == ["/v1/orders"]
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fast", "starry", "flask"])
def test_another_app_of_the_factory_is_the_app_under_test(example: Example, name: str) -> None:
    """A suite calls ``create_app()`` once more, beside the named app."""
    project = shop(example, test_it=SECOND, factory=FACTORY)
    app = project.files["app.py"].replace("@app.get", "@router.get")
    app = app.replace("app = FastAPI()", "app = FastAPI()\nrouter = APIRouter()")
    app = app.replace("import Depends", "import APIRouter, Depends")
    project = project.with_files(app=app)
    run = project.run(f"-oarena_app=factory:{name}_app", *FILTERS)
    run.expect(passed=1, skipped=2)


RAISES = """
import httpx
import pytest


async def test_raises(client):
    with pytest.raises(httpx.HTTPStatusError):
        (await client.get("/nowhere")).raise_for_status()
"""


@pytest.mark.slow
@pytest.mark.usefixtures("whole_process")
def test_the_client_is_of_the_library_that_the_suite_imports(example: Example) -> None:
    """Both are installed. If the suite imports both, it is Starlette's."""
    example.with_files(test_it=RAISES).run().expect(passed=1)
    both = RAISES.replace("import httpx", "import httpx, httpx2", 1).replace("(httpx.", "(httpx2.")
    example.with_files(test_it=both).run().expect(passed=1)

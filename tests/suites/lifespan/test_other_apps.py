"""A fixture `arena_app` replaces the configured app where it is, and may fail to start."""

import asyncio
from contextlib import asynccontextmanager

import asyncpg
import httpx2
import pytest
from fastapi import FastAPI, Request
from life import STARTS

from pytest_arena.errors import LifespanError

other = FastAPI()


@other.get("/orders")
async def orders():
    return ["other"]


@pytest.fixture(autouse=True)
def lifespan_of_each_test(pytestconfig):
    if pytestconfig.getini("arena_lifespan") == "session":
        pytest.skip("the session has one app")


class TestOther:
    @pytest.fixture
    def arena_app(self):
        return other

    async def test_async_clients(self, arena):
        assert (await arena.client().get("/orders")).json() == ["other"]

    def test_sync_clients(self, arena):
        assert arena.test_client().get("/orders").json() == ["other"]


@asynccontextmanager
async def broken(app):
    async with asyncio.TaskGroup():
        raise LookupError("no broker")
    yield


async def refusing(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no broker"})


@pytest.mark.expect("A702", at="no broker")
@pytest.mark.parametrize("arena_app", [FastAPI(lifespan=broken)])
class TestBroken:
    async def test_a_start_up_that_fails(self, arena_app, client):
        await client.get("/orders")

    def test_it_fails_a_sync_client(self, arena_app, test_client):
        test_client.get("/orders")


@pytest.mark.parametrize("arena_app", [FastAPI(lifespan=broken), refusing])
async def test_an_app_that_starts_once_has_an_option(arena_app, arena):
    with pytest.raises(LifespanError, match="no broker") as caught:
        await arena.client().get("/orders")
    assert "arena_lifespan = session" in caught.value.fix


@asynccontextmanager
async def opening_another_database(app):
    await asyncpg.connect(database="postgres", host="db.invalid")
    yield


@pytest.mark.expect("A202", at="asyncpg.connect(database=")
@pytest.mark.parametrize("arena_app", [FastAPI(lifespan=opening_another_database)])
async def test_a_start_up_that_the_guard_refuses(arena_app, client):
    await client.get("/orders")


async def test_the_configured_app_elsewhere(client):
    assert (await client.get("/orders")).json() == ["start-up"]


@pytest.fixture(scope="class")
def class_client(arena):
    return arena.test_client()


def test_the_app_of_a_wide_client_is_up(class_client):
    assert STARTS[-1] == "up"


def test_the_app_of_a_wide_client_ends_with_it():
    assert STARTS[-1] == "down"


class TestAsync:
    @pytest.fixture
    async def arena_app(self):
        return other

    async def test_an_async_fixture(self, arena_app, arena):
        assert (await arena.client().get("/orders")).json() == ["other"]


async def incomplete(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})


async def mistaken(scope, receive, send):
    raise AssertionError


@pytest.mark.parametrize("arena_app", [mistaken])
async def test_an_app_that_raises_before_its_answer(arena_app, arena):
    assert (await arena.client(raise_app_exceptions=False).get("/orders")).status_code == 500


@pytest.mark.expect("AssertionError")
@pytest.mark.parametrize("arena_app", [incomplete, mistaken])
async def test_an_answer_without_an_end(arena_app, client):
    await client.get("/orders")


@asynccontextmanager
async def half(app):
    yield
    raise LookupError("the broker is gone")


@pytest.mark.parametrize("arena_app", [FastAPI(lifespan=half)])
class TestHalf:
    @pytest.mark.expect("LifespanError", at="the broker is gone")
    async def test_a_shutdown_that_fails(self, arena_app, client):
        await client.get("/")

    @pytest.mark.expect("A702", at="the broker is gone")
    def test_it_fails_a_sync_client(self, arena_app, test_client):
        test_client.get("/")


@asynccontextmanager
async def endless(app):
    yield
    await asyncio.Event().wait()


@pytest.mark.expect("A702", at=None)
@pytest.mark.parametrize("arena_app", [FastAPI(lifespan=endless)])
async def test_a_shutdown_without_an_end(arena_app, client, monkeypatch):
    monkeypatch.setattr("pytest_arena._app._app_run.PATIENCE", 0.1)
    await client.get("/")


@asynccontextmanager
async def with_state(app):
    yield {"user": None}


stateful = FastAPI(lifespan=with_state)


@stateful.post("/login")
async def login(request: Request):
    request.state.user = "Sand"


@stateful.get("/me")
async def me(request: Request):
    return request.state.user


class TestState:
    @pytest.fixture
    def arena_app(self):
        return stateful

    async def test_each_request_has_a_copy(self, client):
        await client.post("/login")
        assert (await client.get("/me")).json() is None

    def test_each_request_of_a_sync_client_has_a_copy(self, test_client):
        test_client.post("/login")
        assert test_client.get("/me").json() is None

    def test_each_request_by_a_socket_has_a_copy(self, live_server):
        httpx2.post(f"{live_server.url}/login")
        assert httpx2.get(f"{live_server.url}/me").json() is None


kept = []


async def test_a_client_that_a_global_keeps(client):
    kept.append(client)


@pytest.mark.expect("LifespanError", at="kept.pop()")
async def test_a_client_whose_test_is_over():
    await kept.pop().get("/orders")


TASKS = []


@asynccontextmanager
async def polling(app):
    TASKS.append(asyncio.create_task(asyncio.Event().wait()))  # never set, never cancelled
    yield


class TestPolling:
    @pytest.mark.parametrize("arena_app", [FastAPI(lifespan=polling)])
    def test_it_leaves_a_task(self, arena_app, test_client):
        test_client.get("/")

    def test_the_task_has_ended_with_its_app(self):
        assert TASKS.pop().cancelled()

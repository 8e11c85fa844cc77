"""Each request of each client is seen once, with its route, after the commit of pending rows."""

import asyncio
import threading
from contextlib import asynccontextmanager, nullcontext

import httpx
import httpx2
import pytest
import uvicorn
from apps_of_frameworks import CLOSED, LOOPS, fast, flask, lite, mounting, wrapped
from async_app import router
from fastapi import FastAPI
from litestar.testing import AsyncTestClient
from litestar.testing import TestClient as LitestarClient
from models import Order
from starlette.testclient import TestClient


@pytest.fixture
async def vase(db_session):
    """A row that nobody has committed."""
    db_session.add(Order(item="vase"))


@pytest.fixture
def sync_vase(db_session):
    db_session.add(Order(item="vase"))


def seen(arena):
    return [(each.method, each.path, each.route, each.status) for each in arena.requests]


ORDERS = ("GET", "/orders", "/orders", 200)


@pytest.mark.parametrize("library", [httpx, httpx2])
@pytest.mark.parametrize("app", [fast, lite, wrapped], ids=["fast", "lite", "wrapped"])
async def test_an_asgi_transport(arena, vase, library, app):
    async with library.AsyncClient(
        transport=library.ASGITransport(app), base_url="http://own"
    ) as client:
        assert (await client.get("/orders")).json() == ["vase"]
    assert seen(arena) == [ORDERS]


async def test_a_mounted_app_and_an_included_router(arena, vase):
    including = FastAPI()
    including.include_router(router, prefix="/v1")
    for app in (mounting, including):
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://own") as client:
            assert (await client.get("/v1/orders")).json() == ["vase"]
    assert seen(arena) == [("GET", "/v1/orders", "/v1/orders", 200)] * 2


@pytest.fixture(params=["entered", "bare"])
def starlettes(request, sync_vase):
    client = TestClient(fast)
    with client if request.param == "entered" else nullcontext():
        yield client


def test_starlettes_client(arena, starlettes):
    assert starlettes.get("/orders").json() == ["vase"]
    assert starlettes.post("/old/chair").status_code == 201
    assert seen(arena) == [
        ORDERS,
        ("POST", "/old/chair", "/old/{item}", 307),
        ("POST", "/orders/chair", "/orders/{item}", 201),
    ]


async def test_the_answer_to_head_has_no_body(client):
    answer = await client.head("/orders")
    assert (answer.status_code, answer.content) == (405, b"")


def test_a_route_behind_a_proxy(arena):
    TestClient(fast, root_path="/proxy").get("/orders")
    assert [request.route for request in arena.requests] == ["/orders"]


def test_starlettes_websocket(arena, starlettes):
    with starlettes.websocket_connect("/orders") as socket:
        assert socket.receive_json() == ["vase"]
    assert seen(arena) == [("WEBSOCKET", "/orders", "/orders", 101)]


def test_starlettes_stream(arena):
    with TestClient(fast).stream("GET", "/events/chair") as response:
        lines = response.iter_lines()
        assert next(lines) == "data: one"
        assert seen(arena) == [("GET", "/events/chair", "", 200)]
    assert seen(arena) == [("GET", "/events/chair", "/events/{name}", 200)]
    assert "chair" in CLOSED


@pytest.mark.expect("PendingWorkError", at='await client.get("/orders")')
async def test_litestars_async_client_blocks_the_loop(vase):
    async with AsyncTestClient(lite) as client:
        await client.get("/orders")


async def test_litestars_async_client(arena, db_session):
    db_session.add(Order(item="vase"))
    await db_session.commit()
    async with AsyncTestClient(lite) as client:
        assert (await client.get("/orders")).json() == ["vase"]
    assert seen(arena) == [ORDERS]


@pytest.mark.parametrize("arena_app", [lite])
def test_sync_clients_of_litestar(arena, arena_app, test_client, sync_vase):
    with LitestarClient(lite) as own_client:
        for client in (own_client, test_client, test_client):
            assert client.get("/orders").json() == ["vase"]
    assert seen(arena) == [ORDERS] * 3
    assert LOOPS[-1] is LOOPS[-2]


@pytest.mark.expect("A101", at=None)
def test_a_plain_test_cannot_await(client):
    client.get("/orders")


def test_flasks_client(arena, sync_vase):
    client = flask.test_client()
    assert client.get("/orders").json == ["vase"]
    assert client.get("/lines").text == "vase\n"
    assert client.get("/nowhere").status_code == 404
    assert seen(arena) == [ORDERS, ("GET", "/lines", "/lines", 200), ("GET", "/nowhere", "", 404)]


@asynccontextmanager
async def served(app):
    """A server of the suite, in a thread."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:  # noqa: ASYNC110 - the server has no event for it
        await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await asyncio.to_thread(thread.join)


async def test_uvicorn(arena, vase):
    async with served(fast) as url, httpx2.AsyncClient(base_url=url) as client:
        assert (await client.get("/orders")).json() == ["vase"]
    assert seen(arena) == [ORDERS]


async def test_httpx_ws(arena, vase):
    httpx_ws = pytest.importorskip("httpx_ws")
    transports = pytest.importorskip("httpx_ws.transport")
    async with (
        httpx.AsyncClient(transport=transports.ASGIWebSocketTransport(fast)) as client,
        httpx_ws.aconnect_ws("http://own/orders", client) as socket,
    ):
        assert await socket.receive_json() == ["vase"]
    assert seen(arena) == [("WEBSOCKET", "/orders", "/orders", 101)]


async def test_our_client(arena, client, vase):
    assert (await client.get("/orders")).json() == ["vase"]
    response = await client.post("/old/chair", follow_redirects=True)
    assert seen(arena)[1:] == [
        ("POST", "/old/chair", "/old/{item}", 307),
        ("POST", "/orders/chair", "/orders/{item}", 201),
    ]
    assert arena.changes(response).tables == ("orders", "stock")


@pytest.mark.expect("PendingWorkError", at='client.get("/orders")')
async def test_a_sync_client_that_hides_the_error(vase):
    client = TestClient(fast, raise_server_exceptions=False)
    assert client.get("/orders").status_code == 500


async def test_a_sync_client_in_a_thread(arena, vase):
    assert (await asyncio.to_thread(TestClient(fast).get, "/orders")).json() == ["vase"]
    assert seen(arena) == [ORDERS]


async def test_our_client_in_the_loop_of_a_thread(arena, client, vase):
    assert (await asyncio.to_thread(asyncio.run, client.get("/orders"))).json() == ["vase"]
    assert seen(arena) == [ORDERS]


class TestStreams:
    """An answer without end."""

    @pytest.fixture
    def arena_app(self):
        return fast

    async def test_our_clients_stream(self, arena, client):
        CLOSED.clear()
        async with client.stream("GET", "/events/lamp") as response:
            assert await anext(response.aiter_lines()) == "data: one"
            assert CLOSED == []
        assert CLOSED == ["lamp"]
        assert seen(arena) == [("GET", "/events/lamp", "/events/{name}", 200)]
        assert {row.after["item"] for row in arena.changes(response)} == {"lamp"}

    async def test_a_stream_that_never_waits_ends_with_its_client(self, client):
        async with client.stream("GET", "/fast") as response:
            assert await anext(response.aiter_bytes()) == b"part"

    async def test_an_error_between_two_parts(self, arena, client):
        async with client.stream("GET", "/fails") as response:
            with pytest.raises(LookupError, match="no third part"):
                await response.aread()
        assert arena.requests[-1].error == "LookupError: no third part"

    @pytest.mark.expect("LateWorkWarning")
    async def test_an_error_that_the_client_does_not_raise(self, arena):
        client = arena.client(raise_app_exceptions=False, base_url="http://shop.test")
        answer = await client.get("/fails")
        assert (answer.text, answer.url.host) == ("one;", "shop.test")

    async def test_a_timeout_around_a_stream_closes_it(self, client):
        CLOSED.clear()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05), client.stream("GET", "/events/lamp") as response:
                async for _ in response.aiter_lines():
                    await asyncio.sleep(0)
        assert CLOSED == ["lamp"]

    async def test_a_timeout_before_an_answer_ends_the_app(self, client):
        CLOSED.clear()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await client.get("/waits")
        assert CLOSED == ["waits"]

    async def test_a_stream_that_is_left_open(self, client):
        CLOSED.clear()
        await client.send(client.build_request("GET", "/events/lamp"), stream=True)
        assert CLOSED == []

    def test_the_stream_is_closed_with_its_test(self):
        assert CLOSED == ["lamp"]

    # SQLAlchemy before 2.0.55 still uses the connection that a cancellation has closed.
    @pytest.mark.filterwarnings("ignore:(?s).*no active connection")
    @pytest.mark.parametrize("turn", range(5))
    def test_a_websocket_that_is_left_in_a_statement(self, test_client, turn):
        with test_client.websocket_connect("/names") as socket:
            assert socket.receive_json() == []

    async def test_the_live_servers_stream(self, arena, live_server):
        CLOSED.clear()
        url = f"{live_server.url}/events/lamp"
        async with httpx2.AsyncClient() as client, client.stream("GET", url) as response:
            assert await anext(response.aiter_lines()) == "data: one"
        while not arena.requests[-1].seconds:  # noqa: ASYNC110 - the app has no event for it
            await asyncio.sleep(0.01)
        assert seen(arena) == [("GET", "/events/lamp", "/events/{name}", 200)]


def test_a_block_of_a_scenario_in_a_run_without_specifications(scenario, test_client):
    with scenario.then("there is no order"):
        assert test_client.get("/orders").json() == []

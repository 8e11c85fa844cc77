"""Other ASGI frameworks on the same engine, asked by their own test clients."""

import pytest
from async_app import items, maker
from litestar import Litestar, get, post
from litestar.testing import AsyncTestClient
from litestar.testing import TestClient as LitestarClient
from models import Order
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient


@get("/orders")
async def orders() -> list[str]:
    async with maker() as session:
        return await items(session)


@post("/orders/chair")
async def order() -> None:
    async with maker.begin() as session:
        session.add(Order(item="chair"))


async def of_starlette(request):
    async with maker.begin() as session:
        if request.method == "POST":
            session.add(Order(item="chair"))
        return JSONResponse(await items(session))


litestar = Litestar([orders, order], logging_config=None)
methods = ["GET", "POST"]
starlette = Starlette(routes=[Route("/{path:path}", of_starlette, methods=methods)])


@pytest.fixture
def vase(db_session):
    db_session.add(Order(item="vase"))
    return db_session


@pytest.mark.parametrize("client", [LitestarClient(litestar), TestClient(starlette)])
def test_a_sync_client(client, vase, arena):
    with client:
        assert client.get("/orders").json() == ["vase"]
        assert client.post("/orders/chair").status_code in {200, 201}
        assert client.get("/orders").json() == ["vase", "chair"]
    assert [request.path for request in arena.requests] == ["/orders", "/orders/chair", "/orders"]


async def test_litestars_async_client(vase, arena):
    await vase.commit()  # the client blocks the loop
    async with AsyncTestClient(litestar) as client:
        assert (await client.get("/orders")).json() == ["vase"]
        await client.post("/orders/chair")
    assert [request.status for request in arena.requests] == [200, 201]
    assert await items(vase) == ["vase", "chair"]

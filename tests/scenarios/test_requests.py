"""What is known of each request that reaches the app, and of who has looked at its answer?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.scenarios.proving import told
from tests.scenarios.seen import facts_of, seeing

if TYPE_CHECKING:
    from tests.scenarios.proving import Told

SHOPS = """
from fastapi import APIRouter, FastAPI, Request, WebSocket
from litestar import Litestar, get
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

shop, router, below = FastAPI(), APIRouter(prefix="/v1"), FastAPI()

@router.post("/items/{item_id}")
async def item(item_id: int, request: Request) -> int:
    await request.body()
    return item_id

@below.get("/all/{kind}")
async def everything(kind: str) -> str:
    return kind

@shop.websocket("/live/{room}")
async def live(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.close()

@shop.get("/broken")
async def broken() -> None:
    raise LookupError

shop.include_router(router)
shop.mount("/below", below)

async def answer(request):
    return PlainTextResponse("here")

@get("/items/{item_id:int}", sync_to_thread=False)
def in_litestar() -> str:
    return "here"

plain = Starlette(routes=[Mount("/a", routes=[Route("/items/{item_id}", answer)])])
lite = Litestar([in_litestar], logging_config=None)
"""

TESTS = """
from starlette.testclient import TestClient
from shops import lite, plain, shop


@pytest.fixture(params=["shop", "plain", "lite"])
def arena_app(request):
    return {"shop": shop, "plain": plain, "lite": lite}[request.param]


@proves
@pytest.mark.parametrize("arena_app", ["shop"], indirect=True)
def test_all_ways(arena_app, arena):
    client = TestClient(arena_app, raise_server_exceptions=False)
    client.post("/v1/items/7", content=b"chair")
    client.get("/below/all/old?a=b")
    client.get("/nowhere")
    client.get("/broken")
    with client.websocket_connect("/live/one"):
        pass
    assert len(arena.requests) == 5  # the test's own story knows the same ones, once


@proves
@pytest.mark.parametrize("arena_app", ["plain"], indirect=True)
def test_of_starlette(arena_app):
    TestClient(arena_app).get("/a/items/7")


@proves
@pytest.mark.parametrize("arena_app", ["lite"], indirect=True)
def test_of_litestar(test_client):
    test_client.get("/items/7")
    test_client.get("/item/7")


@proves
@pytest.mark.parametrize("arena_app", ["shop"], indirect=True)
def test_looks(test_client):
    looks = ("status_code", "text", "headers", "json", "is_success")
    for look in looks:
        response = test_client.get("/below/all/old")
        before = type(response)
        getattr(response, look)
        assert (type(response) is before, before.__name__) == (False, "Response")
        assert response.json() == "old"
    test_client.get("/below/all/old")
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """One run of all of them."""
    example = seeing(tmp_path_factory.mktemp("shops"), TESTS).with_files(shops=SHOPS)
    return told(example, "-o", "arena_app=")


def lines(run: Told, name: str) -> list[str]:
    """Each as ``GET /path /{route} 200``."""
    requests: list[dict[str, Any]] = facts_of(run, name)["requests"]
    return [
        f"{one['method']} {one['path']} {one['route'] or '-'} {one['status']}" for one in requests
    ]


def test_each_request_is_told_once_with_its_route_and_status(run: Told) -> None:
    """Also those of mounted apps, of websockets, of paths that are not there, and broken ones."""
    assert lines(run, "all_ways") == [
        "POST /v1/items/7 /v1/items/{item_id} 200",
        "GET /below/all/old /below/all/{kind} 200",
        "GET /nowhere (no route) 404",
        "GET /broken /broken 500",
        "WEBSOCKET /live/one /live/{room} 101",
    ]


def test_starlette_and_litestar_say_their_routes(run: Told) -> None:
    """Each in its own way."""
    assert lines(run, "of_starlette") == ["GET /a/items/7 /a/items/{item_id} 200"]
    assert lines(run, "of_litestar") == [
        "GET /items/7 /items/{item_id} 200",
        "GET /item/7 (no route) 404",
    ]


def test_a_look_at_an_answer_is_noted_and_its_class_is_its_own_again(run: Told) -> None:
    """Whichever look it is; the last answer was looked at by nobody."""
    assert run.run.status == 0, run.run.output
    requests = facts_of(run, "looks")["requests"]
    assert [one["observed"] for one in requests] == [True] * 5 + [False]

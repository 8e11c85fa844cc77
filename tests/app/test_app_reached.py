"""Who comes in at the door of an app, by whichever client?"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from fastapi import APIRouter, FastAPI, Request, WebSocket
from litestar import Litestar, get
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

from pytest_arena._app import Door, Reached, request_now, unwrapped
from pytest_arena._app._observed import observe

if TYPE_CHECKING:
    from collections.abc import Iterator


class Noting:
    """Notes what it is told."""

    wants_bodies = True

    def __init__(self, app: object) -> None:
        self.app = app
        self.told: list[Reached] = []
        self.under_way: list[Reached | None] = []

    def is_under_test(self, app: object) -> bool:
        """Whether it is the one, or in it."""
        return any(app is one for one in unwrapped(self.app))

    def begins(self, request: Reached) -> None:
        """It is under way from here on."""
        self.under_way.append(request_now())
        self.told.append(request)

    def sending(self, _request: Reached, send: Any) -> Any:
        """Changes nothing."""
        return send

    def answers(self, request: Reached) -> None:
        """Its status is known then."""
        assert request.status is not None

    def ends(self, request: Reached) -> None:
        """It is not, any more."""
        assert request.is_over
        self.under_way.append(request_now())


@pytest.fixture
def doors() -> Iterator[list[Door]]:
    """Doors that a test has opened, closed at its end."""
    opened: list[Door] = []
    yield opened
    for door in opened:
        door.close()


def watched(app: Any, doors: list[Door]) -> Noting:
    """Whoever is told of who comes to this app."""
    noting = Noting(app)
    doors.append(Door(noting))
    doors[-1].watch(app)
    doors[-1].open()
    return noting


def shop() -> FastAPI:
    """Routes of a router, of a mounted app, and a websocket."""
    app, router, below = FastAPI(), APIRouter(prefix="/v1"), FastAPI()

    @router.post("/items/{item_id}")
    async def item(item_id: int, request: Request) -> int:
        await request.body()
        return item_id

    @below.get("/all/{kind}")
    async def everything(kind: str) -> str:
        return kind

    @app.websocket("/live/{room}")
    async def live(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.close()

    @app.get("/broken")
    async def broken() -> None:
        raise LookupError

    app.include_router(router)
    app.mount("/below", below)
    return app


def lines(noting: Noting) -> list[str]:
    """Each as ``GET /path /{route} 200``."""
    return [f"{one.method} {one.path} {one.route or '-'} {one.status}" for one in noting.told]


def test_each_request_is_told_once_with_its_route_and_status(doors: list[Door]) -> None:
    """Also those of mounted apps, of websockets, of paths that are not there, and broken ones."""
    noting = watched(app := shop(), doors)
    client = TestClient(app, raise_server_exceptions=False)
    client.post("/v1/items/7", content=b"chair")
    client.get("/below/all/old?a=b")
    client.get("/nowhere")
    client.get("/broken")
    with client.websocket_connect("/live/one"):
        pass
    assert lines(noting) == [
        "POST /v1/items/7 /v1/items/{item_id} 200",
        "GET /below/all/old /below/all/{kind} 200",
        "GET /nowhere - 404",
        "GET /broken /broken 500",
        "WEBSOCKET /live/one /live/{room} 101",
    ]
    assert (noting.told[0].body, noting.told[1].query) == (b"chair", "a=b")
    assert noting.under_way == [one for told in noting.told for one in (told, None)]


def test_another_app_of_the_same_class_is_another_app(doors: list[Door]) -> None:
    """By identity, and not by its routes."""
    noting = watched(shop(), doors)
    TestClient(shop()).get("/below/all/old")
    assert noting.told == []


def test_an_app_in_middleware_is_told_of_once(doors: list[Door]) -> None:
    """Whether a client calls the middleware or what is in it."""
    inner = shop()
    noting = watched(CORSMiddleware(inner, allow_origins=["*"]), doors)
    TestClient(noting.app).get("/below/all/old")  # type: ignore[arg-type]  # an app
    TestClient(inner).get("/below/all/new")
    assert [one.path for one in noting.told] == ["/below/all/old", "/below/all/new"]


def test_starlette_and_litestar_say_their_routes(doors: list[Door]) -> None:
    """Each in its own way."""

    async def answer(_request: Any) -> PlainTextResponse:
        return PlainTextResponse("here")

    @get("/items/{item_id:int}", sync_to_thread=False)
    def item() -> str:
        return "here"

    routes = [Mount("/a", routes=[Route("/items/{item_id}", answer)])]
    noting = watched(app := Starlette(routes=routes), doors)
    TestClient(app).get("/a/items/7")
    assert lines(noting) == ["GET /a/items/7 /a/items/{item_id} 200"]
    lite = Litestar([item], logging_config=None)
    noting = watched(lite, doors)

    async def ask() -> None:
        transport = httpx2.ASGITransport(lite)  # type: ignore[arg-type]  # it has types of its own
        async with httpx2.AsyncClient(transport=transport, base_url="http://x") as client:
            await client.get("/items/7")

    asyncio.run(ask())
    assert lines(noting) == ["GET /items/7 /items/{item_id} 200"]


def test_a_closed_door_leaves_the_class_as_it_was(doors: list[Door]) -> None:
    """Also one that has its calls from the class above."""

    class Own(FastAPI):
        pass

    before = FastAPI.__call__
    watched(Own(), doors)
    watched(FastAPI(), doors)
    assert "__call__" in vars(Own)
    assert FastAPI.__call__ is not before
    for door in doors:
        door.close()
    assert "__call__" not in vars(Own)
    assert FastAPI.__call__ is before


@pytest.mark.parametrize("look", ["status_code", "text", "headers", "json", "is_success"])
def test_a_look_at_an_answer_is_noted_and_its_class_is_its_own_again(look: str) -> None:
    """Until then it is an instance of that class all the same."""
    request = Reached("GET", "/", "", None, is_login=False)
    response = httpx2.Response(200, json=["Storm"])
    observe(response, request)
    assert isinstance(response, httpx2.Response)
    before = request.is_observed
    getattr(response, look)
    assert (before, request.is_observed) == (False, True)
    assert type(response) is httpx2.Response
    assert response.json() == ["Storm"]

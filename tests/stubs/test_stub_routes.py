"""Is the route found that a path in a step means, in any of the frameworks?"""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from litestar import Litestar, Router, WebSocket, get, post, websocket
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.routing import Host, Mount, Route, WebSocketRoute

from pytest_arena import _values
from pytest_arena._app._routes import routes
from pytest_arena.scenarios.stubs._found_routes import find_route, nearest_route

ROUTES = (
    _values.Route("/battles/{battle_id}", "GET", "show_battle"),
    _values.Route("/battles/{battle_id}/start", "POST", "start_battle"),
    _values.Route("/battles/next", "GET", "show_next"),
    _values.Route("/files/{rest:path}", "GET", "show_file"),
    _values.Route("/", "GET", "show_all"),
)


@pytest.mark.parametrize(
    "verb, path, name",
    [
        ("POST", "/battles/{battle_id}/start", "start_battle"),
        ("POST", "/battles/{id}/start", "start_battle"),
        ("POST", "/battles/7/start/", "start_battle"),
        ("POST", "/battles/<id>/start?quick=1", "start_battle"),
        ("", "/battles/7/start", "start_battle"),
        ("GET", "/battles/7", "show_battle"),
        ("GET", "/battles/next", "show_next"),
        ("", "/files/a/b/c", "show_file"),
        ("", "/", "show_all"),
        ("GET", "/battles/7/start", None),
        ("", "/battle/7", None),
        ("", "/files", None),
    ],
)
def test_a_path_means_the_route_that_a_request_would_reach(
    verb: str, path: str, name: str | None
) -> None:
    """By its parts; what is in braces or pointed brackets is any value."""
    found = find_route(verb, path, ROUTES)
    assert (found.name if found else None) == name


@pytest.mark.parametrize(
    "verb, path, name",
    [
        ("POST", "/battle/{id}/start", "start_battle"),
        ("GET", "/battles/7/start", "start_battle"),
        ("GET", "/quite/another/thing/altogether", None),
    ],
)
def test_a_path_that_leads_nowhere_has_a_nearest_route(
    verb: str, path: str, name: str | None
) -> None:
    """A misspelt one, or another verb; none where nothing is like it."""
    near = nearest_route(verb, path, ROUTES)
    assert (near.name if near else None) == name


def answer(*_: Any) -> None:
    """Stand for any function of an app."""


class Things(HTTPEndpoint):
    """Answers two verbs."""

    get = post = answer


def described(app: object) -> list[str]:
    """The routes of an app, each as a line."""
    return [f"{route.method} {route.path} {route.name}" for route in routes(app)]


def test_routes_of_starlette_with_what_is_mounted() -> None:
    """Mounted routes, mounted apps, hosts, sockets, classes that answer."""
    inner = [Route("/a", answer, methods=["POST"]), WebSocketRoute("/w", answer)]
    app = Starlette(
        routes=[
            Route("/things/{id:int}", Things, name="things"),
            Mount("/deep", routes=[Mount("/er", routes=inner)]),
            Mount("/app", app=Starlette(routes=[Route("/", answer)])),
            Host("api.example", app=Starlette(routes=[Route("/h", answer)])),
            Mount("/static", app=answer),  # type: ignore[arg-type]  # no app either
        ]
    )
    assert described(app) == [
        "GET /app/ answer",
        "POST /deep/er/a answer",
        "WEBSOCKET /deep/er/w answer",
        "GET /h answer",
        "GET /things/{id} things",
        "POST /things/{id} things",
    ]


def test_routes_of_fastapi_with_included_routers() -> None:
    """Routers in routers, which newer versions keep apart; and what is mounted in them."""
    inner, outer = APIRouter(prefix="/inner"), APIRouter(prefix="/outer")
    inner.delete("/{id}")(answer)
    inner.websocket("/w")(answer)
    outer.api_route("/both", methods=["GET", "PUT"])(answer)
    outer.include_router(inner)
    app = FastAPI(openapi_url=None)
    app.include_router(outer, prefix="/v1")
    assert described(app) == [
        "GET /v1/outer/both answer",
        "PUT /v1/outer/both answer",
        "WEBSOCKET /v1/outer/inner/w answer",
        "DELETE /v1/outer/inner/{id} answer",
    ]


def test_routes_of_litestar() -> None:
    """Types of parameters are left out, but the one that takes all the rest."""

    @post("/start")
    async def start() -> None: ...

    @get(["/", "/also"], name="the_show")
    async def show() -> None: ...

    @get("/files/{rest:path}")
    async def files() -> None: ...

    @websocket("/live")
    async def live(socket: WebSocket[Any, Any, Any]) -> None: ...

    battles = Router("/battles/{number:int}", route_handlers=[start, show])
    app = Litestar([battles, files, live], openapi_config=None)
    assert described(app) == [
        "GET /battles/{number} the_show",
        "GET /battles/{number}/also the_show",
        "POST /battles/{number}/start start",
        "GET /files/{rest:path} files",
        "WEBSOCKET /live live",
    ]


def test_middleware_around_an_app_is_looked_through() -> None:
    """An app of another kind has no routes that anybody knows of."""

    class Around:
        def __init__(self, app: object) -> None:
            self.app = app

    app = Starlette(routes=[Route("/a", answer)])
    assert described(Around(Around(app))) == ["GET /a answer"]
    assert described(answer) == described(object()) == []
    circle = Around(None)
    circle.app = circle
    assert described(circle) == []

"""Apps that tell what happens to them, and hooks that write it down."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from fastapi import FastAPI
from litestar import Litestar, get
from litestar import Request as LitestarRequest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket as StarletteWebSocket

from pytest_arena import _ledger
from pytest_arena._app._app_run import AppRun
from pytest_arena._app._entry import OpenRequest


class Open(Protocol):
    """Opens a run of an app, the sample app by default, which is closed after the test."""

    def __call__(self, app: object = ..., **options: Any) -> AppRun:
        """Options are those of `AppRun`."""


class AppError(Exception):
    """What a sample app raises when it is asked to."""


class _Answer:
    """An answer of which nothing is noted."""

    def note_sent(self, message: object) -> None:
        """The app has sent a message."""

    def end(self, error: Exception | None) -> None:
        """The app has returned or raised."""


@dataclass
class Diary:
    """Hooks that note each call, in order."""

    lines: list[str] = field(default_factory=list)
    records: list[_ledger.Request] = field(default_factory=list)
    loops: list[asyncio.AbstractEventLoop] = field(default_factory=list)
    ended: list[_ledger.Request] = field(default_factory=list)
    opened: list[OpenRequest] = field(default_factory=list)
    refusal: Exception | None = None
    faults: list[Any] = field(default_factory=list)
    owner: None = None

    async def aprepare_request(self) -> None:
        """Note that pending work would be committed here."""
        self.lines.append("before")
        self.loops.append(asyncio.get_running_loop())
        if self.refusal:
            raise self.refusal

    def prepare_request(self) -> None:
        """Note the same for a sync client."""
        self.lines.append("before_sync")
        if self.refusal:
            raise self.refusal

    async def acommit_for_others(self) -> None:
        """Note the same for another client."""
        self.lines.append("before_other")

    def begin_lifespan(self) -> None:
        """The app is about to start."""

    def begin_request(self, request: _ledger.Request) -> _Answer:
        """Keep the record."""
        self.lines.append(f"{request.method} {request.path}")
        self.records.append(request)
        return _Answer()

    def end_request(self, request: _ledger.Request) -> None:
        """Keep the record of a request that is over."""
        self.ended.append(request)

    def note_open(self, request: OpenRequest) -> None:
        """Keep the open request."""
        self.opened.append(request)

    def note_app_error(self, request: _ledger.Request, error: Exception) -> None:
        """The app has raised instead of answering."""

    def note_handled_error(self, request: _ledger.Request, trace: object) -> None:
        """The app has answered an exception."""

    def note_cut_off(self, line: str) -> None:
        """A websocket's handler was cancelled."""


Step = Callable[[], Awaitable[None]]


@dataclass
class Life:
    """An app's lifespan: what it did, where, and what it is to do besides."""

    at_start: Step | None = None
    at_stop: Step | None = None
    lines: list[str] = field(default_factory=list)
    loops: list[asyncio.AbstractEventLoop] = field(default_factory=list)
    tasks: list[object] = field(default_factory=list)
    begun: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def counts(self) -> tuple[int, int]:
        """How often the app has started, and how often it has shut down."""
        return self.lines.count("start"), self.lines.count("stop")

    @asynccontextmanager
    async def span(self, _app: object) -> AsyncIterator[dict[str, Any]]:
        """Be the lifespan that a framework is given."""
        self._note("start")
        self.begun.set()
        if self.at_start:
            await self.at_start()
        try:
            yield {"run": self.lines.count("start"), "shared": self.lines}
        finally:
            # A real clean-up awaits, too.
            await asyncio.sleep(0)
            if self.at_stop:
                await self.at_stop()
            self._note("stop")

    def _note(self, line: str) -> None:
        self.lines.append(line)
        self.loops.append(asyncio.get_running_loop())
        self.tasks.append(asyncio.current_task())


async def fail() -> None:
    """Be the fault in a lifespan."""
    raise AppError("the cellar is flooded")


async def hang() -> None:
    """Wait for what never comes."""
    await asyncio.Event().wait()


def starlette_app(life: Life) -> Starlette:
    """Answer with what the app sees of itself."""
    routes = [
        Route("/", _hello),
        Route("/state", _state),
        Route("/loop", _loop),
        Route("/fail", _fail),
        Route("/old", _old),
        Route("/login", _login, methods=["POST"]),
        Route("/me", _me),
        WebSocketRoute("/ws", _echo),
    ]
    return Starlette(routes=routes, lifespan=life.span)


async def _hello(_: Request) -> Response:
    return PlainTextResponse("hello")


async def _state(request: Request) -> Response:
    seen = {"run": getattr(request.state, "run", None), "mark": getattr(request.state, "mark", 0)}
    request.state.mark = 1  # of this request alone: the copy is shallow, but a copy
    return JSONResponse(seen)


async def _loop(_: Request) -> Response:
    return JSONResponse(id(asyncio.get_running_loop()))


async def _fail(_: Request) -> Response:
    raise AppError("no such horse")


async def _old(_: Request) -> Response:
    return RedirectResponse("/", status_code=303)


async def _login(request: Request) -> Response:
    response = PlainTextResponse("welcome")
    response.set_cookie("user", (await request.json())["user"])
    return response


async def _me(request: Request) -> Response:
    return PlainTextResponse(request.cookies.get("user", "nobody"))


async def _echo(websocket: StarletteWebSocket) -> None:
    await websocket.accept()
    user = websocket.cookies.get("user", "nobody")
    await websocket.send_text(f"{await websocket.receive_text()} from {user}")
    await websocket.close()


def fastapi_app(life: Life) -> FastAPI:
    """The same for FastAPI, as far as it is needed."""
    return FastAPI(lifespan=life.span)


def litestar_app(life: Life) -> Litestar:
    """The same for Litestar, as far as it is needed."""

    @get("/state")
    async def state(request: LitestarRequest[Any, Any, Any]) -> dict[str, Any]:
        return {"run": request.app.state.get("run")}

    return Litestar(route_handlers=[state], lifespan=[life.span], openapi_config=None)

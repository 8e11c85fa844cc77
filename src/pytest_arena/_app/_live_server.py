"""The app under a real server, in this process: for browsers, and whatever else needs a socket."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Generic, Protocol, cast
from weakref import WeakSet

from pytest_arena._app import _app_errors
from pytest_arena._app._client import hop, http_library, reporting, sending
from pytest_arena._app._exchange import ACCEPTED, REFUSED
from pytest_arena._origin import OUR_TASK, SERVER_THREAD
from pytest_arena._process import running_loop, until

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx2 as httpx
    from typing_extensions import TypeVar  # has a default; SQLAlchemy requires it

    from pytest_arena._app._app_run import AppRun
    from pytest_arena._app._kind import Message, Scope

    C = TypeVar("C", bound="httpx.AsyncClient | httpx.Client", default="httpx.Client")
else:
    from typing import TypeVar

    C = TypeVar("C")

__tracebackhide__ = True  # a traceback of the app or of a test ends at its own line

_HOST = "127.0.0.1"
_START_SECONDS, _END_SECONDS = 10.0, 5.0
_PATIENCE = 1.0  # seconds for a request that is ended
_BEHIND = 0.05  # seconds that an answer waits for what the app does behind it
_IDLE_SECONDS = 3600  # that a browser's connection may wait for its next request
_STARTS = {"http.response.start", "websocket.accept", "websocket.close"}


class Turnstile(Protocol):
    """Which app answers a request that comes by a socket? That of the test which runs."""

    def open(self) -> AppRun | None:
        """Return it, None where no test runs."""

    def commit(self) -> None:
        """Commit what the sync sessions of the test have pending; called in its thread."""


class LiveServer(Generic[C]):
    """The app, served by uvicorn on a free port of this machine, in a thread of this process.

    Each request is answered by the app of the test that runs, on that test's database: recorded,
    told in its report and counted as evidence, as those of the in-process clients are. What is
    pending in an async ``db_session`` is committed before each; in a sync one where ``url`` is
    read and before requests of ``client()``. An app that raises answers 500, and a failed test's
    report has its traceback.

    It begins when it is first asked for, and goes on until the run ends: connections that a browser
    keeps open go from test to test. When a test has ended, and its function-scoped fixtures with
    it, its requests are waited for as other late work is (``arena_settle``); what goes on then is
    ended and named, before the database is taken back. Who asks between two tests is answered 503.

    Cost: some 100 ms once, then nothing for a test that does not use it.

    To a type checker ``client()`` returns a ``Client``; that of ``LiveServer[httpx2.AsyncClient]``
    the other.

    Example::

        def test_order(live_server, page):  # of pytest-playwright
            page.goto(f"{live_server.url}/orders")
            page.get_by_role("button", name="Buy").click()

        def test_api(live_server):
            assert live_server.client().get("/orders").status_code == 200
    """

    __module__ = "pytest_arena"

    def __init__(self, turnstile: Any, *, port: int = 0) -> None:
        self._turnstile: Turnstile = turnstile
        self._under_way: dict[asyncio.Task[Any], str] = {}
        self._ended: WeakSet[asyncio.Task[Any]] = WeakSet()  # by us
        self.process: int = os.getpid()
        try:
            self._socket = socket.create_server((_HOST, port))
        except OSError as error:
            raise _app_errors.no_port(port, error) from None
        # For its connections: asyncio sets it where a socket names its protocol, which this does
        # not; without it each answer waits 40 ms for the client's kernel.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._server = self._uvicorn()
        self._begin()

    @property
    def port(self) -> int:
        """The port on 127.0.0.1."""
        return int(self._socket.getsockname()[1])

    @property
    def url(self) -> str:
        """Where it is: ``http://127.0.0.1:…``. What a sync session has pending is committed."""
        self._turnstile.commit()
        return f"http://{_HOST}:{self.port}"

    @property
    def ws_url(self) -> str:
        """The same for websockets: ``ws://127.0.0.1:…``."""
        return self.url.replace("http", "ws", 1)

    def start(self, app_run: AppRun) -> None:
        """Wait until an app is up, in the server's loop unless it runs already.

        Raises:
            LifespanError: from the app's exception.
        """
        asyncio.run_coroutine_threadsafe(app_run.ajoin(), self.loop).result()

    def client(self, **options: Any) -> C:
        """Return a client of the HTTP library, closed at the test's end.

        An ``AsyncClient`` where an event loop runs, else a ``Client``, with that class's options.

        Raises:
            ConfigError: there is no HTTP library.
        """
        app_run, library = self._turnstile.open(), http_library()
        kind: Any = library.Client
        commit: Callable[[object], object] = self._commit
        if running_loop() is not None:
            kind, commit = library.AsyncClient, self._acommit
        usual = {
            "base_url": self.url,
            "trust_env": False,
            "verify": _trusted(library),
        }  # no proxy
        client = kind(**usual | options)
        hooks = client.event_hooks
        client.event_hooks = {**hooks, "request": [commit, *hooks["request"]]}
        if app_run is not None:
            app_run.by_socket.append(client)
        return cast("C", client)

    def _commit(self, _: object) -> None:
        self._turnstile.commit()

    async def _acommit(self, _: object) -> None:
        self._turnstile.commit()  # the server asks this loop for what is in async sessions

    # The server.

    def _uvicorn(self) -> Any:
        try:
            import uvicorn  # for whom has it
        except ImportError as error:
            self._socket.close()
            raise _app_errors.no_server() from error
        config = uvicorn.Config(
            self._answer,
            interface="asgi3",
            lifespan="off",  # the test's
            log_config=None,
            access_log=False,
            timeout_keep_alive=_IDLE_SECONDS,
            timeout_graceful_shutdown=int(_PATIENCE),
        )
        return uvicorn.Server(config)

    def _begin(self) -> None:
        self._failure: BaseException | None = None
        # A daemon: whatever a request does, the process ends.
        self._thread = threading.Thread(
            target=self._run, name=SERVER_THREAD, daemon=True
        )
        self._thread.start()
        if not until(
            lambda: self._server.started or self._failure, within=_START_SECONDS
        ) or (self._failure is not None):
            self.close()
            raise _app_errors.server_failed(self._failure)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # noqa: BLE001 - SystemExit is uvicorn's way to say it
            self._failure = error

    async def _serve(self) -> None:
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        await self._server.serve(sockets=[self._socket])

    # A request.

    async def _answer(self, scope: Scope, receive: Any, send: Any) -> None:
        task: Any = asyncio.current_task()
        begun: list[Message] = []

        async def sending_on(message: Message) -> None:
            if message["type"] in _STARTS:
                begun.append(message)
            await send(message)

        self._under_way[task] = _shown(
            scope
        )  # first: who ends the test waits for it from here on
        try:
            if (app_run := self._turnstile.open()) is not None:
                await _ask(app_run, scope, receive, sending_on)
            else:
                await _refuse(scope, send)
        except asyncio.CancelledError:
            if task not in self._ended:
                raise
            if not begun:
                await _refuse(scope, send)
        finally:
            self._under_way.pop(task, None)

    def drain(self, patience: float) -> list[str]:
        """Wait for the requests that are under way, then end them. Returns what they asked for."""
        until(lambda: not self._under_way, within=patience)
        left = dict(self._under_way)
        for task in left:
            self._ended.add(task)
            self.loop.call_soon_threadsafe(task.cancel)
        until(lambda: not self._under_way.keys() & left, within=_PATIENCE)
        # What goes on all the same is no request of the next test's.
        return [
            f"{self._under_way.pop(task, asked)}, by a socket"
            for task, asked in left.items()
        ]

    def close(self) -> None:
        """Have it end. Idempotent."""
        self._server.should_exit = True
        self._thread.join(_END_SECONDS)
        self._socket.close()


@cache
def _trusted(library: Any) -> Any:
    """Whom clients trust, should a redirect lead to https: read once, it takes some 20 ms."""
    return library.create_ssl_context()


async def _ask(app_run: AppRun, scope: Scope, receive: Any, send: Any) -> None:
    hooks = app_run.hooks
    try:
        await hooks.aserves()
        await app_run.ajoin()
    except Exception as error:
        hooks.broke(_shown(scope), error)
        raise
    hooks.begins()
    held = _Held(send)
    try:
        with sending(hooks):
            begin = partial(_begin, app_run)
            app = reporting(app_run.app, hooks, known_app=app_run.app, begin=begin)
            await app(scope, receive, held.send)
        hooks.ended()
    finally:
        await held.let_go()


class _Held:
    """An answer that comes at once: it waits for what the app does behind it, but not for long.

    So whoever has the answer asks next when this request is over, and has its changes for itself.
    """

    def __init__(self, send: Any) -> None:
        self._send, self._turn = send, asyncio.Lock()
        self._waiting: list[Message] = []
        self._missing = (
            -1
        )  # announced bytes of the body that are not sent; -1 if not announced

    async def send(self, message: Message) -> None:
        """Send a message, or hold it: how an answer starts, and what is the last of it."""
        self._waiting.append(message)
        if self._is_held(message):
            asyncio.get_running_loop().call_later(_BEHIND, self._begin)
        else:
            await self.let_go()

    def _is_held(self, message: Message) -> bool:
        """Return whether a message may wait. The last byte of the body completes an answer.

        A WSGI app sends that byte, and after it an empty message that ends the answer.
        """
        if message["type"] == "http.response.start":
            lengths = [
                value
                for name, value in message.get("headers", ())
                if name == b"content-length"
            ]
            self._missing = int(lengths[0]) if lengths else -1
        elif message["type"] == "http.response.body":
            self._missing -= len(message.get("body", b""))
        if not message["type"].startswith("http.response"):
            return False
        return not message.get("more_body") or self._missing == 0

    def _begin(self) -> None:
        if self._waiting:
            self._late = asyncio.create_task(
                self.let_go(), name=OUR_TASK
            )  # else it is collected

    async def let_go(self) -> None:
        """The app has finished, or takes its time."""
        async with self._turn:
            while self._waiting:
                await self._send(self._waiting.pop(0))


def _shown(scope: Scope) -> str:
    return f"{scope.get('method', 'WEBSOCKET')} {scope['path']}"


def _begin(app_run: AppRun, scope: Scope, send: Any) -> Any:
    scope["state"] = dict(app_run.state)
    request = hop(scope.get("method", "WEBSOCKET"), scope["path"], None)

    async def noting(message: Message) -> None:
        if message["type"] in _STARTS:
            request.status = message.get("status", _OF_WEBSOCKETS.get(message["type"]))
        # What its reader may leave at any time is no work that goes on late.
        if message["type"] in {"websocket.accept", "http.response.body"}:
            request.is_open = message.get(
                "more_body", message["type"] == "websocket.accept"
            )
        await send(message)

    return noting


_OF_WEBSOCKETS = {"websocket.accept": ACCEPTED, "websocket.close": REFUSED}
_NO_TEST = b"no test runs: what is asked between two tests has no database\n"


async def _refuse(scope: Scope, send: Any) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1012})
        return
    headers = [
        (b"content-type", b"text/plain"),
        (b"content-length", b"%d" % len(_NO_TEST)),
    ]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": _NO_TEST})

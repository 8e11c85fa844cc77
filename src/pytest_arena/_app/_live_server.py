"""Serves the app with uvicorn, for browsers and other clients."""

from __future__ import annotations

import socket
from asyncio import (
    Event,
    create_task,
    current_task,
    run_coroutine_threadsafe,
    wait_for,
)
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pytest_arena._app._apps import not_installed
from pytest_arena._origin import OUR_TASK, REQUEST
from pytest_arena._owner import Phase, owned_by
from pytest_arena._process import AnyTask, until
from pytest_arena.errors import ConfigError

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable

    from pytest_arena._app._app_run import AppRun
    from pytest_arena._app._apps import ASGIApp, Message, Receive, Scope, Send

_HOST = "127.0.0.1"
CONTROL_PATH = "/__arena__"
_START_SECONDS = 10.0
_PATIENCE = 1.0  # seconds for the end of a cancelled request
_BEHIND = 0.05  # seconds that an answer waits for the end of the app
_IDLE_SECONDS = 3600  # seconds that a browser's connection may be idle


class LiveServer:
    """The app, served by uvicorn on a free port of this machine, in a thread of this process.

    The app of the running test answers each request, on that test's database. pytest-arena records
    the requests, shows them in the report, and counts them as evidence, like requests of in-process
    clients. It commits pending work of an async ``db_session`` before each request. It commits
    pending work of a sync session when the test reads ``url``. If the app raises, the answer is
    500, and the report of a failed test has the app's traceback.

    The server starts at its first use and runs until the end of the run, because browsers keep
    their connections from test to test. After a test and its function fixtures, pytest-arena waits
    for the test's requests (``arena_settle``). It cancels and reports the requests that remain, and
    then restores the database. A request between two tests gets 503.

    Cost: some 100 ms once, then nothing for a test that does not use it.

    Example::

        def test_order(live_server, page):  # of pytest-playwright
            page.goto(f"{live_server.url}/orders")
            page.get_by_role("button", name="Buy").click()

        def test_api(live_server):
            assert httpx2.get(f"{live_server.url}/orders").status_code == 200
    """

    __module__ = "pytest_arena"

    def __init__(
        self,
        current_run: Callable[[], AppRun | None],
        loop: AbstractEventLoop,
        *,
        port: int,
        control: ASGIApp | None,
    ) -> None:
        try:
            import uvicorn  # an extra
        except ImportError as error:
            raise not_installed("the live server", "uvicorn", "live") from error
        self._control = control  # answers requests below `CONTROL_PATH`
        # Returns the app of the running test, None between two tests.
        self._current_run = current_run
        self.loop = loop
        # Requests that the app has not finished.
        self._open: dict[AnyTask, str] = {}
        try:
            self._socket = socket.create_server((_HOST, port))
        except OSError as error:
            raise ConfigError(
                f"cannot listen on port {port} of this machine: {error.strerror}",
                why="tests would talk to another program",
                cause="another program uses the port, perhaps an `arena serve` that still runs",
                fix="--port 0   uses a free port, which the first line of output names",
            ) from None
        # asyncio sets this option only for a socket with a protocol, which this one lacks. Without
        # it each answer waits 40 ms for the client's kernel.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        config = uvicorn.Config(
            self._answer,
            interface="asgi3",
            lifespan="off",  # the test starts the app
            log_config=None,
            access_log=False,
            timeout_keep_alive=_IDLE_SECONDS,
            timeout_graceful_shutdown=int(_PATIENCE),
        )
        self._server = uvicorn.Server(config)
        with owned_by(None):  # it outlives the test that starts it
            serve = self._server.serve(sockets=[self._socket])
            self._served = run_coroutine_threadsafe(serve, self.loop)
        until(lambda: self._server.started or self._served.done(), within=_START_SECONDS)

    @property
    def url(self) -> str:
        """The URL: ``http://127.0.0.1:…``. Reading it commits pending work of sync sessions."""
        if Phase.test is not None:
            Phase.test.commit(is_sync_only=True)
        _, port = self._socket.getsockname()
        return f"http://{_HOST}:{port}"

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._control is not None and scope["path"].startswith(f"{CONTROL_PATH}/"):
            await self._control(scope, receive, send)
            return
        task: Any = current_task()
        # From now on the end of the test waits for this request.
        self._open[task] = f"{scope.get('method', 'WEBSOCKET')} {scope['path']}"
        try:
            app_run = self._current_run()
            if app_run is not None:
                await _call_app(app_run, scope, receive, send)
            elif scope["type"] == "http":  # uvicorn closes a websocket that gets no message
                await send({"type": "http.response.start", "status": 503})
                await send({"type": "http.response.body", "body": _NO_TEST})
        finally:
            self._open.pop(task, None)

    def drain(self, patience: float) -> list[str]:
        """Wait for the open requests, then cancel them. Return the cancelled requests."""
        until(lambda: not self._open, within=patience)
        left = dict(self._open)
        for task in left:
            self.loop.call_soon_threadsafe(task.cancel)
        until(lambda: not self._open.keys() & left, within=_PATIENCE)
        # Requests that ignored the cancellation are forgotten: the next test must not wait.
        for task in left:
            self._open.pop(task, None)
        return [f"{request}, by a socket" for request in left.values()]


async def _call_app(app_run: AppRun, scope: Scope, receive: Receive, send: Send) -> None:
    """Send one request to the app, which ends before the client has the whole answer."""
    await app_run.ajoin()
    scope["state"] = dict(app_run.state)
    last = _LastPart(send)
    try:
        await app_run.observed(scope, receive, last.send)
    finally:
        await last.end()


class _LastPart:
    """Holds the message that completes an answer until the app has returned, or for some time.

    Then the test sees all changes of the request when the client has the answer.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._returned = Event()
        self._sending: AnyTask | None = None

    async def send(self, message: Message) -> None:
        """Send a message, or hold it."""
        await self.end()
        request = REQUEST.get()
        is_last = request is not None and not request.is_open
        if is_last and message["type"] == "http.response.body":
            self._sending = create_task(self._send_later(message), name=OUR_TASK)
        else:
            await self._send(message)

    async def _send_later(self, message: Message) -> None:
        with suppress(TimeoutError):
            await wait_for(self._returned.wait(), _BEHIND)
        await self._send(message)

    async def end(self) -> None:
        """Send the held message."""
        if self._sending is not None:
            self._returned.set()
            await self._sending


_NO_TEST = b"no test runs: a request between two tests has no database\n"

"""An ASGI transport that hands an answer on part by part, while the app sends it."""

from __future__ import annotations

import sys
from asyncio import (
    Event,
    Queue,
    Semaphore,
    create_task,
    run_coroutine_threadsafe,
    wrap_future,
)
from typing import TYPE_CHECKING, Any

from pytest_arena._process import AnyTask, async_rest, rest
from pytest_arena._process import seconds as now

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Coroutine

    import httpx2 as httpx

    from pytest_arena._app._app_run import AppRun
    from pytest_arena._app._apps import Message, Scope
    from pytest_arena._process import Answer


_PATIENCE = 1.0  # seconds for an app to end after a disconnect or a cancellation
_STEP = 0.0002  # seconds
_SELDOM = 100  # dropped messages after which an app without awaits has to pause


class Transport:
    """Calls the app for a client. Its second base is the HTTP library's class of transports."""

    library: Any
    call_class: Any  # `AppCall`, with the library's class of streams

    def __init__(self, run: AppRun, *, raises: bool) -> None:
        self._run = run
        self._raises = raises

    async def handle_async_request(self, request: httpx.Request) -> Any:
        """Call the app, and return its answer when the answer begins."""
        call = self.call_class(self._run, self._scope(request), request.stream, raises=self._raises)
        await call.in_loop(call.begin())
        headers = call.opening.get("headers", ())
        return self.library.Response(call.opening["status"], headers=headers, stream=call)

    def _scope(self, request: httpx.Request) -> Scope:
        url = request.url
        return {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": request.method,
            "headers": [(name.lower(), value) for name, value in request.headers.raw],
            "scheme": url.scheme,
            "path": url.path,
            "raw_path": url.raw_path.partition(b"?")[0],
            "query_string": url.query,
            "server": (url.host, url.port),
            "client": ("127.0.0.1", 123),
            "root_path": "",
            "state": dict(self._run.state),
        }


class AppCall:
    """A call of the app in a separate task. The client reads the body of its answer from it.

    The app is at most two parts ahead of its reader. The second base is the HTTP library's class of
    streams.
    """

    def __init__(
        self, run: AppRun, scope: Scope, body: AsyncIterable[bytes], *, raises: bool
    ) -> None:
        self._run = run
        self._loop = run.loop
        self._scope = scope
        self._raises = raises
        self._chunks = aiter(body)
        self._task: AnyTask
        self.opening: Message = {}  # the first message of the app
        self._error: BaseException | None = None  # was not raised yet
        self._is_sent = False  # whether the app has the whole request
        self._is_closing = False
        self._begun = Event()
        self._left = Event()  # the client has the whole answer, or has left
        self._parts: Queue[bytes | None] = Queue()
        self._space = Semaphore()
        self._dropped = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the parts of the body. Raise the app's error at the end."""
        while (part := await self.in_loop(self._next())) is not None:
            if part:
                yield part

    async def aclose(self) -> None:
        """Send a disconnect to the app, and cancel it if it does not end. Raise its error."""
        if not self._is_closing:
            self._is_closing = True
            await self.in_loop(self._close(is_quiet=sys.exception() is not None))

    def in_loop(self, step: Coroutine[Any, Any, Answer]) -> Awaitable[Answer]:
        """Return an awaitable that runs a coroutine in the loop of the app."""
        if self._loop is None:
            return step
        return wrap_future(run_coroutine_threadsafe(step, self._loop))

    async def begin(self) -> None:
        """Call the app, and wait until it answers. Raise its error."""
        self._task = create_task(self._run.observed(self._scope, self._receive, self._send))
        self._task.add_done_callback(self._note_end)
        try:
            await self._begun.wait()
        except BaseException:
            self._task.cancel()
            self._is_closing = True
            await self._close(is_quiet=True)
            raise
        if not self.opening:
            self._raise()
            self.opening = {"status": 500}

    def _note_end(self, task: AnyTask) -> None:
        if not task.cancelled():
            self._error = task.exception()
        elif not self._is_closing:
            self._error = ConnectionError("the app was cancelled while it answered")
        if self._error is None and not self._left.is_set():
            self._error = AssertionError("the app returned before its whole answer")
        self._begun.set()
        self._parts.put_nowait(None)

    async def _receive(self) -> Message:
        if self._is_sent:
            await self._left.wait()
            return {"type": "http.disconnect"}
        chunk = await anext(self._chunks, None)
        self._is_sent = chunk is None
        return {"type": "http.request", "body": chunk or b"", "more_body": not self._is_sent}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.opening = message
            self._begun.set()
        elif message["type"] == "http.response.body":
            is_head = self._scope["method"] == "HEAD"
            body = b"" if is_head else message.get("body", b"")
            await self._space.acquire()
            if self._is_closing:
                self._space.release()
                self._dropped += 1
                # Seldom: a cancellation here would leave a generator of the app at its `yield`.
                if self._dropped % _SELDOM == 0:
                    await async_rest(0)
                return
            self._parts.put_nowait(bytes(body))
            if not message.get("more_body", False):
                self._left.set()

    async def _next(self) -> bytes | None:
        part = await self._parts.get()
        self._space.release()
        if part is None:
            self._raise()
        return part

    def _raise(self) -> None:
        error = self._error
        self._error = None  # raised once
        if error is not None and self._raises:
            raise error

    async def _close(self, *, is_quiet: bool) -> None:
        self._left.set()
        self._space.release()
        try:
            for _ in range(2):
                end = now() + _PATIENCE
                while not self._task.done() and now() < end:
                    await async_rest(0)
                    rest(_STEP)  # a sleep of the loop may have a frozen clock
                self._task.cancel()
        finally:
            self._task.cancel()
        if not is_quiet:
            self._raise()

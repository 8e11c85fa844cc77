"""Streams and websockets: the test reads while the app sends."""

from __future__ import annotations

import asyncio
import sys
from asyncio import (
    Event,
    Queue,
    Semaphore,
    create_task,
    ensure_future,
    shield,
    wait_for,
)
from asyncio import wait as wait_for_tasks
from contextlib import suppress
from importlib import import_module
from json import dumps, loads
from typing import TYPE_CHECKING, Any

from pytest_arena._app._kind import ASGIApp, Message, Receive, Scope, Send, is_litestar
from pytest_arena._origin import line_of_coroutine, user_line
from pytest_arena._process import AnyTask, async_rest, rest
from pytest_arena._process import seconds as now
from pytest_arena.errors import redact

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from pytest_arena._ledger import Request

__tracebackhide__ = True  # a traceback of the app or of a test ends at its own line

CALL = "arena_call"  # the key of the `Call` in a response's extensions
# The statuses with which a server accepts or refuses a websocket.
ACCEPTED = 101
REFUSED = 403
_PATIENCE = 1.0  # seconds for an app to end after a disconnect or a cancellation
_STEP = 0.0002  # seconds
_STATEMENT = 0.02  # seconds for an app without a reader to reach its next message
_SELDOM = 100  # after so many unread messages an app without awaits has to pause
# Close codes of a websocket.
_ENDED = 1000
_LOST = 1006


async def read_in_parts(
    app: ASGIApp, scope: Scope, receive: Receive, send: Send
) -> None:
    """Call an app whose reader may cancel it by a scope of anyio. Cancel it only while it sends.

    A scope of anyio cancels each await, also in a clean-up. A driver's thread might then stay in a
    statement, and its waiter would wait for ever.
    """
    from anyio import CancelScope

    is_left = False
    is_sending = Event()

    async def sending(message: Message) -> None:
        is_sending.set()
        if is_left:
            await Event().wait()  # until the task is cancelled
        await send(message)
        is_sending.clear()

    task = ensure_future(app(scope, receive, sending))
    try:
        await shield(task)
    except asyncio.CancelledError:
        is_left = True
        with CancelScope(shield=True):
            with suppress(TimeoutError):
                await wait_for(is_sending.wait(), _STATEMENT)
            task.cancel()
            await wait_for_tasks([task], timeout=_PATIENCE)
        if task.done():
            task.result()  # raises an error of the app's clean-up
        raise


# Lines at which a websocket's handler had to be cancelled. No test waits for them again.
_endless: set[str] = set()


async def end_websocket(
    app: ASGIApp,
    scope: Scope,
    receive: Receive,
    send: Send,
    cut_off: Callable[[str], None],
) -> None:
    """Call an app for a websocket. If a test client cancels the app, first let it end by itself.

    Starlette's test client sends a disconnect at the end of its block, and cancels the app at once.
    An app that still works after a second is cancelled. ``cut_off`` is called with its line.
    """
    from anyio import CancelScope

    is_left = False

    async def sending(message: Message) -> None:
        if is_left:
            # Like uvicorn. Starlette turns this into a WebSocketDisconnect.
            raise ConnectionResetError("the client has closed the websocket")
        await send(message)

    async def handling() -> None:
        await app(scope, receive, sending)

    task = ensure_future(handling())
    try:
        await shield(task)
    except asyncio.CancelledError:
        is_left = True
        with CancelScope(shield=True):
            await _end_by_itself(task, scope["path"], cut_off)
        if task.done() and not task.cancelled():
            error = task.exception()
            if error is not None and not is_disconnect(error):
                raise error from None
        raise


async def _end_by_itself(
    task: asyncio.Task[None], path: str, cut_off: Callable[[str], None]
) -> None:
    end = now() + _PATIENCE
    while not task.done():
        await async_rest(0)
        rest(_STEP)  # not a sleep of the loop, whose clock a test may have frozen
        line = str(line_of_coroutine(task.get_coro()) or "a line that cannot be seen")
        if line in _endless or now() >= end:
            break
    if not task.done():
        _endless.add(line)
        cut_off(f"{line}   WEBSOCKET {path}: its client had left")
        task.cancel()
        await wait_for_tasks([task], timeout=_PATIENCE)


class Exchange:
    """A request that is open until its answer is closed, or the app has finished."""

    request: Any = None  # its record, once it is open
    _hooks: Any = None  # its hooks
    shown = ""  # words for a note if the test leaves it open
    error: BaseException | None = None  # an error of the app that was not raised yet
    is_over = False  # whether the app has finished
    way = "with"
    # Sends a disconnect to a sync client's websocket.
    hang_up: Callable[[], object] = staticmethod(bool)

    def open(
        self, request: Request, hooks: Any, *, hang_up: Callable[[], object] = bool
    ) -> None:
        """Register the open request. ``hang_up`` sends a disconnect."""
        self.request = request
        self.hang_up = hang_up
        self._hooks = hooks
        request.note_open(is_open=True)
        how = "websocket_connect" if request.method == "WEBSOCKET" else "stream"
        what = f"{request.method} {request.path} was open: {self.way} client.{how}(…)"
        self.shown = f"{user_line() or 'a line that cannot be seen'}   {what}"
        hooks.exchanges.append(self)
        if self.is_over:
            self.end()

    def end(self) -> None:
        """End the request. Idempotent."""
        if self.request and self.request.is_open:
            self.request.end(now())
            if self.error is not None:
                self.request.fail(in_words(self.error))
            self._hooks.exchanges.remove(self)
            self._hooks.end_request()


def in_words(error: BaseException) -> str:
    """Return an error as the record of a request shows it."""
    name = type(error).__name__
    try:
        return redact(f"{name}: {error}".removesuffix(": "))
    except Exception:  # noqa: BLE001 - `str` of a user's class may fail, and the app must answer
        return name


def is_disconnect(error: BaseException | None) -> bool:
    """Return whether a framework raises this error to open, refuse or close a websocket."""
    return any(kind.__name__ in _OF_WEBSOCKETS for kind in type(error).__mro__)


_OF_WEBSOCKETS = {"WebSocketDisconnect", "_Upgrade", "ConnectionUpgradeExceptionError"}


class Call(Exchange):
    """A call of the app in a separate task, whose messages the test reads one by one.

    A streaming app is at most two messages ahead of its reader.
    """

    task: AnyTask
    opening: Message  # the first message of the app
    way = "async with"

    def __init__(self, app: ASGIApp, *, is_websocket: bool) -> None:
        self._app = app
        self._is_websocket = is_websocket
        self.inbox: Queue[Message] = Queue()  # of a websocket
        self._outbox: Queue[Message | None] = Queue()
        self._space = Semaphore()
        self._finish: Any = None
        self._is_closing = False
        self._unread = 0

    async def begin(self, answering: Coroutine[object, object, object]) -> bool:
        """Call the app through the library. Return whether it has sent a message."""
        self.task = create_task(answering)
        self.task.add_done_callback(self._over)
        try:
            self.opening = await self.next() or {}
        except BaseException:
            self.task.cancel()
            await self.aclose()
            raise
        return bool(self.opening)

    @property
    def status(self) -> int:
        """The status with which a server would answer."""
        default = ACCEPTED
        if self.opening["type"] == "websocket.close":
            default = REFUSED
        return int(self.opening.get("status", default))

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the app for the library's transport, which gets the messages without the body."""
        if self._is_websocket:
            # The library needs an answer, also if the app does not accept the websocket.
            await send({"type": "http.response.start", "status": 500})
            await send(_LAST)
            self.inbox.put_nowait({"type": "websocket.connect"})
            await self._app(_as_websocket(scope), self.inbox.get, self._put)
            return
        self._finish = send
        is_head = scope["method"] == "HEAD"

        async def sending(message: Message) -> None:
            await self._space.acquire()
            if self._is_closing:
                self._space.release()
                self._unread += 1
                if self._unread % _SELDOM == 0:
                    # Let the loop run. Cancelling here would leave the app's generator at `yield`.
                    await async_rest(0)
                return
            without_body = {**message, "body": b""}
            await send(without_body)
            if message["type"] == _LAST["type"] and not message.get("more_body"):
                self._finish = None
            if is_head:
                message = without_body
            self._outbox.put_nowait(message)

        await self._app(scope, receive, sending)

    async def _put(self, message: Message) -> None:
        if not self._is_closing:
            self._outbox.put_nowait(message)
        await async_rest(0)  # an app without awaits would block the loop

    def _over(self, task: AnyTask) -> None:
        self.is_over = True
        if not task.cancelled():
            self.error = task.exception()
        elif not self._is_closing:
            self.error = ConnectionError("the app was cancelled while it answered")
        if self._is_closing and is_disconnect(self.error):
            self.error = None  # the app's reaction to the disconnect
        self._outbox.put_nowait(None)
        self.end()

    async def next(self) -> Message | None:
        """Return the app's next message, None after its end. Raise the app's error."""
        message = await self._outbox.get()
        self._space.release()
        if message is None:
            self._outbox.put_nowait(None)  # for the next call
            self._raise()
        return message

    def _raise(self) -> None:
        error = self.error
        self.error = None  # raised once
        if error is not None:
            raise error

    async def aclose(self) -> None:
        """Send a disconnect to the app, and cancel it if it does not end. Raise its error."""
        if self._is_closing:
            return
        self._is_closing = True
        self._space.release()
        self.inbox.put_nowait(
            {"type": "websocket.disconnect", "code": _ENDED, "reason": ""}
        )
        try:
            if self._finish is not None and not self.task.done():
                await self._finish(_LAST)
            for _ in range(2):
                end = now() + _PATIENCE
                while not self.is_over and now() < end:
                    await async_rest(0)
                    rest(_STEP)  # not a sleep of the loop, as in `_end_by_itself`
                self.task.cancel()
        finally:
            self.task.cancel()
            self.end()
        if sys.exc_info()[0] is None:
            self._raise()


_LAST: Message = {"type": "http.response.body"}
_GONE: Message = {"code": _LOST, "reason": "the app has ended without closing it"}


def _as_websocket(scope: Scope) -> Scope:
    names = dict(scope["headers"]).get(b"sec-websocket-protocol", b"").decode("latin-1")
    others = {name: value for name, value in scope.items() if name != "method"}
    return others | {
        "type": "websocket",
        "scheme": scope["scheme"].replace("http", "ws"),
        "subprotocols": [name.strip() for name in names.split(",") if name],
        "extensions": {"websocket.http.response": {}},
    }


class Body:
    """The body of a streamed answer. The library's class of streams is its second base."""

    def __init__(self, call: Call) -> None:
        self.aclose = call.aclose
        self._next = call.next

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            message = await self._next()
            if message is None:
                return
            body = message.get("body")
            if body:
                yield bytes(body)


class WebSocket:
    """An open websocket of the async client.

    Reading the next message raises the app's error. After the app has closed the websocket, reading
    raises the ``WebSocketDisconnect`` of its framework, with code and reason. Without Starlette and
    Litestar it raises a ``ConnectionAbortedError``.
    """

    def __init__(self, call: Call, app: object) -> None:
        self._call = call
        self._app = app
        self.accepted_subprotocol: str | None = call.opening.get("subprotocol")

    async def send_text(self, data: str) -> None:
        """Send a text."""
        self._call.inbox.put_nowait({"type": "websocket.receive", "text": data})

    async def send_bytes(self, data: bytes) -> None:
        """Send bytes."""
        self._call.inbox.put_nowait({"type": "websocket.receive", "bytes": data})

    async def send_json(self, data: Any, mode: str = "text") -> None:
        """Send a value as JSON, by a message that is ``text`` or ``binary``."""
        text = dumps(data, separators=(",", ":"), ensure_ascii=False)
        if mode == "text":
            await self.send_text(text)
        else:
            await self.send_bytes(text.encode())

    async def receive(self) -> Message:
        """Wait for the app's next message, and return it in ASGI's form."""
        return _checked(await self._call.next() or _GONE, self._app)

    async def receive_text(self) -> Any:
        """Return the text of the next message."""
        return (await self.receive())["text"]

    async def receive_bytes(self) -> Any:
        """Return the bytes of the next message."""
        return (await self.receive())["bytes"]

    async def receive_json(self, mode: str = "text") -> Any:
        """Return the value of the next message."""
        return loads((await self.receive())["text" if mode == "text" else "bytes"])

    async def close(self, code: int = _ENDED, reason: str = "") -> None:
        """Send a disconnect to the app."""
        message = {"type": "websocket.disconnect", "code": code, "reason": reason}
        self._call.inbox.put_nowait(message)


async def opened(response: Any, app: object) -> WebSocket:
    """Return the websocket. If the app refuses it, raise the framework's WebSocketDisconnect."""
    call: Any = response.extensions.get(CALL)
    if call is None or "status" in call.opening:
        content = (await response.aread()).decode(errors="replace")
        _checked({**_GONE, "reason": f"refused: {response.status_code} {content}"}, app)
    _checked(call.opening, app)
    return WebSocket(call, app)


def _checked(message: Message, app: object) -> Message:
    """Return a message of the app. If it closes the websocket, raise a WebSocketDisconnect."""
    if message.get("type", "websocket.close") != "websocket.close":
        return message
    code = message.get("code", _ENDED)
    reason = message.get("reason") or ""
    name = "starlette.websockets"
    reason_argument = "reason"
    if is_litestar(app):
        name = "litestar.exceptions"
        reason_argument = "detail"
    try:
        module = import_module(name)
    except ImportError:
        raise ConnectionAbortedError(code, reason) from None
    raise module.WebSocketDisconnect(code=code, **{reason_argument: reason})

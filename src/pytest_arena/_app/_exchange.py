"""Requests whose answers are read while the app still gives them: streams and websockets."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pytest_arena._app._kind import ASGIApp, Message, Scope, is_litestar
from pytest_arena._origin import user_line
from pytest_arena._process import rest
from pytest_arena._process import seconds as now
from pytest_arena.errors import redact

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine

    from pytest_arena._ledger import Request

__tracebackhide__ = True  # a traceback of the app or of a test ends at its own line

CALL = "arena_call"  # in a response's extensions
ACCEPTED, REFUSED = 101, 403  # what a server answers to who asks for a websocket
_PATIENCE = 1.0  # seconds for an app that is told, or made, to end
_STEP = 0.0002  # seconds
_STATEMENT = 0.02  # seconds, until an app that is left comes to a place where it can be cancelled
_SELDOM = 100  # messages that nobody hears, until an app that makes no pause has to
_ENDED, _LOST = 1000, 1006  # codes of a websocket's end


async def read_in_parts(app: ASGIApp, scope: Scope, receive: Any, send: Any) -> None:
    """Call an app whose reader may leave it, by a scope of anyio's: it is cancelled as it sends.

    Such a scope cancels whatever a clean-up waits for, again and again: where it meets a statement,
    the driver's thread may be left in it, and who waits for that waits for ever.
    """
    from anyio import CancelScope

    is_left, is_sending = False, asyncio.Event()

    async def sending(message: Message) -> None:
        is_sending.set()
        await (asyncio.Event().wait() if is_left else send(message))
        is_sending.clear()

    task = asyncio.ensure_future(app(scope, receive, sending))
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        is_left = True
        with CancelScope(shield=True):
            with suppress(TimeoutError):
                await asyncio.wait_for(is_sending.wait(), _STATEMENT)
            task.cancel()
            await asyncio.wait([task], timeout=_PATIENCE)
        if task.done():
            task.result()  # what its clean-up has raised is the test's to hear
        raise


class Exchange:
    """A request that is under way until its answer is closed, or the app has finished with it."""

    request: Any = None  # its record, once it is open
    _host: Any = None  # as the client has it
    shown = ""  # how it is told that it was left open
    error: BaseException | None = (
        None  # what the app has raised, and nobody has been told of
    )
    is_over = False  # the app has finished
    way = "with"
    hang_up: Any = staticmethod(bool)  # what tells the app of a sync client's websocket

    def open(self, request: Request, host: Any) -> None:
        """The answer is there, to be read."""
        self.request, self._host, request.is_open = request, host, True
        how = "websocket_connect" if request.method == "WEBSOCKET" else "stream"
        what = f"{request.method} {request.path} was open: {self.way} client.{how}(…)"
        self.shown = f"{user_line() or 'a line that cannot be seen'}   {what}"
        host.exchanges.append(self)
        if self.is_over:
            self.end()

    def end(self) -> None:
        """It is over. Idempotent."""
        if self.request and self.request.is_open:
            self.request.is_open = False
            self.request.seconds = now() - self.request.began
            if self.error is not None:
                self.request.status, self.request.error = None, told(self.error)
            self._host.exchanges.remove(self)
            self._host.hooks.ended()


def told(error: BaseException) -> str:
    """An error as a request's record has it."""
    name = type(error).__name__
    try:
        return redact(f"{name}: {error}".removesuffix(": "))
    except Exception:  # noqa: BLE001 - a class of the user's: the app is to answer as it would
        return name


def is_disconnect(error: BaseException | None) -> bool:
    """Whether it is a framework's way to say that a websocket was closed, refused, or is opened."""
    return any(kind.__name__ in _OF_WEBSOCKETS for kind in type(error).__mro__)


_OF_WEBSOCKETS = {"WebSocketDisconnect", "_Upgrade", "ConnectionUpgradeExceptionError"}


class Call(Exchange):
    """The app, called in a task of its own; what it sends is read message by message.

    An app that streams is at most two messages ahead of its reader.
    """

    task: asyncio.Task[Any]
    opening: Message  # the first that it has sent
    way = "async with"

    def __init__(self, app: ASGIApp, *, is_websocket: bool) -> None:
        self._app, self._is_websocket = app, is_websocket
        self.inbox: asyncio.Queue[Message] = asyncio.Queue()  # a websocket's
        self._outbox: asyncio.Queue[Message | None] = asyncio.Queue()
        self._room = asyncio.Semaphore()
        self._finish: Any = None
        self._is_closing, self._unheard = False, 0

    async def begin(self, answering: Coroutine[Any, Any, Any]) -> bool:
        """Call the app, by what the library does for it. Returns whether it has sent something."""
        self.task = asyncio.create_task(answering)
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
        """What a server would answer."""
        of_a_websocket = (
            REFUSED if self.opening["type"] == "websocket.close" else ACCEPTED
        )
        return int(self.opening.get("status", of_a_websocket))

    async def answer(self, scope: Scope, receive: Any, send: Any) -> None:
        """Stand where the library calls the app: it is told all but the body."""
        if self._is_websocket:
            await send(
                {"type": "http.response.start", "status": 500}
            )  # where nothing is accepted
            await send(_LAST)
            self.inbox.put_nowait({"type": "websocket.connect"})
            await self._app(_as_websocket(scope), self.inbox.get, self._put)
            return
        self._finish = send

        async def sending(message: Message) -> None:
            await self._room.acquire()
            if self._is_closing:
                self._room.release()
                self._unheard += 1
                if self._unheard % _SELDOM == 0:
                    await asyncio.sleep(
                        0
                    )  # cancelled here, its generator would stay at a `yield`
                return
            await send({**message, "body": b""})
            if message["type"] == _LAST["type"] and not message.get("more_body"):
                self._finish = None
            is_head = scope["method"] == "HEAD"
            self._outbox.put_nowait({**message, "body": b""} if is_head else message)

        await self._app(scope, receive, sending)

    async def _put(self, message: Message) -> None:
        if not self._is_closing:
            self._outbox.put_nowait(message)
        await asyncio.sleep(
            0
        )  # an app that makes no pause would leave nobody else a turn

    def _over(self, task: asyncio.Task[Any]) -> None:
        self.is_over = True
        if not task.cancelled():
            self.error = task.exception()
        elif not self._is_closing:
            self.error = ConnectionError("the app was cancelled while it answered")
        if self._is_closing and is_disconnect(self.error):
            self.error = None  # what it was told
        self._outbox.put_nowait(None)
        self.end()

    async def next(self) -> Message | None:
        """Return the app's next message, None once it has ended. Raises what the app has raised."""
        message = await self._outbox.get()
        self._room.release()
        if message is None:
            self._outbox.put_nowait(None)  # for who asks again
            self._raise()
        return message

    def _raise(self) -> None:
        error, self.error = self.error, None  # once
        if error is not None:
            raise error

    async def aclose(self) -> None:
        """Tell the app that nobody listens; end it, if it goes on. Raises what it has raised."""
        if self._is_closing:
            return
        self._is_closing = True
        self._room.release()
        self.inbox.put_nowait(
            {"type": "websocket.disconnect", "code": _ENDED, "reason": ""}
        )
        try:
            if self._finish is not None and not self.task.done():
                await self._finish(_LAST)
            for _ in range(2):
                end = now() + _PATIENCE
                while not self.is_over and now() < end:
                    await asyncio.sleep(0)
                    rest(
                        _STEP
                    )  # the loop's own clock may be one that a test has stopped
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
    """The body of an answer, as the app sends it; a class of the library's is added."""

    def __init__(self, call: Call) -> None:
        self.aclose = call.aclose
        self._next = call.next

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (message := await self._next()) is not None:
            if body := message.get("body"):
                yield bytes(body)


class WebSocket:
    """An open websocket of the async client.

    What the app has raised is raised where its next message is read. Once it has closed, that
    raises the ``WebSocketDisconnect`` of its framework, with code and reason; a
    ``ConnectionAbortedError`` where neither Starlette nor Litestar is there.
    """

    def __init__(self, call: Call, app: object) -> None:
        self._call, self._app = call, app
        self.accepted_subprotocol: str | None = call.opening.get("subprotocol")

    async def send_text(self, data: str) -> None:
        """Send a text."""
        self._call.inbox.put_nowait({"type": "websocket.receive", "text": data})

    async def send_bytes(self, data: bytes) -> None:
        """Send bytes."""
        self._call.inbox.put_nowait({"type": "websocket.receive", "bytes": data})

    async def send_json(self, data: Any, mode: str = "text") -> None:
        """Send a value as JSON, by a message that is ``text`` or ``binary``."""
        text = json.dumps(data, separators=(",", ":"), ensure_ascii=False)
        await (
            self.send_text(text) if mode == "text" else self.send_bytes(text.encode())
        )

    async def receive(self) -> Message:
        """Wait for the app's next message; return it as ASGI has it."""
        return _checked(await self._call.next() or _GONE, self._app)

    async def receive_text(self) -> Any:
        """Return the text of the next message."""
        return (await self.receive())["text"]

    async def receive_bytes(self) -> Any:
        """Return the bytes of the next message."""
        return (await self.receive())["bytes"]

    async def receive_json(self, mode: str = "text") -> Any:
        """Return the value of the next message."""
        return json.loads((await self.receive())["text" if mode == "text" else "bytes"])

    async def close(self, code: int = _ENDED, reason: str = "") -> None:
        """Tell the app that it is closed."""
        message = {"type": "websocket.disconnect", "code": code, "reason": reason}
        self._call.inbox.put_nowait(message)


async def opened(response: Any, app: object) -> WebSocket:
    """Return the websocket. Raises as the client of the app's framework does, if it is refused."""
    call: Any = response.extensions.get(CALL)
    if call is None or "status" in call.opening:
        content = (await response.aread()).decode(errors="replace")
        _checked({**_GONE, "reason": f"refused: {response.status_code} {content}"}, app)
    _checked(call.opening, app)
    return WebSocket(call, app)


def _checked(message: Message, app: object) -> Message:
    """Return what the app has sent, if that is no end of a websocket."""
    if message.get("type", "websocket.close") != "websocket.close":
        return message
    code, reason = message.get("code", _ENDED), message.get("reason") or ""
    is_litestars = is_litestar(app)
    try:
        module = import_module(
            "litestar.exceptions" if is_litestars else "starlette.websockets"
        )
    except ImportError:
        raise ConnectionAbortedError(code, reason) from None
    raise module.WebSocketDisconnect(
        code=code, **{"detail" if is_litestars else "reason": reason}
    )

"""Sees each request of each client: a hook around the call of an app.

The classes of the frameworks are wrapped when they are imported. Clients of pytest-arena and the
live server call `enter` themselves, because their app may be a plain function.
"""

from __future__ import annotations

import asyncio
import functools
import sys
from asyncio import ensure_future, shield
from asyncio import wait as wait_for_tasks
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, Self

from pytest_arena._app._raised import (
    in_words,
    is_disconnect,
    note_handled,
    note_raised,
    watch_logged_errors,
)
from pytest_arena._interpreter import when_imported
from pytest_arena._ledger import FAILURE, Request
from pytest_arena._origin import (
    REQUEST,
    line_of_coroutine,
    user_line,
)
from pytest_arena._owner import OWNER, watch_background_work, watch_failures
from pytest_arena._process import async_rest, replace_attribute, rest
from pytest_arena._process import seconds as now

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from contextlib import ExitStack
    from traceback import TracebackException

    from pytest_arena._app._kind import ASGIApp, Message, Receive, Scope, Send
    from pytest_arena._app._raised import AnsweredRequest
    from pytest_arena._owner import Owner

    # Returns the running test, None outside of tests.
    FindHooks = Callable[[], "Hooks | None"]

__tracebackhide__ = True  # a traceback of the app or of a test ends at its own line

# The statuses with which a server accepts or refuses a websocket.
ACCEPTED = 101
REFUSED = 403
_PATIENCE = 1.0  # seconds for a websocket's handler to end after its client has left
_STEP = 0.0002  # seconds


class Answer(Protocol):
    """Notes when the app sends an answer. The request's commits should come before."""

    def note_sent(self, message: Mapping[str, object]) -> None:
        """Note a message that the app has sent."""

    def end(self, error: Exception | None) -> None:
        """Note that the app has returned, or the error that it has raised."""


class Hooks(Protocol):
    """Methods that are called around each request of a test."""

    # Functions that call the app for a request, and may break it.
    faults: list[Callable[..., Any]]

    @property
    def owner(self) -> Owner | None:
        """The test to which a request belongs."""

    async def aprepare_request(self) -> None:
        """Commit pending work before a request of an async client. Called in the client's loop."""

    def prepare_request(self) -> None:
        """Commit pending work before a request of a sync client. Called in the client's thread."""

    async def acommit_for_others(self) -> None:
        """Commit pending work before a request of a client that pytest-arena has not created."""

    def begin_request(self, request: Request) -> Answer:
        """Begin a request, in the app's task or thread."""

    def end_request(self, request: Request) -> None:
        """Note that the app has returned, and the client has a streamed answer of a WSGI app."""

    def note_open(self, request: OpenRequest) -> None:
        """Note an answer that the test reads while the app sends it."""

    def note_app_error(self, request: Request, error: Exception) -> None:
        """Note that the app raised instead of answering."""

    def note_handled_error(self, request: Request, trace: TracebackException) -> None:
        """Note that the app answered an exception that it did not expect."""

    def note_cut_off(self, line: str) -> None:
        """Note that a test client has cancelled a websocket's handler at this line."""


@dataclass(slots=True, eq=False)
class OpenRequest:
    """An answer that the test reads while the app sends it, and the function that closes it."""

    request: Request
    close: Callable[[], object]
    loop: asyncio.AbstractEventLoop | None = None
    line: str = field(init=False)

    def __post_init__(self) -> None:
        self.line = str(user_line() or "a line that cannot be seen")

    @property
    def shown(self) -> str:
        """Words for a note if the test leaves it open."""
        return (
            f"{self.line}   {self.request.shown} was open: with client.stream(…), or "
            "response.close()"
        )


@dataclass(slots=True, eq=False)
class Entry:
    """One call of an app for a request."""

    app: object
    request: Request
    hooks: Any
    # The exception that the test was handling when it made the request.
    outside: BaseException | None
    # Whether a client of the user made the request. It usually raises the app's error.
    is_of_user: bool = False
    traces: list[TracebackException] = field(default_factory=list)
    answer: Answer = field(init=False)

    def begin(self) -> None:
        """Note that the app is about to answer."""
        self.answer = self.hooks.begin_request(self.request)

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Make the code of the block, and the work that it begins, a part of the request."""
        token = ENTRY.set(self)
        owner = OWNER.set(self.hooks.owner)
        try:
            yield
        finally:
            OWNER.reset(owner)
            ENTRY.reset(token)

    def fail(self, error: BaseException) -> None:
        """Note an exception that the app has raised."""
        if is_disconnect(error):
            return
        status = self.request.status
        if status is None or (self.is_of_user and status >= FAILURE):
            self.request.fail(in_words(error))
        if isinstance(error, Exception):
            note_raised(self.request, error)
            self.hooks.note_app_error(self.request, error)

    def end_answer(self, error: BaseException | None) -> None:
        """Note that the app has returned, or the error that it has raised."""
        failure = None
        if isinstance(error, Exception) and not is_disconnect(error):
            failure = error
        self.answer.end(failure)
        if error is None:  # otherwise `fail` has noted the exception
            for trace in self.traces:
                self.hooks.note_handled_error(self.request, trace)

    def end(self) -> None:
        """End the request. A task of the app may keep this object."""
        self.request.end(now())
        self.hooks.end_request(self.request)
        self.outside = None


# The request that the running code answers, or whose task it is. It stays set after the request.
ENTRY: ContextVar[Entry | None] = ContextVar("arena: the call of the app", default=None)


class Sent(list[Request]):
    """The requests of one call of a sync client: one request, and the redirects that it follows."""

    def __init__(self, role: str | None) -> None:
        super().__init__()
        self.role = role


SENT: ContextVar[Sent | None] = ContextVar("arena: a sync client's call", default=None)


def watch_requests(undo: ExitStack, find_hooks: FindHooks) -> None:
    """Call hooks around requests of all clients, and watch the work that requests begin.

    The frameworks are wrapped when they are imported. This imports none of them.

    Args:
        undo: restores the classes when it is closed.
        find_hooks: returns the running test, None outside of tests.
    """
    watch_background_work(undo)
    watch_failures(undo)
    watch_logged_errors(undo, _answered_here)
    for module, (name, wrap) in _FRAMEWORKS.items():
        when_imported(module, functools.partial(_watch, name, wrap, find_hooks, undo))
    watch_client = functools.partial(_watch_litestars_client, find_hooks, undo)
    when_imported("litestar.testing.transport", watch_client)


def _watch_litestars_client(
    find_hooks: FindHooks, undo: ExitStack, module: Any
) -> None:
    """Commit pending work before a request of Litestar's async client.

    This client blocks the loop of the test while the app answers in another loop.
    """
    transport_class = module.TestClientTransport
    original = transport_class.handle_async_request

    @functools.wraps(original)
    async def handle_async_request(transport: Any, request: Any) -> Any:
        hooks = find_hooks() if ENTRY.get() is None else None
        if hooks is None:
            return await original(transport, request)
        await hooks.aprepare_request()
        token = SENT.set(Sent(None))
        try:
            return await original(transport, request)
        finally:
            SENT.reset(token)

    replace_attribute(
        undo, transport_class, "handle_async_request", handle_async_request
    )


def _watch(
    name: str, wrap: Any, find_hooks: FindHooks, undo: ExitStack, module: object
) -> None:
    kind = getattr(module, name)
    replace_attribute(undo, kind, "__call__", wrap(kind.__call__, find_hooks))


def _wrapped_asgi(call: Any, find_hooks: FindHooks) -> Any:
    @functools.wraps(call)
    async def entered(app: Any, scope: Scope, receive: Receive, send: Send) -> None:
        bound = functools.partial(call, app)
        is_request = scope["type"] != "lifespan" and ENTRY.get() is None
        hooks = find_hooks() if is_request else None
        if hooks is None:
            await bound(scope, receive, send)
            return
        sent = SENT.get()
        if sent is None:
            await hooks.acommit_for_others()
            await enter(app, bound, scope, receive, send, hooks=hooks, is_of_user=True)
        else:
            role = sent.role
            await enter(app, bound, scope, receive, send, hooks=hooks, role=role)

    return entered


def _wrapped_wsgi(call: Any, find_hooks: FindHooks) -> Any:
    @functools.wraps(call)
    def entered(app: Any, environ: Any, start_response: Any) -> Iterable[bytes]:
        hooks = find_hooks() if ENTRY.get() is None else None
        bound = functools.partial(call, app)
        if hooks is None:
            answer: Iterable[bytes] = bound(environ, start_response)
            return answer
        hooks.prepare_request()
        return _WSGICall(app, hooks, environ).begin(bound, start_response)

    return entered


_FRAMEWORKS = {
    "starlette.applications": ("Starlette", _wrapped_asgi),
    "litestar.app": ("Litestar", _wrapped_asgi),
    "quart.app": ("Quart", _wrapped_asgi),
    "flask.app": ("Flask", _wrapped_wsgi),
}


def _answered_here() -> AnsweredRequest | None:
    """Return the present request, and the exception that the test was handling when it sent it."""
    entry = ENTRY.get()
    return (entry.request, entry.outside) if entry is not None else None


async def enter(
    app: object,
    call: ASGIApp,
    scope: Scope,
    receive: Receive,
    send: Send,
    *,
    hooks: Hooks,
    role: str | None = None,
    is_of_user: bool = False,
    note: Callable[[Request], object] = bool,
) -> None:
    """Call an app for a request, and record the request.

    Args:
        app: the user's app, of which ``call`` may be a wrapper.
        call: the function to call.
        scope: ASGI's description of the request.
        receive: returns the messages of the client.
        send: sends a message to the client.
        hooks: the hooks to call.
        role: the role with which the client is logged in.
        is_of_user: whether pytest-arena has not created the client.
        note: called with the record.
    """
    method = scope.get("method", "WEBSOCKET")
    request = Request(method=method, path=scope["path"], role=role, began=now())
    note(request)
    sent = SENT.get()
    if sent is not None:
        sent.append(request)
    entry = Entry(app, request, hooks, sys.exception(), is_of_user)
    send = _noting(entry, send)
    if scope["type"] == "websocket":
        call = functools.partial(_call_for_websocket, entry, call)
    for enter_with_fault in hooks.faults:
        call = functools.partial(enter_with_fault, call)
    error = None
    with entry.inside():
        entry.begin()
        try:
            await call(scope, receive, send)
        except BaseException as raised:
            error = raised
            entry.fail(raised)
            raise
        finally:
            entry.end_answer(error)
            error = None  # breaks a reference cycle
            request.note_route(_route_of(app, scope))
            request.is_cut = request.is_open and scope["type"] == "http"
            entry.end()


def _noting(entry: Entry, send: Send) -> Send:
    """Return a ``send`` that notes each message of the app's answer."""
    request = entry.request

    async def send_and_note(message: Message) -> None:
        error = sys.exception()
        if error is not None and error is not entry.outside:
            entry.traces.extend(note_handled(request, message, error))
        match message["type"]:
            case "http.response.start" | "websocket.http.response.start":
                request.note_status(message["status"])
            case "http.response.body":
                request.note_open(is_open=message.get("more_body", False))
            case "websocket.accept":
                request.note_status(ACCEPTED)
                request.note_open(is_open=True)
            case "websocket.close" if request.status is None:
                request.note_status(REFUSED)
        await send(message)
        entry.answer.note_sent(message)

    return send_and_note


# Lines at which a websocket's handler had to be cancelled. No test waits for them again.
_endless: set[str] = set()


async def _call_for_websocket(
    entry: Entry, call: ASGIApp, scope: Scope, receive: Receive, send: Send
) -> None:
    """Call an app for a websocket. If a test client cancels the app, first let it end by itself.

    Starlette's test client sends a disconnect at the end of its block, and cancels the app at once.
    An app that still works after a second is cancelled.
    """
    from anyio import CancelScope

    is_left = False

    async def sending(message: Message) -> None:
        if is_left:
            # Like uvicorn. Starlette turns this into a WebSocketDisconnect.
            raise ConnectionResetError("the client has closed the websocket")
        await send(message)

    task = ensure_future(call(scope, receive, sending))
    try:
        await shield(task)
    except asyncio.CancelledError:
        is_left = True
        with CancelScope(shield=True):
            await _end_by_itself(task, entry)
        if task.done() and not task.cancelled():
            error = task.exception()
            if error is not None and not is_disconnect(error):
                raise error from None
        raise


async def _end_by_itself(task: asyncio.Future[None], entry: Entry) -> None:
    end = now() + _PATIENCE
    line = ""
    while not task.done() and now() < end and line not in _endless:
        await async_rest(0)
        rest(_STEP)  # not a sleep of the loop, whose clock a test may have frozen
        coroutine = task.get_coro() if isinstance(task, asyncio.Task) else None
        line = str(line_of_coroutine(coroutine) or "a line that cannot be seen")
    if not task.done():
        _endless.add(line)
        entry.hooks.note_cut_off(f"{line}   {entry.request.shown}: its client had left")
        task.cancel()
        await wait_for_tasks([task], timeout=_PATIENCE)


class _WSGICall:
    """One call of a WSGI app. A streamed body is the iterator that the test reads.

    The request of a streamed answer ends when the test has read it to its end or closes it.
    """

    def __init__(self, app: object, hooks: Hooks, environ: Mapping[str, Any]) -> None:
        self._request = Request(
            method=environ["REQUEST_METHOD"],
            path=environ.get("PATH_INFO", ""),
            began=now(),
        )
        self._entry = Entry(app, self._request, hooks, sys.exception(), is_of_user=True)
        self._environ = environ
        self._has_length = False
        self._is_over = False
        self._body: Any = None

    def begin(self, call: Callable[..., Any], start_response: Any) -> Iterable[bytes]:
        """Call the app, and return its body."""

        def start(status: str, headers: Any, *error: Any) -> object:
            self._request.note_status(int(status.partition(" ")[0]))
            names = {name.lower() for name, _ in headers}
            self._has_length = "content-length" in names
            return start_response(status, headers, *error)

        entry = self._entry
        failure = None
        entry.begin()
        try:
            with entry.inside():
                self._body = call(self._environ, start)
        except BaseException as error:
            failure = error
            entry.fail(error)
            raise
        finally:
            entry.end_answer(failure)
            self._request.note_route(_rule_of(entry.app, self._environ))
            if failure is not None or not self._is_stream:
                entry.end()
            failure = None  # breaks a reference cycle
        if not self._is_stream:
            body: Iterable[bytes] = self._body
            return body
        self._request.note_open(is_open=True)
        entry.hooks.note_open(OpenRequest(self._request, self.close))
        self._parts = iter(self._body)
        return self

    @property
    def _is_stream(self) -> bool:
        """Whether a generator of the app makes the body while the test reads it."""
        is_read = self._request.method != "HEAD" and self._request.status not in _EMPTY
        return is_read and not self._has_length and not hasattr(self._body, "__len__")

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        with self._inside():
            part: bytes = next(self._parts)
        return part

    def close(self) -> None:
        """Close the app's generator. Called by the response."""
        with self._inside():
            getattr(self._body, "close", bool)()
        self._end()

    @contextmanager
    def _inside(self) -> Iterator[None]:
        """Run a block as a part of the request."""
        request = REQUEST.set(self._entry.answer)
        try:
            with self._entry.inside():
                yield
        except BaseException as error:
            if not isinstance(error, StopIteration):
                self._entry.fail(error)
            self._end()
            raise
        finally:
            REQUEST.reset(request)

    def _end(self) -> None:
        if not self._is_over:
            self._is_over = True
            self._entry.end()


_EMPTY = {204, 304}  # statuses of answers without a body


def _rule_of(app: Any, environ: Mapping[str, Any]) -> str:
    """Return the template of the path of a request to a Flask app."""
    try:
        rule, _ = app.url_map.bind_to_environ(environ).match(return_rule=True)
    except Exception:  # noqa: BLE001 - Werkzeug's for a path, a method or a host without a rule
        return ""
    return str(rule.rule)


def _route_of(app: object, scope: Scope) -> str:
    """Return the template of the path, ``/battles/{battle_id}``, or "" if the app has none."""
    litestar_template = scope.get("path_template")
    if litestar_template:
        return str(litestar_template)
    route = scope.get("route")
    path = getattr(route, "path_format", None) or getattr(route, "path", None)
    if path is None:  # before Starlette 1.0
        endpoint = scope.get("endpoint")
        if endpoint:
            return _template_of(endpoint, getattr(app, "routes", ()))
        return ""
    root = str(scope.get("root_path", ""))
    app_root = str(scope.get("app_root_path", root))
    mount = root.removeprefix(app_root)
    return f"{mount}{path}"


def _template_of(endpoint: object, routes: Iterable[Any]) -> str:
    for route in routes:
        if getattr(route, "endpoint", None) is endpoint:
            return str(route.path)
        below = _template_of(endpoint, getattr(route, "routes", None) or ())
        if below:
            return f"{route.path}{below}"
    return ""

"""Sees each request of each client: a hook around the call of an app.

The classes of the frameworks are wrapped when they are imported. Clients of pytest-arena and the
live server call `enter` themselves, because their app may be a plain function.
"""

from __future__ import annotations

import functools
import sys
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from pytest_arena._app._raised import (
    in_words,
    is_disconnect,
    note_handled,
    note_raised,
)
from pytest_arena._interpreter import when_imported
from pytest_arena._ledger import FAILURE, Request
from pytest_arena._origin import user_line
from pytest_arena._owner import OWNER, watch_background_work, watch_failures
from pytest_arena._process import replace_attribute
from pytest_arena._process import seconds as now

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from contextlib import ExitStack
    from traceback import TracebackException

    from pytest_arena._app._kind import ASGIApp, Message, Receive, Scope, Send
    from pytest_arena._owner import Owner
    from pytest_arena._values import CodeLine

    # Returns the running test, None outside of tests.
    FindHooks = Callable[[], "Hooks | None"]

__tracebackhide__ = True  # a traceback of the app or of a test ends at its own line

# The statuses with which a server accepts or refuses a websocket.
ACCEPTED = 101
REFUSED = 403


class Hooks(Protocol):
    """A test, whose methods are called around the start-up of the app and each request."""

    # Functions that call the app for a request, and may break it.
    faults: list[Callable[..., Any]]
    # The answers that the test reads while the app sends them.
    open_requests: list[OpenRequest]
    # Errors that the app raised, with its requests.
    app_errors: list[tuple[Request, Exception]]
    # Exceptions that the app answered and did not expect.
    handled_traces: list[tuple[Request, TracebackException]]

    @property
    def owner(self) -> Owner | None:
        """The test to which a request belongs."""

    def begin_lifespan(self) -> object:
        """Return the request answer to which lost writes of the lifespan are attributed."""

    async def aprepare_request(self) -> None:
        """Commit pending work before a request of an async client. Called in the client's loop."""

    def prepare_request(self) -> None:
        """Commit pending work before a request of a sync client. Called in the client's thread."""

    async def acommit_for_others(self) -> None:
        """Commit pending work before a request of a client that pytest-arena has not created."""

    def begin_request(self, request: Request) -> Any:
        """Begin a request, in the app's task or thread. Return its `RequestAnswer`."""

    def end_request(self, request: Request) -> None:
        """Note that the app has returned, and the client has a streamed answer of a WSGI app."""


@dataclass(slots=True, eq=False)
class OpenRequest:
    """An answer that the test reads while the app sends it, and the function that closes it."""

    request: Request
    close: Callable[[], object]
    loop: AbstractEventLoop | None = None
    line: CodeLine | None = field(default_factory=user_line)


@dataclass(slots=True, eq=False)
class Entry:
    """One call of an app for a request."""

    app: object
    request: Request
    hooks: Any
    find_route: Callable[[], str]  # returns the template of the path
    # Whether a client of the user made the request. It usually raises the app's error.
    is_of_user: bool = False
    # The exception that the test was handling when it made the request.
    outside: BaseException | None = field(default_factory=sys.exception)
    traces: list[TracebackException] = field(default_factory=list)
    answer: Any = None  # the `RequestAnswer`

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Make the code of the block, and the work that it begins, a part of the request."""
        token = ENTRY.set(self)
        owner = OWNER.set(self.hooks.owner)
        self.answer = self.hooks.begin_request(self.request)
        error = None
        try:
            yield
        except BaseException as raised:
            error = raised
            self._fail(raised)
            raise
        finally:
            self._end(error)
            error = None  # breaks a reference cycle
            OWNER.reset(owner)
            ENTRY.reset(token)

    def _fail(self, error: BaseException) -> None:
        """Note an exception that the app has raised."""
        if is_disconnect(error):
            return
        status = self.request.status
        if status is None or (self.is_of_user and status >= FAILURE):
            self.request.fail(in_words(error))
        if isinstance(error, Exception):
            note_raised(self.request, error)
            self.hooks.app_errors.append((self.request, error))

    def _end(self, error: BaseException | None) -> None:
        """Note that the app has returned, or the error that it has raised."""
        self.answer.end()
        if error is None:  # otherwise `_fail` has noted the exception
            for trace in self.traces:
                self.hooks.handled_traces.append((self.request, trace))
        request = self.request
        request.route = self.find_route()
        request.end(now())
        self.hooks.end_request(request)
        self.outside = None  # a task of the app may keep this object


# The request that the running code answers, or whose task it is. It stays set after the request.
ENTRY: ContextVar[Entry | None] = ContextVar("arena: the call of the app", default=None)


class Sent(list[Request]):
    """The requests of one call of our client: one request, and the redirects that it follows."""

    def __init__(self, role: str | None) -> None:
        super().__init__()
        self.role = role


SENT: ContextVar[Sent | None] = ContextVar("arena: a client's call", default=None)


def watch_requests(undo: ExitStack, find_hooks: FindHooks) -> None:
    """Call hooks around requests of all clients, and watch the work that requests begin.

    The frameworks are wrapped when they are imported. This imports none of them.

    Args:
        undo: restores the classes when it is closed.
        find_hooks: returns the running test, None outside of tests.
    """
    watch_background_work(undo)
    watch_failures(undo)
    for module, (name, wrap) in _FRAMEWORKS.items():
        when_imported(module, functools.partial(_watch, name, wrap, find_hooks, undo))


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
        is_of_user = SENT.get() is None
        if is_of_user:
            await hooks.acommit_for_others()
        await enter(
            app, bound, scope, receive, send, hooks=hooks, is_of_user=is_of_user
        )

    return entered


def _wrapped_wsgi(call: Any, find_hooks: FindHooks) -> Any:
    @functools.wraps(call)
    def entered(app: Any, environ: Any, start_response: Any) -> Iterable[bytes]:
        body: Iterable[bytes]
        hooks = find_hooks() if ENTRY.get() is None else None
        if hooks is None:
            body = call(app, environ, start_response)
            return body
        hooks.prepare_request()
        method = environ["REQUEST_METHOD"]
        path = environ.get("PATH_INFO", "")
        request = Request(method=method, path=path, began=now())

        def start(status: str, headers: Any, *error: Any) -> object:
            request.status = int(status.partition(" ")[0])
            return start_response(status, headers, *error)

        find_route = functools.partial(_rule_of, app, environ)
        with Entry(app, request, hooks, find_route, is_of_user=True).answering():
            body = call(app, environ, start)
            try:
                return [*body]  # a generator of the app runs in the request
            finally:
                getattr(body, "close", bool)()

    return entered


_FRAMEWORKS = {
    "starlette.applications": ("Starlette", _wrapped_asgi),
    "litestar.app": ("Litestar", _wrapped_asgi),
    "flask.app": ("Flask", _wrapped_wsgi),
}


async def enter(
    app: object,
    call: ASGIApp,
    scope: Scope,
    receive: Receive,
    send: Send,
    *,
    hooks: Hooks,
    is_of_user: bool = False,
) -> None:
    """Call an app for a request, and record the request.

    Args:
        app: the user's app, of which ``call`` may be a wrapper.
        call: the function to call.
        scope: ASGI's description of the request.
        receive: returns the messages of the client.
        send: sends a message to the client.
        hooks: the hooks to call.
        is_of_user: whether pytest-arena has not created the client.
    """
    sent = SENT.get()
    role = sent.role if sent is not None else None
    method = scope.get("method", "WEBSOCKET")
    request = Request(method=method, path=scope["path"], role=role, began=now())
    if sent is not None:
        sent.append(request)
    find_route = functools.partial(_route_of, scope)
    entry = Entry(app, request, hooks, find_route, is_of_user=is_of_user)
    for enter_with_fault in hooks.faults:
        call = functools.partial(enter_with_fault, call)
    with entry.answering():
        await call(scope, receive, _noting(entry, send))


def _noting(entry: Entry, send: Send) -> Send:
    """Return a ``send`` that notes each message of the app's answer."""
    request = entry.request

    async def send_and_note(message: Message) -> None:
        error = sys.exception()
        if error is not None and error is not entry.outside:
            entry.traces.extend(note_handled(request, message, error))
        match message["type"]:
            case "http.response.start" | "websocket.http.response.start":
                request.status = message["status"]
            case "http.response.body":
                request.is_open = message.get("more_body", False)
            case "websocket.accept":
                request.status = ACCEPTED
                request.is_open = True
            case "websocket.close" if request.status is None:
                request.status = REFUSED
        await send(message)
        entry.answer.note_sent(message)

    return send_and_note


def _rule_of(app: Any, environ: Mapping[str, Any]) -> str:
    """Return the template of the path of a request to a Flask app."""
    try:
        rule, _ = app.url_map.bind_to_environ(environ).match(return_rule=True)
    except Exception:  # noqa: BLE001 - Werkzeug's for a path, a method or a host without a rule
        return ""
    return str(rule.rule)


def _route_of(scope: Scope) -> str:
    """Return the template of the path, ``/battles/{battle_id}``, or "" if the app has none."""
    litestar_template = scope.get("path_template")
    if litestar_template:
        return str(litestar_template)
    route = scope.get("route")
    path = getattr(route, "path_format", None) or getattr(route, "path", "")
    if not path:
        return ""
    root = str(scope.get("root_path", ""))
    mount = root.removeprefix(str(scope.get("app_root_path", root)))
    return f"{mount}{path}"

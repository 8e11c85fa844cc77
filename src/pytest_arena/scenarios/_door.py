"""Which requests reach the app under test, by any client, and were the answers looked at?"""

import functools
import inspect
import sys
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from contextvars import ContextVar
from types import FrameType
from typing import Any, Protocol
from unittest import mock
from weakref import WeakSet

from pytest_arena._app._client import HOPS
from pytest_arena._app._kind import is_wsgi, unwrapped
from pytest_arena._app._login import is_logging_in
from pytest_arena._ledger import Request
from pytest_arena._run._apps import Apps

__tracebackhide__ = True  # a traceback of the app or of a test ends at its own line


class Listener(Protocol):
    """Wants to know of each request. Its calls stand in the way of the app: they never raise."""

    wants_bodies: bool

    def wants(self, app: object) -> bool:
        """Whether a test runs that is to be watched, and this is the app that it is about."""

    def begins(self, request: Request) -> None:
        """A request is about to be answered; what was pending is committed."""

    def sending(self, request: Request, send: Any) -> Any:
        """Return what the app is to send its answer by."""

    def answers(self, request: Request) -> None:
        """The last of an answer is about to be sent, or a websocket to be accepted."""

    def ends(self, request: Request) -> None:
        """A request is over, with all that the app does after its answer."""


_request: ContextVar[Request | None] = ContextVar(
    "arena: the app answers", default=None
)
_alone: ContextVar[bool] = ContextVar("arena: the app starts, or ends", default=False)
_under_way: list[Request] = []
_SEEN = "pytest_arena.seen"


def request_now() -> Request | None:
    """Return the request that the code which calls this works for.

    In a thread that has no context of a request's it is the one that is under way, if one alone is.
    """
    request = _request.get()
    if request is None:
        alone = list(_under_way)  # one may end meanwhile, in another thread
        return alone[0] if len(alone) == 1 else None
    return None if request.is_over else request


def is_by_itself() -> bool:
    """Whether the code which calls this is the app's lifespan, or was begun by it."""
    return _alone.get()


class AppDoor:
    """Stands before apps: the listener is told who comes in.

    The calls of an app's class are wrapped, as a client that is not ours calls the app itself.
    The app under test is the one that ``arena_app`` names, or what is inside of its middleware;
    what the fixture of that name gave; what its factory makes of the frameworks' apps, whoever
    calls it. Cost of a request: some microseconds, and what the listener does.
    """

    def __init__(self, apps: Callable[[], Apps], listener: Listener) -> None:
        self._apps, self._listener = apps, listener
        self._patches = ExitStack()
        self._watched: set[object] = set()  # methods of classes
        self._made: WeakSet[Any] = WeakSet()
        self._made_last: deque[object] = deque(
            maxlen=20
        )  # of Litestar's, which are kept alive

    def open(self) -> None:
        """From here on see the apps of all frameworks that are imported. Idempotent."""
        factory = self._apps().factory
        for kind in _frameworks():
            self._watch_class(kind)
            if factory is not None and "__init__" in vars(kind):
                self._watch_making(kind, _code_of(factory))
        if factory is None:
            self.watch(self._apps().named)

    def watch(self, app: object) -> None:
        """See the calls of an app, and of what it wraps; a function's cannot be seen."""
        for one in unwrapped(app):
            if _is_watchable(one):
                self._watch_class(type(one))

    def close(self) -> None:
        """Leave the classes as they were."""
        self._patches.close()
        self._watched.clear()

    def _watch_class(self, kind: Any) -> None:
        original = kind.__call__
        if original in self._watched:
            return

        @functools.wraps(original)
        async def called(app: Any, scope: Any, receive: Any, send: Any) -> None:
            await self.enter(
                app, functools.partial(original, app), scope, receive, send
            )

        self._watched.add(called)
        self._patches.enter_context(mock.patch.object(kind, "__call__", called))

    def _watch_making(self, kind: Any, code: object) -> None:
        original = kind.__init__
        if original in self._watched:
            return

        @functools.wraps(original)
        def made(app: Any, *args: Any, **options: Any) -> None:
            original(app, *args, **options)
            if _is_called(code, sys._getframe(1)):  # noqa: SLF001 - who makes it, says nothing else
                try:
                    self._made.add(app)
                except TypeError:  # Litestar's: nobody can refer to it weakly
                    self._made_last.append(app)

        self._watched.add(made)
        self._patches.enter_context(mock.patch.object(kind, "__init__", made))

    # Is it the one?

    def is_under_test(self, app: object) -> bool:
        """Whether this is the app under test."""
        apps = self._apps()
        if isinstance(apps.factory, type) and isinstance(app, apps.factory):
            return True
        if apps.knows(app):
            return True
        return app in self._made or any(app is one for one in self._made_last)

    def doubt(self, *, has_asked_another: bool) -> str:
        """Why a test may have asked the app under test, of which no request was seen; else ""."""
        apps = self._apps()
        if apps.named is None and apps.given is None:
            return _NO_APP
        if apps.factory is not None:
            has_made = self._made or self._made_last or apps.given is not None
            return "" if has_made and not has_asked_another else _UNSEEN
        return "" if apps.named is None or _is_watchable(apps.named) else _FUNCTION

    # A request comes in.

    async def enter(
        self, app: object, call: Any, scope: Any, receive: Any, send: Any
    ) -> None:
        """Call an app, and tell the listener, if that is wanted and this the first app called."""
        if scope.get("type") == "lifespan":
            token = _alone.set(True)
            try:
                await call(scope, receive, send)
            finally:
                _alone.reset(token)
        elif (
            scope.get("type") in _REQUESTS
            and _SEEN not in scope
            and self._listener.wants(app)
        ):
            scope[_SEEN] = True
            await self._answer(app, call, scope, receive, send)
        else:
            await call(scope, receive, send)

    async def _answer(
        self, app: object, call: Any, scope: Any, receive: Any, send: Any
    ) -> None:
        listener, request = self._listener, _request_of(scope)
        if listener.wants_bodies:
            receive = _noting_body(request, receive)
        token = _request.set(request)
        _under_way.append(request)
        listener.begins(request)
        try:
            sending = listener.sending(request, send)
            await call(scope, receive, _noting_status(request, sending, listener))
        finally:
            request.route = _route(app, scope)
            request.is_over = True
            _under_way.remove(request)
            _request.reset(token)
            listener.ends(request)

    def answered(self, response: Any) -> None:
        """Note when somebody looks at a response: until then it is of a class that sees that."""
        request = response.extensions.get("arena")
        if request is None or request.number < 0:
            return
        self._listener.answers(
            request
        )  # of a stream: its reader looks at what has come so far
        if request.method == "WEBSOCKET":
            return
        request.is_observed = False
        try:
            kind: Any = type(response)
            response.__class__ = _observed(kind)
        except TypeError:  # of a class that cannot be had so
            request.is_observed = None


_REQUESTS = {"http", "websocket"}
_NO_APP = (
    "there is no arena_app: which app is under test? Name it: arena_app = app.main:app"
)
_FUNCTION = (
    "if arena_app is a function or a WSGI app, only requests by clients in this process are seen: "
    "use the fixtures client or test_client"
)
_UNSEEN = (
    "arena_app is a factory that was not seen to make an app which the test asked: have tests ask "
    "the fixture arena_app, or name the app itself"
)


def _frameworks() -> list[type[Any]]:
    """Return the classes of apps that were imported. Imports nothing."""
    names = (
        ("starlette.applications", "Starlette"),
        ("fastapi.applications", "FastAPI"),
        ("litestar.app", "Litestar"),
    )
    modules = [(sys.modules.get(module), name) for module, name in names]
    return [getattr(module, name) for module, name in modules if hasattr(module, name)]


def _is_watchable(app: object) -> bool:
    """Whether it is an instance of somebody's class: a function's calls go by no attribute.

    Clients call a WSGI app through a wrapper, which sees its requests.
    """
    if is_wsgi(app):
        return False
    return type(app).__module__ != "builtins" and not isinstance(
        app, type | functools.partial
    )


def _code_of(factory: Any) -> object:
    while isinstance(factory, functools.partial):
        factory = factory.func
    function = inspect.unwrap(getattr(factory, "__func__", factory))
    return getattr(function, "__code__", None) or getattr(
        type(function).__call__, "__code__", None
    )


def _is_called(code: object, frame: FrameType | None) -> bool:
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back
    return frame is not None


def _request_of(scope: Any) -> Request:
    """The record that a client of ours has made; for another one's a new one."""
    hops = HOPS.get(None)
    sent = hops[-1] if hops else None
    if sent is None or sent.doings is not None:
        role = sent.role if sent is not None else None
        method = scope.get("method", "WEBSOCKET")
        sent = Request(method=method, path=scope.get("path", ""), role=role)
    sent.query = scope.get("query_string", b"").decode("latin-1")
    sent.is_login = is_logging_in()
    sent.is_by_browser = _is_by_browser(scope)
    return sent


# Values of Sec-Fetch-Dest. Scripts in a browser cannot set this header:
# https://fetch.spec.whatwg.org/#concept-request-destination
_PARTS_OF_A_PAGE = {
    *(
        b"audio",
        b"font",
        b"image",
        b"manifest",
        b"script",
        b"style",
        b"track",
        b"video",
    ),
    *(b"report", b"serviceworker", b"sharedworker", b"worker", b"xslt"),
}


def _is_by_browser(scope: Any) -> bool:
    """Return whether a browser makes this request itself: for an icon, an image, a prefetch.

    A page, a form, and what a script fetches are requests of the test.
    """
    headers = dict(scope.get("headers", ()))
    return (
        headers.get(b"sec-fetch-dest") in _PARTS_OF_A_PAGE or b"sec-purpose" in headers
    )


def _noting_status(request: Request, send: Any, listener: Listener) -> Any:
    async def noting(message: Any) -> None:
        if request.status is None:
            request.status = _status(message)
        kind = message["type"]
        is_last = kind.endswith("http.response.body") and not message.get("more_body")
        if is_last or kind == "websocket.accept":
            listener.answers(
                request
            )  # before: whoever waits for it may go on before we do
        await send(message)

    return noting


# What a server answers where an app takes, or refuses, a websocket.
_SWITCHED, _FORBIDDEN = 101, 403


def _status(message: Any) -> int | None:
    match message["type"]:
        case "http.response.start" | "websocket.http.response.start":
            status: int = message["status"]
            return status
        case "websocket.accept":
            return _SWITCHED
        case "websocket.close":
            return _FORBIDDEN
    return None


_MOST_BYTES = 65_536  # of a body


def _noting_body(request: Request, receive: Any) -> Any:
    async def noting() -> Any:
        message = await receive()
        part = (
            message.get("body")
            or message.get("bytes")
            or (message.get("text") or "").encode()
        )
        request.body = ((request.body or b"") + part)[:_MOST_BYTES]
        return message

    return noting


def _route(app: object, scope: Any) -> str:
    """Return the template of the path, ``/battles/{battle_id}``; "" where nobody says it."""
    if template := scope.get("path_template"):  # Litestar's
        return str(template)
    endpoint, route = scope.get("endpoint"), scope.get("route")
    path = getattr(route, "path_format", None) or getattr(route, "path", None)
    if path is None:  # before Starlette 1.0
        return _template_of(endpoint, getattr(app, "routes", ())) if endpoint else ""
    root = str(scope.get("root_path", ""))
    return (
        f"{root.removeprefix(str(scope.get('app_root_path', root)))}{path}"  # of mounts
    )


def _template_of(endpoint: object, routes: Any) -> str:
    for route in routes:
        if getattr(route, "endpoint", None) is endpoint:
            return str(route.path)
        below = _template_of(endpoint, getattr(route, "routes", None) or ())
        if below:
            return f"{route.path}{below}"
    return ""


_LOOKS = {
    *(
        "status_code",
        "reason_phrase",
        "is_success",
        "is_error",
        "is_client_error",
        "headers",
    ),
    *(
        "is_server_error",
        "is_redirect",
        "has_redirect_location",
        "raise_for_status",
        "cookies",
    ),
    *(
        "links",
        "content",
        "text",
        "json",
        "read",
        "aread",
        "iter_bytes",
        "iter_text",
        "iter_lines",
    ),
    *("iter_raw", "aiter_bytes", "aiter_text", "aiter_lines", "aiter_raw"),
}


@functools.cache
def _observed(kind: Any) -> Any:
    def __getattribute__(self: Any, name: str) -> Any:  # noqa: N807 - it is that method, of a class made below
        if name in _LOOKS:
            object.__setattr__(self, "__class__", kind)
            self.extensions["arena"].is_observed = True
        return kind.__getattribute__(self, name)

    names = {"__qualname__": kind.__qualname__, "__module__": kind.__module__}
    return type(kind.__name__, (kind,), {**names, "__getattribute__": __getattribute__})

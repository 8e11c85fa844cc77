"""Observes requests, and how the test uses the answers."""

import asyncio
import functools
import inspect
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from contextlib import ExitStack
from contextvars import ContextVar
from types import CodeType, FrameType
from typing import Any, Protocol
from unittest import mock
from weakref import WeakSet

from pytest_arena._app._client import HOPS
from pytest_arena._app._kind import is_wsgi, unwrapped
from pytest_arena._app._login import is_logging_in
from pytest_arena._ledger import Request
from pytest_arena._process import context_of
from pytest_arena._run._apps import Apps
from pytest_arena.scenarios.evidence._document import NO_ROUTE
from pytest_arena.scenarios.requests._record import RequestRecord

# A traceback of the app or of a test ends at a line of the app or the test.
__tracebackhide__ = True

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_REQUESTS = {"http", "websocket"}
_TRACKED = "pytest_arena.tracked"
_MOST_KEPT_APPS = 20

_NO_APP = (
    "arena_app is not set, so the app under test is unknown: arena_app = app.main:app"
)
_FUNCTION = (
    "arena_app is (or returns) a function or a WSGI app, so pytest-arena sees only requests of the "
    "fixtures client and test_client"
)
_UNSEEN = (
    "arena_app is a factory, and the test sent no request to an app that the factory made. Use the "
    "fixture arena_app in the test, or name the app itself"
)

# Values of Sec-Fetch-Dest. Scripts in a browser cannot set this header:
# https://fetch.spec.whatwg.org/#concept-request-destination
_PARTS_OF_A_PAGE = frozenset(
    {
        b"audio",
        b"font",
        b"image",
        b"manifest",
        b"report",
        b"script",
        b"serviceworker",
        b"sharedworker",
        b"style",
        b"track",
        b"video",
        b"worker",
        b"xslt",
    }
)

# The attributes of a response that show the answer to a test.
_LOOKS = frozenset(
    {
        "status_code",
        "reason_phrase",
        "is_success",
        "is_error",
        "is_client_error",
        "is_server_error",
        "is_redirect",
        "has_redirect_location",
        "raise_for_status",
        "headers",
        "cookies",
        "links",
        "content",
        "text",
        "json",
        "read",
        "aread",
        "iter_bytes",
        "iter_text",
        "iter_lines",
        "iter_raw",
        "aiter_bytes",
        "aiter_text",
        "aiter_lines",
        "aiter_raw",
    }
)


class RequestListener(Protocol):
    """Receives the events of each request. Its methods run inside the app, and never raise."""

    wants_bodies: bool

    def wants(self, app: object) -> bool:
        """Return whether requests to this app are tracked now."""

    def begins(self, request: RequestRecord) -> None:
        """Called before the app answers. pytest-arena has committed pending work of the test."""

    def sending(self, request: RequestRecord, send: Send) -> Send:
        """Return the ``send`` that the app is to call."""

    def answers(self, request: RequestRecord) -> None:
        """Called before the last part of an answer is sent, or a websocket is accepted."""

    async def returned(self, request: RequestRecord) -> None:
        """Called when the app has returned without an error, before ``ends``."""

    def ends(self, request: RequestRecord) -> None:
        """Called when the app has returned and its background tasks have ended."""


_request: ContextVar[RequestRecord | None] = ContextVar(
    "arena: the request that the app answers", default=None
)
_in_lifespan: ContextVar[bool] = ContextVar("arena: the app's lifespan", default=False)
_under_way: list[RequestRecord] = []


def request_now() -> RequestRecord | None:
    """Return the request that the calling code works for.

    A thread without a request's context works for the only open request, if there is exactly one.
    """
    request = _request.get()
    if request:
        if request.is_over:
            return None
        return request
    requests = list(_under_way)  # a copy, because other threads end requests
    if len(requests) == 1:
        return requests[0]
    return None


def request_of(task: asyncio.Task[object]) -> RequestRecord | None:
    """Return the request in which a task was begun."""
    return context_of(task).get(_request)


def is_in_lifespan() -> bool:
    """Return whether the app's lifespan, or work that it began, calls this function."""
    return _in_lifespan.get()


class RequestTracker:
    """Reports each request of any client to the app under test.

    It wraps ``__call__`` of the app's class, because a foreign client calls the app directly.
    ``arena_app`` names the app under test, or the fixture ``arena_app`` returned it. Apps inside
    its middleware, and each app that the factory made, count as well.

    Cost of a request: some microseconds, and the time of the listener.
    """

    def __init__(self, apps: Callable[[], Apps], listener: RequestListener) -> None:
        self._apps = apps
        self._listener = listener
        self._records: dict[Request, RequestRecord] = {}  # of the running test
        self._patches = ExitStack()
        self._wrappers: set[object] = set()
        self._made_apps: WeakSet[object] = WeakSet()
        # Litestar's apps cannot be referred to weakly.
        self._last_made_apps: deque[object] = deque(maxlen=_MOST_KEPT_APPS)

    # Apps.

    def open(self) -> None:
        """Track the apps of all imported frameworks. A further call has no effect."""
        factory = self._apps().factory
        for kind in _imported_frameworks():
            self._wrap_call(kind)
            if factory is not None and "__init__" in vars(kind):
                self._wrap_init(kind, _code_of(factory))
        if factory is None:
            self.watch(self._apps().named)

    def watch(self, app: object) -> None:
        """Track an app and the apps inside it. Calls of a function cannot be tracked."""
        for part in unwrapped(app):
            if _is_trackable(part):
                self._wrap_call(type(part))

    def close(self) -> None:
        """Remove all wrappers."""
        self._patches.close()
        self._wrappers.clear()
        self._records.clear()

    def _wrap_call(self, kind: type[object]) -> None:
        original = kind.__call__
        if original in self._wrappers:
            return

        @functools.wraps(original)
        async def call_and_report(
            app: object,
            scope: Scope,
            receive: Receive,
            send: Send,
        ) -> None:
            call = functools.partial(original, app)
            await self.enter(app, call, scope, receive, send)

        self._wrappers.add(call_and_report)
        patch = mock.patch.object(kind, "__call__", call_and_report)
        self._patches.enter_context(patch)

    def _wrap_init(self, kind: Any, factory_code: CodeType | None) -> None:
        original = kind.__init__
        if original in self._wrappers:
            return

        @functools.wraps(original)
        def init_and_keep(
            app: object,
            *args: object,
            **options: object,
        ) -> None:
            original(app, *args, **options)
            # Only the stack shows whether the factory makes this app.
            if not _is_on_stack(factory_code, sys._getframe(1)):  # noqa: SLF001 - the caller
                return
            try:
                self._made_apps.add(app)
            except TypeError:
                self._last_made_apps.append(app)

        self._wrappers.add(init_and_keep)
        self._patches.enter_context(
            mock.patch.object(
                kind,
                "__init__",
                init_and_keep,
            )
        )

    def is_under_test(self, app: object) -> bool:
        """Return whether this is the app under test."""
        apps = self._apps()
        if isinstance(apps.factory, type) and isinstance(app, apps.factory):
            return True
        if apps.knows(app) or app in self._made_apps:
            return True
        return any(app is made for made in self._last_made_apps)

    def doubt(self, *, has_requested_other_app: bool) -> str:
        """Return why pytest-arena may have missed requests of a test, or "" without doubt.

        Called only after a test without a recorded request.
        """
        apps = self._apps()
        if apps.named is None and apps.fixture_app is None:
            return _NO_APP
        for app in (apps.fixture_app, None if apps.factory else apps.named):
            if app is not None and not _is_trackable(app):
                return _FUNCTION
        if apps.factory is not None:
            has_app = (
                self._made_apps or self._last_made_apps or apps.fixture_app is not None
            )
            if has_app and not has_requested_other_app:
                return ""
            return _UNSEEN
        return ""

    # Requests.

    def forget(self) -> None:
        """Drop the records of all requests."""
        self._records.clear()

    async def enter(
        self,
        app: object,
        call: Any,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        """Call an app. Report the request unless an outer app has reported it."""
        kind = scope.get("type")
        if kind == "lifespan":
            token = _in_lifespan.set(True)
            try:
                await call(scope, receive, send)
            finally:
                _in_lifespan.reset(token)
        elif kind in _REQUESTS and _TRACKED not in scope and self._listener.wants(app):
            scope[_TRACKED] = True
            await self._answer(app, call, scope, receive, send)
        else:
            await call(scope, receive, send)

    async def _answer(
        self,
        app: object,
        call: Any,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        listener = self._listener
        record = self._new_record(scope)
        if listener.wants_bodies:
            receive = _noting_body(record, receive)
        token = _request.set(record)
        _under_way.append(record)
        listener.begins(record)
        try:
            altered_send = listener.sending(record, send)
            await call(
                scope,
                receive,
                _noting_status(record, altered_send, listener),
            )
            await listener.returned(record)
        finally:
            record.end(_route(app, scope))
            _under_way.remove(record)
            _request.reset(token)
            listener.ends(record)

    def _new_record(self, scope: Scope) -> RequestRecord:
        """Return the record of the client's ``Request``, or a new one for a foreign client."""
        hops = HOPS.get(None)
        request = hops[-1] if hops else None
        if request is None or request in self._records:
            role = request.role if request else None
            method = scope.get("method", "WEBSOCKET")
            request = Request(
                method=method,
                path=scope.get("path", ""),
                role=role,
            )
        record = RequestRecord(
            request,
            query=scope.get("query_string", b"").decode("latin-1"),
            is_login=is_logging_in(),
            is_by_browser=_is_by_browser(scope),
        )
        self._records[request] = record
        return record

    def note_answer(self, response: Any) -> None:
        """Make a response of our client note when the test looks at it."""
        record = self._records.get(response.extensions.get("arena"))
        if record is None or record.number < 0:
            return
        self._listener.answers(record)  # a test may read a stream before its end
        if record.request.method == "WEBSOCKET":
            return
        record.note_observed(is_observed=False)
        try:
            kind: Any = type(response)
            response.extensions[_TRACKED] = record
            response.__class__ = _observing(kind)
        except TypeError:  # the class of this response cannot be replaced
            record.note_observed(is_observed=None)


def _imported_frameworks() -> list[type[object]]:
    """Return the app classes of imported frameworks. Imports nothing."""
    names = {
        "starlette.applications": "Starlette",
        "fastapi.applications": "FastAPI",
        "litestar.app": "Litestar",
    }
    frameworks = []
    for module, name in names.items():
        kind = getattr(sys.modules.get(module), name, None)
        if kind:
            frameworks.append(kind)
    return frameworks


def _is_trackable(app: object) -> bool:
    """Return whether calls of an app use ``__call__`` of its class.

    Calls of a function do not. A WSGI app has a wrapper, which is tracked.
    """
    if is_wsgi(app) or type(app).__module__ == "builtins":
        return False
    return not isinstance(app, type | functools.partial)


def _code_of(factory: Any) -> CodeType | None:
    while isinstance(factory, functools.partial):
        factory = factory.func
    function = inspect.unwrap(getattr(factory, "__func__", factory))
    code = getattr(function, "__code__", None)
    return code or getattr(type(function).__call__, "__code__", None)


def _is_on_stack(code: CodeType | None, frame: FrameType | None) -> bool:
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back
    return frame is not None


def _is_by_browser(scope: Scope) -> bool:
    """Return whether a browser sends this request by itself, such as for an icon or a prefetch.

    Requests for a page, of a form and of a script are requests of the test.
    """
    headers = dict(scope.get("headers", ()))
    if b"sec-purpose" in headers:
        return True
    return headers.get(b"sec-fetch-dest") in _PARTS_OF_A_PAGE


def _noting_body(record: RequestRecord, receive: Receive) -> Receive:
    async def receive_and_note() -> Message:
        message = await receive()
        record.note_body(message)
        return message

    return receive_and_note


def _noting_status(
    record: RequestRecord,
    send: Send,
    listener: RequestListener,
) -> Send:
    async def note_and_send(message: Message) -> None:
        record.note_status(message)
        kind = message["type"]
        is_body = kind.endswith("http.response.body")
        is_last_part = is_body and not message.get("more_body")
        # The listener is called first, because a waiting client may continue before `send` returns.
        if is_last_part or kind == "websocket.accept":
            listener.answers(record)
        await send(message)

    return note_and_send


def _route(app: object, scope: Scope) -> str:
    """Return the template of the path, ``/battles/{battle_id}``, or "" if the framework has none.

    ``NO_ROUTE`` if the router of Starlette or Litestar has no route for the path.
    """
    litestar_template = scope.get("path_template")
    if litestar_template:
        return str(litestar_template)
    route = scope.get("route")
    path = getattr(route, "path_format", None) or getattr(route, "path", None)
    if path is None:  # before Starlette 1.0
        endpoint = scope.get("endpoint")
        if endpoint:
            return _template_of(endpoint, getattr(app, "routes", ()))
        has_router = "router" in scope or "litestar_app" in scope
        return NO_ROUTE if has_router else ""
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


@functools.cache
def _observing(kind: Any) -> type:
    """Return a subclass of a response's class that notes the first look at the answer."""

    def __getattribute__(self: Any, name: str) -> object:  # noqa: N807 - the method of the class below
        if name in _LOOKS:
            object.__setattr__(self, "__class__", kind)
            record = self.extensions.pop(_TRACKED)
            record.note_observed(is_observed=True)
        return kind.__getattribute__(self, name)

    names = {
        "__qualname__": kind.__qualname__,
        "__module__": kind.__module__,
        "__getattribute__": __getattribute__,
    }
    return type(kind.__name__, (kind,), dict(names))

"""Which requests reach the app under test, by whichever client?"""

from __future__ import annotations

import functools
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from pytest_arena._app._kin import frameworks
from pytest_arena._app._login import is_logging_in

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, MutableMapping

    Scope = MutableMapping[str, Any]
    Run = Callable[[Any, Any, Any], Awaitable[None]]

__all__ = [
    "ASKING",
    "Asking",
    "Door",
    "Listener",
    "Reached",
    "Saboteur",
    "is_by_itself",
    "is_watchable",
    "listened",
    "request_now",
    "unwrapped",
]


@dataclass(slots=True, eq=False)
class Asking:
    """One request of a client of ours, and what has reached the app of it: its redirects, too."""

    role: str | None
    reached: list[Reached] = field(default_factory=list)


ASKING: ContextVar[Asking | None] = ContextVar("arena: a client of ours is asking", default=None)


@dataclass(slots=True, eq=False)
class Reached:
    """One request that has reached the app under test."""

    method: str  # WEBSOCKET for the opening of one
    path: str
    query: str
    role: str | None  # as whom a client of ours is logged in
    is_login: bool  # part of the login of a client of ours
    route: str = ""
    status: int | None = None
    is_over: bool = False
    is_observed: bool | None = None  # whether the test has looked at the answer
    number: int = -1  # its place among the test's; a login's has none
    is_preparation: bool = False  # made in set-up, or in a Given block
    body: bytes | None = None  # what was sent, where somebody wants it
    details: Any = None  # whatever the listener keeps with it


class Saboteur(Protocol):
    """Breaks something around a request, to see whether the test notices."""

    def begins(self, request: Reached) -> None:
        """A request is about to be answered; what was pending is committed."""

    def sending(self, request: Reached, send: Any) -> Any:
        """Return what the app is to send its answer by."""

    def ends(self, request: Reached) -> None:
        """A request is over, with all that the app does after its answer."""


class Listener(Saboteur, Protocol):
    """Wants to know of each request. Its calls stand in the way of the app: they never raise."""

    wants_bodies: bool

    def is_under_test(self, app: object) -> bool:
        """Whether this is the app that the running test is about."""

    def answers(self, request: Reached) -> None:
        """The last of an answer is about to be sent, or a websocket to be accepted."""


_request: ContextVar[Reached | None] = ContextVar("arena: the app answers", default=None)
_under_way: list[Reached] = []


def request_now() -> Reached | None:
    """Return the request that the code which calls this works for.

    In a thread that has no context of a request's it is the one that is under way, if one alone is.
    """
    request = _request.get()
    if request is None:
        alone = list(_under_way)  # one may end meanwhile, in another thread
        return alone[0] if len(alone) == 1 else None
    return None if request.is_over else request


# Classes of apps of which the calls are watched, and whether they had a `__call__` of their own.
_classes: dict[type, tuple[bool, Any]] = {}
_listeners: list[Listener] = []


class Door:
    """Stands before apps: from `open` until `close` the listener is told who comes in.

    The calls of the app's class are wrapped, as a client that is not ours calls the app itself.
    Cost of a request: some microseconds, and what the listener does.
    """

    def __init__(self, listener: Listener) -> None:
        self._listener = listener

    def open(self) -> None:
        """From here on tell the listener. Idempotent."""
        if self._listener not in _listeners:
            _listeners.append(self._listener)

    def watch(self, app: object) -> None:
        """Wrap the calls of an app's class, and of what it wraps; a function's cannot be."""
        for one in unwrapped(app):
            if is_watchable(one):
                self.watch_class(type(one))

    def watch_class(self, kind: type[Any]) -> None:
        """Wrap the calls of all apps of a class."""
        if kind not in _classes:
            _wrap(kind)

    def close(self) -> None:
        """Tell nobody any more, and leave the classes as they were."""
        if self._listener in _listeners:
            _listeners.remove(self._listener)
        if not _listeners:
            for kind in list(_classes):
                _unwrap(kind)


def unwrapped(app: object) -> Iterator[object]:
    """The app, and what it wraps as middleware does.

    By an attribute ``app``; else a framework's app in any attribute, closure or argument.
    """
    known: list[object] = []
    while app is not None and not any(app is one for one in known):
        known.append(app)
        yield app
        app = _inside(app)


def _inside(app: object) -> object:
    kinds = tuple(frameworks())
    if isinstance(app, kinds):
        return None
    held = dict(vars(app)) if hasattr(app, "__dict__") else {}
    if (inner := held.get("app")) is not None:
        return inner
    found = [*held.values(), *_bound(app)]
    return next((one for one in found if isinstance(one, kinds)), None)


def _bound(app: Any) -> Iterator[object]:
    """What a function has in its closure, a partial in its arguments, a method as its self."""
    if isinstance(app, functools.partial):
        yield from (*app.args, *app.keywords.values())
    yield getattr(app, "__self__", None)
    for cell in getattr(app, "__closure__", None) or ():
        with suppress(ValueError):  # it is empty
            yield cell.cell_contents


def is_watchable(app: object) -> bool:
    """Whether it is an instance of somebody's class: a function's calls go by no attribute."""
    return type(app).__module__ != "builtins" and not isinstance(app, type | functools.partial)


def _wrap(kind: type[Any]) -> None:
    original = kind.__call__

    @functools.wraps(original)
    async def called(self: Any, scope: Scope, receive: Any, send: Any) -> None:
        __tracebackhide__ = True
        await listened(self, functools.partial(original, self), scope, receive, send)

    _classes[kind] = "__call__" in vars(kind), original
    kind.__call__ = called


def _unwrap(kind: type[Any]) -> None:
    is_own, original = _classes.pop(kind)
    if is_own:
        kind.__call__ = original
    else:
        del kind.__call__


_SEEN = "pytest_arena.reached"


async def listened(app: object, run: Run, scope: Scope, receive: Any, send: Any) -> None:
    """Call an app, and tell the listener, if that is the app under test and this its first call."""
    __tracebackhide__ = True
    listener = _listeners[-1] if _listeners else None
    is_request = scope.get("type") in {"http", "websocket"} and _SEEN not in scope
    if scope.get("type") == "lifespan":
        with _by_itself():
            await run(scope, receive, send)
        return
    if listener is None or not is_request or not listener.is_under_test(app):
        await run(scope, receive, send)
        return
    scope[_SEEN] = True
    request = _request_of(scope)
    if listener.wants_bodies:
        receive = _noting_body(request, receive)
    token = _request.set(request)
    _under_way.append(request)
    listener.begins(request)
    try:
        sending = listener.sending(request, send)
        try:
            await run(scope, receive, _noting_status(request, sending, listener))
        finally:
            request.route = _route(app, scope)
    finally:
        request.is_over = True
        _under_way.remove(request)
        _request.reset(token)
        listener.ends(request)


_alone: ContextVar[bool] = ContextVar("arena: the app starts, or ends", default=False)


def is_by_itself() -> bool:
    """Whether the code which calls this is the app's lifespan, or was begun by it."""
    return _alone.get()


@contextmanager
def _by_itself() -> Iterator[None]:
    token = _alone.set(True)
    try:
        yield
    finally:
        _alone.reset(token)


def _request_of(scope: Scope) -> Reached:
    asking = ASKING.get()
    is_http = scope["type"] == "http"
    request = Reached(
        method=scope["method"] if is_http else "WEBSOCKET",
        path=scope.get("path", ""),
        query=scope.get("query_string", b"").decode("latin-1"),
        role=asking.role if asking else None,
        is_login=is_logging_in(),
    )
    if asking is not None:
        asking.reached.append(request)
    return request


def _noting_status(request: Reached, send: Any, listener: Listener) -> Any:
    async def noting(message: Any) -> None:
        __tracebackhide__ = True
        if request.status is None:
            request.status = _status(message)
        if _is_all(message):  # whoever waits for it in another thread may go on before we do
            listener.answers(request)
        await send(message)

    return noting


def _is_all(message: Any) -> bool:
    kind = message["type"]
    is_last = kind.endswith("http.response.body") and not message.get("more_body")
    return is_last or kind == "websocket.accept"


_SWITCHED, _FORBIDDEN = (
    101,
    403,
)  # what a server answers where an app takes, or refuses, a websocket


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


def _noting_body(request: Reached, receive: Any) -> Any:
    async def noting() -> Any:
        __tracebackhide__ = True
        message = await receive()
        part = message.get("body") or message.get("bytes") or (message.get("text") or "").encode()
        request.body = ((request.body or b"") + part)[:_MOST_BYTES]
        return message

    return noting


def _route(app: object, scope: Scope) -> str:
    """Return the template of the path, ``/battles/{battle_id}``; "" where nobody says it."""
    if template := scope.get("path_template"):  # Litestar's
        return str(template)
    endpoint, route = scope.get("endpoint"), scope.get("route")
    path = getattr(route, "path_format", None) or getattr(route, "path", None)
    if path is None:  # before Starlette 1.0
        return _template_of(endpoint, getattr(app, "routes", ())) if endpoint else ""
    root = str(scope.get("root_path", ""))
    return f"{root.removeprefix(str(scope.get('app_root_path', root)))}{path}"  # of mounts


def _template_of(endpoint: object, routes: Any) -> str:
    for route in routes:
        if getattr(route, "endpoint", None) is endpoint:
            return str(route.path)
        below = _template_of(endpoint, getattr(route, "routes", None) or ())
        if below:
            return f"{route.path}{below}"
    return ""

"""Recognizes ASGI apps, WSGI apps and their factories."""

import functools
import inspect
import math
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from enum import Enum, auto
from importlib.util import find_spec
from typing import Any, cast

from pytest_arena._app import _app_errors
from pytest_arena._origin import A2WSGI_PREFIX, A2WSGI_THREADS

__tracebackhide__ = True  # a traceback of the app or of a test ends at its own line

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]
# Options of a client or of its event loop.
Options = Mapping[str, object]

# The number of arguments of an app.
_ASGI = 3
_WSGI = 2


class _Kind(Enum):
    ASGI = auto()
    FACTORY = auto()
    ASYNC_FACTORY = auto()
    WSGI = auto()
    OTHER = auto()


_REFUSALS = {
    _Kind.ASYNC_FACTORY: _app_errors.async_factory,
    _Kind.OTHER: _app_errors.no_app,
}


def check_app(app: object, path: str) -> bool:
    """Return whether an object is a factory of an app. Refuse it if it is no app either.

    This calls neither the app nor the factory.

    Args:
        app: the object that the option ``arena_app`` names.
        path: the option's value, for the message.

    Raises:
        ConfigError: it is a WSGI app (Flask) and a2wsgi is not installed, an async factory, a
            factory that needs arguments, or another object.

    Example::

        check_app(main.app, "main:app")
    """
    kind = _kind_of(app)
    _refuse_unfit(app, kind, f"arena_app = {path}")
    return kind is _Kind.FACTORY


def _refuse_unfit(app: object, kind: _Kind, what: str) -> None:
    refusal = _REFUSALS.get(kind)
    if kind is _Kind.WSGI and find_spec("a2wsgi") is None:
        refusal = _app_errors.no_a2wsgi
    if refusal is not None:
        raise refusal(app, what)


def may_be_app(thing: object) -> bool:
    """Return whether this may be the value of ``arena_app``: an app, or a function."""
    is_instance = callable(thing) and not inspect.isclass(thing)
    is_session_maker = type(thing).__module__.startswith("sqlalchemy.")
    return is_instance and not is_session_maker and _kind_of(thing) not in _REFUSALS


def build_app(app: object) -> ASGIApp:
    """Return the app itself, or the app that a factory creates.

    A factory is a callable without required parameters that is no ASGI app. Each call of
    ``build_app`` calls it once, and raises its errors unchanged. The caller wraps a WSGI app by
    ``as_asgi``.

    Raises:
        ConfigError: the object is no app, and returns none.

    Example::

        run = AppRun(build_app(main.create_app), hooks=hooks)
    """
    kind = _kind_of(app)
    what = "the app"
    if kind is _Kind.FACTORY:
        what = f"what {_app_errors.describe(app)} returns"
        app = cast("Callable[[], object]", app)()
        kind = _kind_of(app)
        if kind is _Kind.FACTORY:
            raise _app_errors.no_app(app, what)
    if inspect.iscoroutine(app):
        app.close()  # otherwise Python warns that it was never awaited
    _refuse_unfit(app, kind, what)
    return cast("ASGIApp", app)


def _kind_of(app: object) -> _Kind:
    if not callable(app):
        return _Kind.OTHER
    required, most = _arity(app)
    if required <= _ASGI <= most and (is_async(app) or required == _ASGI):
        return _Kind.ASGI
    if required == 0:
        return _Kind.ASYNC_FACTORY if is_async(app) else _Kind.FACTORY
    if not is_async(app) and is_wsgi(app):
        return _Kind.WSGI
    return _Kind.OTHER


def is_wsgi(app: object) -> bool:
    """Return whether this is a WSGI app: its second argument is ``start_response``.

    PEP 3333 gives the argument this name. A factory of two arguments has other names.
    """
    if not callable(app) or inspect.isclass(app):
        return False
    try:
        parameters = list(inspect.signature(app).parameters.values())
    except ValueError:
        return False
    required = [
        parameter for parameter in parameters if parameter.default is parameter.empty
    ]
    return len(required) == _WSGI and required[1].name.strip("_") == "start_response"


def as_asgi(app: Any) -> ASGIApp:
    """Return an ASGI app: the app itself, or a wrapper that calls a WSGI app in a thread."""
    if is_async(app) or not is_wsgi(app):  # the first check is the cheaper one
        return cast("ASGIApp", app)
    from a2wsgi import WSGIMiddleware

    asgi_app = WSGIMiddleware(app)
    # Each test may wrap the app. All wrappers share the threads.
    asgi_app.executor = _wsgi_threads()
    return cast("ASGIApp", asgi_app)


@functools.cache
def _wsgi_threads() -> ThreadPoolExecutor:
    """Return the threads in which this process calls WSGI apps."""
    return ThreadPoolExecutor(A2WSGI_THREADS, A2WSGI_PREFIX)


def _arity(app: Callable[..., object]) -> tuple[int, float]:
    """Return the number of required arguments, and the most arguments by position."""
    try:
        parameters = inspect.signature(app).parameters.values()
    except ValueError:
        # A callable in C without a signature. `is_async` decides.
        return 0, math.inf
    required = 0
    most: float = 0
    for parameter in parameters:
        if parameter.kind is parameter.VAR_POSITIONAL:
            most = math.inf
        elif parameter.kind in _BY_POSITION:
            most += 1
        if parameter.default is parameter.empty and parameter.kind not in _REST:
            required += 1
    return required, most


_BY_POSITION = {
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
}
_REST = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}


def is_async(app: object) -> bool:
    """Return whether this is an async function, or an object with an async `__call__`."""
    while isinstance(app, functools.partial):
        app = app.func
    if inspect.iscoroutinefunction(app):
        return True
    return not inspect.isclass(app) and inspect.iscoroutinefunction(type(app).__call__)


def is_litestar(app: object) -> bool:
    """Return whether this is a Litestar app. Import nothing: such an app has imported Litestar."""
    litestar = sys.modules.get("litestar")
    return litestar is not None and isinstance(app, litestar.Litestar)


_MODULES_OF_APPS = {"flask.app", "litestar.app", "starlette.applications"}


def is_frameworks_app(value: object) -> bool:
    """Return whether this is an app of Starlette, FastAPI, Litestar or Flask. Import nothing."""
    kind: type = type(value)
    modules = {base.__module__ for base in kind.__mro__}
    return not modules.isdisjoint(_MODULES_OF_APPS)


def unwrapped(app: object) -> Iterator[object]:
    """Yield an app, and the apps that it wraps by an attribute ``app``, like middleware."""
    for _ in range(10):  # a mock has any attribute
        yield app
        app = getattr(app, "app", None)
        if app is None:
            return


def apps_of(app: object, deepest: int = 3) -> Iterator[object]:
    """Yield an app and the apps that are mounted in it."""
    for part in unwrapped(app):
        yield part
        mounted = _mounted_in(part) if deepest else []
        for inner in mounted:
            yield from apps_of(inner, deepest - 1)


def _mounted_in(app: object) -> list[object]:
    mounted: list[object] = []
    mounts = getattr(app, "mounts", None)  # of Werkzeug's DispatcherMiddleware
    if isinstance(mounts, dict):
        mounted.extend(mounts.values())
    for route in _routes(app):
        # Of Starlette's classes only Mount and Host have `routes`. Both hold an app.
        if hasattr(route, "routes") and hasattr(route, "app"):
            mounted.append(route.app)
    return mounted


def _routes(app: object) -> list[Any]:
    """Return an app's routes, also those in routers that FastAPI includes."""
    own_routes = getattr(app, "routes", None)
    routes: list[Any] = []
    if not isinstance(own_routes, list):  # a mock has any attribute
        return routes
    for route in own_routes:
        router = getattr(route, "original_router", None)
        if router is None:
            routes.append(route)
        else:
            routes += _routes(router)
    return routes

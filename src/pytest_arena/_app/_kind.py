"""Recognizes ASGI apps, WSGI apps and their factories."""

import functools
import inspect
import sys
from collections.abc import (
    Awaitable,
    Callable,
    Coroutine,
    Mapping,
    MutableMapping,
)
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from typing import Any, cast

from pytest_arena._app import _app_errors
from pytest_arena._config._load import problem_of_call, signature

__tracebackhide__ = True  # a traceback of the app or of a test ends at its own line

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Coroutine[Any, Any, None]]
# Options of a client or of its event loop.
Options = Mapping[str, object]

# The frameworks whose apps pytest-arena knows: the module and the name of the class of an app.
FRAMEWORKS = {
    "starlette.applications": "Starlette",  # and FastAPI
    "litestar.app": "Litestar",
    "flask.app": "Flask",
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
    """
    if _is_factory(app):
        return True
    _refuse_other(app, f"arena_app = {path}")
    return False


def build_app(app: Any) -> ASGIApp:
    """Return the app itself, or the app that a factory creates.

    A factory is a callable without required parameters that is no ASGI app. Each call of
    ``build_app`` calls it once, and raises its errors unchanged. The caller wraps a WSGI app by
    ``as_asgi``.

    Raises:
        ConfigError: the object is no app, and returns none.
    """
    what = "the app"
    if _is_factory(app):
        what = f"what {_app_errors.describe(app)} returns"
        app = app()
    if inspect.iscoroutine(app):
        app.close()  # otherwise Python warns that it was never awaited
    _refuse_other(app, what)
    return cast("ASGIApp", app)


def _refuse_other(app: object, what: str) -> None:
    """Refuse an object that is neither an ASGI app nor a WSGI app."""
    if _is_asgi(app):
        return
    if not is_async(app) and is_wsgi(app):
        if find_spec("a2wsgi") is None:
            raise _app_errors.not_installed(f"a WSGI app ({what})", "a2wsgi", "wsgi")
        return
    raise _app_errors.no_app(app, what)


def _is_asgi(app: object) -> bool:
    # It gets three arguments, and a WSGI app two.
    if problem_of_call(app, "scope", "receive", "send"):
        return False
    return is_async(app) or bool(problem_of_call(app, "environ", "start_response"))


def _is_factory(app: object) -> bool:
    return not problem_of_call(app) and not is_async(app)


def is_wsgi(app: object) -> bool:
    """Return whether this is a WSGI app: its second argument is ``start_response``.

    PEP 3333 gives the argument this name. A factory of two arguments has other names.
    """
    if inspect.isclass(app):
        return False
    try:
        _, *others = signature(app).parameters
    except (TypeError, ValueError):  # written in C, or without parameters
        return False
    return [name.strip("_") for name in others] == ["start_response"]


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
    return ThreadPoolExecutor(10, "WSGI")


def is_async(app: object) -> bool:
    """Return whether this is an async function, or an object with an async `__call__`."""
    while isinstance(app, functools.partial):
        app = app.func
    if inspect.iscoroutinefunction(app):
        return True
    return not inspect.isclass(app) and inspect.iscoroutinefunction(
        getattr(type(app), "__call__", None)  # noqa: B004 - not whether it is callable
    )


def is_litestar(app: object) -> bool:
    """Return whether this is a Litestar app. Import nothing: such an app has imported Litestar."""
    litestar = sys.modules.get("litestar")
    return litestar is not None and isinstance(app, litestar.Litestar)

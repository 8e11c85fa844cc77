"""Which ways lead into the app?"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

from pytest_arena._app._kind import is_litestar
from pytest_arena._values import Route

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["routes"]

# What a framework answers by itself, beside a GET and for any path.
_BY_ITSELF = frozenset({"HEAD", "OPTIONS"})


def routes(app: object) -> tuple[Route, ...]:
    """Return the routes of a FastAPI, Starlette or Litestar app, with those of mounted apps.

    Middleware around the app is looked through. An app of another kind has none. Sorted by path.
    """
    app = _inside(app)
    found = _of_litestar(app) if is_litestar(app) else _of_starlette(_listed(app), prefix="")
    return tuple(sorted(set(found)))


def _inside(app: object) -> object:
    """The app itself, where ASGI middleware was put around it by hand."""
    seen: set[int] = set()
    while not hasattr(app, "routes") and hasattr(app, "app") and id(app) not in seen:
        seen.add(id(app))
        app = app.app
    return app


def _listed(app: object) -> Iterable[Any]:
    found = getattr(app, "routes", None)
    return found if isinstance(found, list | tuple) else ()


def _of_starlette(listed: Iterable[Any], *, prefix: str) -> Iterator[Route]:
    for route in _flat(listed):
        path = f"{prefix}{getattr(route, 'path', None) or ''}"
        inner = _listed(route)
        if inner:
            yield from _of_starlette(inner, prefix=path.rstrip("/"))
        elif path and (endpoint := getattr(route, "endpoint", None)):
            name = str(getattr(route, "name", None) or getattr(endpoint, "__name__", ""))
            for method in _methods(route, endpoint):
                yield Route(_plain(path), method, name)


def _flat(listed: Iterable[Any]) -> Iterable[Any]:
    """The routes of included routers, too: FastAPI keeps these apart since 0.137.

    https://github.com/fastapi/fastapi/pull/15785
    """
    fastapi = sys.modules.get("fastapi.routing")
    contexts = getattr(fastapi, "iter_route_contexts", None)
    return contexts(listed) if contexts else listed


def _methods(route: Any, endpoint: object) -> Iterable[str]:
    if "WebSocket" in type(getattr(route, "original_route", route)).__name__:
        return ("WEBSOCKET",)
    # Starlette's HTTPEndpoint answers what it has a method for.
    methods = route.methods or _of_class(endpoint)
    return set(methods) - _BY_ITSELF


def _of_class(endpoint: object) -> Iterable[str]:
    verbs = ("get", "post", "put", "patch", "delete")
    return [verb.upper() for verb in verbs if hasattr(endpoint, verb)] or ["GET"]


def _of_litestar(app: Any) -> Iterator[Route]:
    for route in app.routes:
        for handler in getattr(route, "route_handlers", ()):
            for method in set(handler.http_methods) - _BY_ITSELF:
                yield Route(_plain(route.path), str(method), handler.name or handler.handler_name)
        if "WebSocket" in type(route).__name__:
            handler = route.route_handler
            yield Route(_plain(route.path), "WEBSOCKET", handler.name or handler.handler_name)


def _plain(path: str) -> str:
    """Without the types of parameters, but for the one that takes more than one part."""
    return re.sub(r":(?!path\})\w+\}", "}", path)

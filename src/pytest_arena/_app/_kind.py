"""What did the user give us as the app?"""

from __future__ import annotations

import functools
import inspect
import math
import sys
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import suppress
from enum import Enum, auto
from typing import Any, cast

from pytest_arena._app import _app_errors

__tracebackhide__ = True  # a traceback of the app or of a test ends at its own line

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
ASGIApp = Callable[
    [Scope, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]],
    Awaitable[None],
]

# How many arguments each kind of app is called with.
_ASGI, _WSGI = 3, 2


class _Kind(Enum):
    ASGI = auto()
    FACTORY = auto()
    ASYNC_FACTORY = auto()
    WSGI = auto()
    OTHER = auto()


_REFUSALS = {
    _Kind.WSGI: _app_errors.wsgi_app,
    _Kind.ASYNC_FACTORY: _app_errors.async_factory,
    _Kind.OTHER: _app_errors.no_app,
}


def check_app(app: object, path: str) -> bool:
    """Refuse what is neither an ASGI app nor a factory of one. Calls nothing.

    Returns whether it is a factory.

    Args:
        app: what the option ``arena_app`` names.
        path: the option's value, for the message.

    Raises:
        ConfigError: a WSGI app (whatever takes two arguments, such as a Flask instance), an async
            factory, a factory that needs arguments, or anything else.

    Example::

        check_app(main.app, "main:app")
    """
    kind = _kind_of(app)
    if refuse := _REFUSALS.get(kind):
        raise refuse(app, f"arena_app = {path}")
    return kind is _Kind.FACTORY


def may_be_app(thing: object) -> bool:
    """Whether it could be what somebody meant by ``arena_app``: an app, or a function."""
    is_instance = callable(thing) and not inspect.isclass(thing)
    is_session_maker = type(thing).__module__.startswith("sqlalchemy.")
    return is_instance and not is_session_maker and _kind_of(thing) not in _REFUSALS


def build_app(app: object) -> ASGIApp:
    """Return the ASGI app: what a factory makes, else the app itself.

    A factory is a callable without required parameters that is no ASGI app itself; each call of
    ``build_app`` calls it once, and its own errors pass unchanged. An app comes back as the very
    object that it is.

    Raises:
        ConfigError: there is no ASGI app in it.

    Example::

        run = AppRun(build_app(main.create_app), hooks=hooks)
    """
    kind = _kind_of(app)
    if kind is _Kind.FACTORY:
        made = cast("Callable[[], object]", app)()
        return _as_asgi(made, _kind_of(made), f"what {_app_errors.describe(app)} returns")
    return _as_asgi(app, kind, "the app")


def _as_asgi(app: object, kind: _Kind, what: str) -> ASGIApp:
    if kind is _Kind.ASGI:
        return cast("ASGIApp", app)
    if inspect.iscoroutine(app):
        app.close()  # else Python warns that nobody awaited it
    raise _REFUSALS.get(kind, _app_errors.no_app)(app, what)


def _kind_of(app: object) -> _Kind:
    if not callable(app):
        return _Kind.OTHER
    required, most = _arity(app)
    if required <= _ASGI <= most and (is_async(app) or required == _ASGI):
        return _Kind.ASGI
    if is_async(app):
        return _Kind.OTHER if required else _Kind.ASYNC_FACTORY
    return {0: _Kind.FACTORY, _WSGI: _Kind.WSGI}.get(required, _Kind.OTHER)


def _arity(app: Callable[..., object]) -> tuple[int, float]:
    """How many arguments a callable needs, and how many it takes by position."""
    try:
        parameters = inspect.signature(app).parameters.values()
    except ValueError:
        # Something written in C, without a signature: only its being async tells anything.
        return 0, math.inf
    required = [one for one in parameters if one.default is one.empty and one.kind not in _REST]
    by_position = {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}
    if any(each.kind is each.VAR_POSITIONAL for each in parameters):
        return len(required), math.inf
    return len(required), sum(each.kind in by_position for each in parameters)


_REST = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}


def is_async(app: object) -> bool:
    """Whether calling it gives a coroutine: an async function, or an object with one to call."""
    while isinstance(app, functools.partial):
        app = app.func
    if inspect.iscoroutinefunction(app):
        return True
    return not inspect.isclass(app) and inspect.iscoroutinefunction(type(app).__call__)


def is_litestar(app: object) -> bool:
    """Whether it is a Litestar app. Imports nothing: such an app has imported Litestar."""
    litestar = sys.modules.get("litestar")
    return litestar is not None and isinstance(app, litestar.Litestar)


def unwrapped(app: object) -> Iterator[object]:
    """The app, and what it wraps as middleware does, by an attribute ``app``."""
    for _ in range(10):  # a mock has any attribute
        yield app
        if (app := getattr(app, "app", None)) is None:
            return


def enclosed(app: object, deepest: int = 3) -> Iterator[object]:
    """What a function encloses, as middleware that is one does."""
    for cell in (getattr(app, "__closure__", None) or ()) if deepest else ():
        with suppress(ValueError):  # nothing is in it yet
            yield from unwrapped(cell.cell_contents)
            yield from enclosed(cell.cell_contents, deepest - 1)

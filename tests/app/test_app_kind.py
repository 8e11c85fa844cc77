"""What is taken for an app, and what is refused with which word?"""

import functools
import sys
from collections.abc import Awaitable
from typing import Any

import pytest

from pytest_arena._app._kind import build_app, check_app
from pytest_arena.errors import ConfigError
from tests.app.app_samples import Life, fastapi_app, litestar_app, starlette_app


async def asgi_function(scope: Any, receive: Any, send: Any) -> None:
    """An app."""


def plain_asgi_function(scope: Any, receive: Any, send: Any) -> Awaitable[None]:
    """Also an app: what it returns can be awaited."""
    return asgi_function(scope, receive, send)


class AsgiObject:
    """An instance is an app, the class a factory."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Do nothing."""


def factory() -> Any:
    """Make an app."""
    return asgi_function


def factory_with_defaults(config: object = None, *, title: str = "") -> Any:
    """Make an app of nothing or something."""
    return asgi_function


class FlaskLike:
    """What Flask's apps look like."""

    def __call__(self, _environ: Any, _start_response: Any) -> list[bytes]:
        """Answer nothing."""
        return [b""]


def wsgi_function(environ: Any, start_response: Any) -> list[bytes]:
    """Be a bare WSGI app."""
    return [b""]


def noted(function: Any) -> Any:
    """Decorate without changing anything."""
    return function


@noted
async def async_factory() -> Any:
    """Make an app too late."""
    return asgi_function


def factory_of_two(settings: object, start: object) -> Any:
    """Make an app of two things: what a WSGI app takes has other names."""
    return asgi_function


def factory_with_need(settings: object) -> Any:
    """Make an app of something."""
    return asgi_function


@pytest.mark.parametrize(
    "app",
    [
        asgi_function,
        plain_asgi_function,
        AsgiObject(),
        functools.partial(asgi_function),
        starlette_app(Life()),
        fastapi_app(Life()),
        litestar_app(Life()),
        FlaskLike(),
        wsgi_function,
    ],
)
def test_an_app_is_itself(app: object) -> None:
    """An app, of ASGI or WSGI, passes the check, and comes back as the very object that it is."""
    check_app(app, "main:app")
    assert build_app(app) is app


@pytest.mark.parametrize("made", [factory, factory_with_defaults, functools.partial(factory)])
def test_a_factory_is_called(made: object) -> None:
    """Whatever needs no argument is called for the app."""
    check_app(made, "main:create_app")
    assert build_app(made) is asgi_function


def test_a_class_is_a_factory() -> None:
    """A class without required arguments makes an app."""
    check_app(AsgiObject, "main:App")
    assert isinstance(build_app(AsgiObject), AsgiObject)


def test_checking_calls_nothing() -> None:
    """A factory has not run when its test has not begun."""

    def must_not_run() -> None:
        raise AssertionError("it was called")

    check_app(must_not_run, "main:create_app")


@pytest.mark.parametrize(
    "app, word",
    [
        (factory_of_two, "neither an app (ASGI, WSGI) nor a factory without arguments"),
        (async_factory, "an async factory (async_factory()"),
        (factory_with_need, "neither an app (ASGI, WSGI) nor a factory without arguments"),
        ("main:app", "(a str instance)"),
        (pytest, "(a module instance)"),
        (None, "(a NoneType instance)"),
    ],
)
def test_anything_else_is_refused(app: object, word: str) -> None:
    """The word says what it is, and names the option; building says the same."""
    with pytest.raises(ConfigError) as refused:
        check_app(app, "main:app")
    assert word in refused.value.what
    assert refused.value.what.startswith("arena_app = main:app: ")
    with pytest.raises(ConfigError):
        build_app(app)


def test_what_a_factory_makes_is_checked() -> None:
    """A factory of something else is found when it is called."""
    with pytest.raises(ConfigError, match="returns: neither"):
        build_app(lambda: None)


@pytest.mark.slow
@pytest.mark.parametrize(
    "app, word",
    [
        (FlaskLike(), "the app: a WSGI app (a FlaskLike instance)"),
        (wsgi_function, "a WSGI app (wsgi_function(environ: Any, start_response: Any)"),
        (FlaskLike, "what class FlaskLike returns: a WSGI app"),
    ],
)
def test_a_wsgi_app_needs_a2wsgi(app: object, word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra, the refusal says what to install."""
    monkeypatch.setitem(sys.modules, "a2wsgi", None)
    with pytest.raises(ConfigError) as refused:
        build_app(app)
    assert word in refused.value.what
    assert "pytest-arena[wsgi]" in refused.value.fix


def test_a_coroutine_from_a_factory_is_no_app() -> None:
    """A plain function that calls an async one is refused, without a warning of Python's."""
    with pytest.raises(ConfigError) as refused:
        build_app(lambda: async_factory())  # noqa: PLW0108 - the lambda is what is tested
    assert "a coroutine instance" in refused.value.what or "async_factory" in refused.value.what


def test_the_cause_is_a_line_of_the_users() -> None:
    """The message points at the function, past its decorators."""
    with pytest.raises(ConfigError) as refused:
        check_app(async_factory, "main:create_app")
    assert refused.value.cause.endswith("async def async_factory() -> Any:")


def test_a_factorys_own_error_passes() -> None:
    """What the factory raises is the user's to see, unchanged."""

    def broken() -> None:
        raise ValueError("no settings")

    with pytest.raises(ValueError, match="no settings"):
        build_app(broken)

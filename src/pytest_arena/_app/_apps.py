"""The apps: recognizes and wraps them, and restores what a test leaves in them and in clients."""

import functools
import inspect
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from importlib.util import find_spec
from types import ModuleType
from typing import Any, cast
from weakref import WeakSet

from pytest_arena._config._load import line_of_function, problem_of_call, signature
from pytest_arena._interpreter import patch, when_imported
from pytest_arena._owner import Owned, owner_here
from pytest_arena._process import alive
from pytest_arena.errors import ConfigError

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

    This calls neither the app nor the factory. ``path`` is the value of ``arena_app``.
    """
    if not problem_of_call(app) and not is_async(app):
        return True
    _refuse_other(app, f"arena_app = {path}", app)
    return False


def build_app(factory: Any) -> ASGIApp:
    """Return the app that a factory creates. The caller wraps a WSGI app by ``as_asgi``.

    A factory is a callable without required parameters that is no ASGI app. Its errors are raised
    unchanged.
    """
    app = factory()
    _refuse_other(app, f"what {_described(factory)} returns", factory)
    return cast("ASGIApp", app)


def _refuse_other(app: object, what: str, definition: object) -> None:
    """Refuse an object that is neither an ASGI app nor a WSGI app. Name its definition."""
    # It gets three arguments, and a WSGI app two.
    if not problem_of_call(app, "scope", "receive", "send"):
        return
    if not is_async(app) and is_wsgi(app):
        if find_spec("a2wsgi") is None:
            raise not_installed(f"a WSGI app ({what})", "a2wsgi", "wsgi")
        return
    raise ConfigError(
        f"{what}: neither an app (ASGI, WSGI) nor a plain function without arguments "
        f"({_described(app)})",
        why="pytest-arena's clients call the app in this process. It creates the app outside of an "
        "event loop",
        cause=str(line_of_function(definition) or _described(app)),
        fix="name an app, or a function that creates one:\n"
        "def create_test_app():\n"
        "    return create_app(settings)",
    )


def _described(thing: object) -> str:
    """Name an object as its author would: ``create_app()`` or ``an instance of Flask``."""
    name = getattr(thing, "__qualname__", "")
    return f"{name}()" if name else f"an instance of {type(thing).__name__}"


def not_installed(what: str, package: str, extra: str) -> ConfigError:
    """Return the error for a package that is not installed."""
    return ConfigError(
        f"{what} needs {package}, which is not installed",
        why="it is no dependency of pytest-arena: not every suite needs it",
        cause="the environment of this run",
        fix=f'pip install "pytest-arena[{extra}]"',
    )


def is_wsgi(app: object) -> bool:
    """Return whether this is a WSGI app: its second argument is ``start_response``.

    PEP 3333 gives the argument this name. A factory of two arguments has other names.
    """
    try:
        _, *others = signature(app).parameters
    except (TypeError, ValueError):  # written in C, or without parameters
        return False
    return [name.strip("_") for name in others] == ["start_response"]


# Each test may wrap the app. All wrappers share the threads.
_WSGI_THREADS = ThreadPoolExecutor(10, "WSGI")


def as_asgi(app: Any) -> ASGIApp:
    """Return an ASGI app: the app itself, or a wrapper that calls a WSGI app in a thread."""
    if is_async(app) or not is_wsgi(app):  # the first check is the cheaper one
        return cast("ASGIApp", app)
    from a2wsgi import WSGIMiddleware

    asgi_app = WSGIMiddleware(app)
    asgi_app.executor = _WSGI_THREADS
    return cast("ASGIApp", asgi_app)


async def body_of(receive: Receive) -> bytes:
    """Return the whole body of a request to an ASGI app."""
    body = b""
    has_more = True
    while has_more:
        message = await receive()
        body += message.get("body", b"")
        has_more = message.get("more_body", False)
    return body


def is_async(app: object) -> bool:
    """Return whether this is an async function, or an object with an async `__call__`."""
    if inspect.iscoroutinefunction(app):
        return True
    return not inspect.isclass(app) and inspect.iscoroutinefunction(
        getattr(type(app), "__call__", None)  # noqa: B004 - not whether it is callable
    )


def is_litestar(app: object) -> bool:
    """Return whether this is a Litestar app. Import nothing: such an app has imported Litestar."""
    litestar = sys.modules.get("litestar")
    return litestar is not None and isinstance(app, litestar.Litestar)


# The apps and clients that modules, classes and wide fixtures have created.
_APPS: WeakSet[Any] = WeakSet()
_CLIENTS: WeakSet[Any] = WeakSet()

# Their classes, from which FastAPI and the frameworks' test clients derive.
_CLASSES = (
    ("starlette.applications", "Starlette", _APPS),
    ("httpx", "Client", _CLIENTS),
    ("httpx", "AsyncClient", _CLIENTS),
    ("httpx2", "Client", _CLIENTS),
    ("httpx2", "AsyncClient", _CLIENTS),
)


def watch_apps_and_clients(undo: ExitStack) -> None:
    """Note each app and each client that outlives tests."""
    for module, name, known in _CLASSES:
        when_imported(module, functools.partial(_watch, name, known, undo))


def _watch(name: str, known: WeakSet[Any], undo: ExitStack, module: ModuleType) -> None:
    watched = getattr(module, name)
    original = watched.__init__

    @functools.wraps(original)
    def watched_init(created: Any, *args: object, **options: object) -> None:
        original(created, *args, **options)
        if Owned(owner_here()).outlives_tests:
            known.add(created)

    patch(watched, "__init__", watched_init, undo)


class AppState:
    """The overrides and the state of apps before a level, and the cookies of clients.

    The copies are shallow.
    """

    def __init__(self, app: object, clients: Iterable[object]) -> None:
        # The dictionaries of the apps and their copies.
        self._copies: list[tuple[dict[Any, Any], dict[Any, Any]]] = []
        # The apps with overrides. A test may set the attribute to another dictionary.
        self._overrides: list[tuple[Any, dict[Any, Any]]] = []
        apps = alive(_APPS)
        for each in apps if app in apps else (app, *apps):
            overrides = getattr(each, "dependency_overrides", None)
            if isinstance(overrides, dict):
                self._overrides.append((each, overrides))
                self._copies.append((overrides, overrides.copy()))
            # A `State` has its content in a dictionary.
            for content in getattr(getattr(each, "state", None), "__dict__", {}).values():
                if isinstance(content, dict):
                    self._copies.append((content, content.copy()))
        self._clients = [*map(_ClientState, {*alive(_CLIENTS), *clients})]

    def is_changed(self) -> bool:
        """Return whether an override or an attribute of ``app.state`` has changed."""
        for app, overrides in self._overrides:
            if app.dependency_overrides is not overrides:
                return True
        return any(_differ(now, before) for now, before in self._copies)

    def restore(self) -> None:
        """Restore the state from before the test."""
        for app, overrides in self._overrides:
            app.dependency_overrides = overrides
        for now, before in self._copies:
            if _differ(now, before):
                now.clear()
                now.update(before)
        for client in self._clients:
            client.restore()


def _differ(now: dict[Any, Any], before: dict[Any, Any]) -> bool:
    """Compare by identity, because the ``==`` of an app's object may return an array."""
    if now.keys() != before.keys():
        return True
    return any(now[key] is not before[key] for key in before)


class _ClientState:
    """The cookies, the headers and the login of a client before a level."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._cookies = type(client.cookies)(client.cookies)
        self._headers = client.headers.copy()
        login = getattr(client, "arena_login", None)
        # A login that the level may perform, and that ends with it.
        self._login = None if login is None or login.is_done else login

    def restore(self) -> None:
        """Restore the cookies and headers from before the level. Forget a login of the level."""
        self._client.cookies = self._cookies
        self._client.headers = self._headers
        if self._login is not None:
            self._login.is_done = False

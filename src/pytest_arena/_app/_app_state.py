"""Restores what a test leaves in apps and clients that outlive it."""

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial, wraps
from types import ModuleType
from typing import Any
from weakref import WeakSet

from pytest_arena._interpreter import when_imported
from pytest_arena._owner import outlives_tests, owner_here
from pytest_arena._process import alive, replace_attribute

# The apps and clients that modules, classes and wider fixtures have created.
_APPS: WeakSet[Any] = WeakSet()
_CLIENTS: WeakSet[Any] = WeakSet()

# Their classes. FastAPI derives from Starlette, and the frameworks' test clients from httpx.
_CLASSES: dict[str, tuple[WeakSet[Any], tuple[str, ...]]] = {
    "starlette.applications": (_APPS, ("Starlette",)),
    "httpx": (_CLIENTS, ("Client", "AsyncClient")),
    "httpx2": (_CLIENTS, ("Client", "AsyncClient")),
}


def watch_apps_and_clients(undo: ExitStack) -> None:
    """Note each app and each client that outlives tests."""
    for module, (known, names) in _CLASSES.items():
        when_imported(module, partial(_watch, known, names, undo))


def _watch(
    known: WeakSet[Any], names: tuple[str, ...], undo: ExitStack, module: ModuleType
) -> None:
    for name in names:
        watched = getattr(module, name)
        init = _noting(known, watched.__init__)
        replace_attribute(undo, watched, "__init__", init)


def _noting(known: WeakSet[Any], original: Callable[..., None]) -> Callable[..., None]:
    @wraps(original)
    def watched_init(created: Any, *args: object, **options: object) -> None:
        original(created, *args, **options)
        if outlives_tests(owner_here()):
            known.add(created)

    return watched_init


class AppState:
    """The overrides and the state of apps before a test, and the cookies of wide clients.

    The copies are shallow.
    """

    def __init__(self, app: object) -> None:
        # The dictionaries of the apps and their copies.
        self._copies: list[tuple[dict[Any, Any], dict[Any, Any]]] = []
        # The apps with overrides. A test may set the attribute to another dictionary.
        self._overrides: list[tuple[Any, dict[Any, Any]]] = []
        apps = alive(_APPS)
        for each in apps if app in apps else (app, *apps):
            self._record(each)
        self._clients = [*map(_ClientState, alive(_CLIENTS))]

    def _record(self, app: Any) -> None:
        overrides = getattr(app, "dependency_overrides", None)
        if isinstance(overrides, dict):
            self._overrides.append((app, overrides))
            self._copies.append((overrides, overrides.copy()))
        # Starlette's and Litestar's State keep their attributes in `_state`. No public method
        # replaces all of them.
        attributes = getattr(getattr(app, "state", None), "_state", None)
        if isinstance(attributes, dict):
            self._copies.append((attributes, attributes.copy()))

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
    """The cookies, the headers and the login of a client before a test."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._cookies = type(client.cookies)(client.cookies)
        self._headers = client.headers.copy()
        login = getattr(client, "arena_login", None)
        # A login that a test may perform, and that ends with it.
        self._login = None if login is None or login.is_done else login

    def restore(self) -> None:
        """Restore the cookies and headers from before the test. Forget a login of the test."""
        self._client.cookies = self._cookies
        self._client.headers = self._headers
        if self._login is not None:
            self._login.is_done = False

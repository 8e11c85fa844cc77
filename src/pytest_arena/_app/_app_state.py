"""Restores what a test leaves in apps and wide clients: overrides, app.state, cookies, headers."""

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial, wraps
from types import ModuleType
from typing import Any
from weakref import WeakSet

from pytest_arena._app._kind import is_frameworks_app, unwrapped
from pytest_arena._config._load import project_modules
from pytest_arena._interpreter import when_imported
from pytest_arena._owner import outlives_tests, owner_here
from pytest_arena._process import replace_attribute

# Clients of wider fixtures, modules and classes.
WIDE_CLIENTS: WeakSet[Any] = WeakSet()

# The apps in the project's modules and of wide fixtures, without the app of ``arena_app``.
OTHER_APPS: list[object] = []


def note_other_apps(named: object) -> None:
    """Note the apps in the project's modules, also in modules of tests, without the named one."""
    apps = {}
    for module, _ in project_modules():
        for value in [*vars(module).values()]:
            if value is not named and is_frameworks_app(value):
                apps[id(value)] = value
    OTHER_APPS[:] = apps.values()


def watch_wide_clients(undo: ExitStack) -> None:
    """Note each client that a module, a class or a wider fixture creates."""
    for module, names in _CLIENTS.items():
        when_imported(module, partial(_watch_clients, names, undo))


_CLIENTS = {
    "httpx": ("Client", "AsyncClient"),
    "httpx2": ("Client", "AsyncClient"),
    "werkzeug.test": ("Client",),
}


def _watch_clients(names: tuple[str, ...], undo: ExitStack, module: ModuleType) -> None:
    # The frameworks' test clients derive from these classes.
    for name in names:
        client_class: Any = getattr(module, name, None)
        if client_class is not None:  # another version may lack it
            init = _noting(client_class.__init__)
            replace_attribute(undo, client_class, "__init__", init)


def _noting(original: Callable[..., None]) -> Callable[..., None]:
    @wraps(original)
    def watched_init(client: Any, *args: object, **options: object) -> None:
        original(client, *args, **options)
        if outlives_tests(owner_here()):
            WIDE_CLIENTS.add(client)

    return watched_init


class AppState:
    """The overrides and the state of apps before a test, and the cookies of wide clients.

    It includes the apps in ``OTHER_APPS`` and the clients in ``WIDE_CLIENTS``. The copies are
    shallow.
    """

    def __init__(self, app: object) -> None:
        # The dictionaries of the apps and their copies.
        self._copies: list[tuple[dict[Any, Any], dict[Any, Any]]] = []
        # The apps with overrides. A test may set the attribute to another dictionary.
        self._overrides: list[tuple[Any, dict[Any, Any]]] = []
        for named in (app, *OTHER_APPS):
            for part in unwrapped(named):
                self._record(part)
        self._clients = [*map(_ClientState, WIDE_CLIENTS)]

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
        self._login = getattr(client, "arena_login", None)
        self._has_logged_in = self._login is not None and self._login.is_done
        self._headers = None
        if hasattr(client, "headers"):
            self._headers = client.headers.copy()
        cookies = _cookies_of(client)
        self._cookies: Any = dict(cookies) if isinstance(cookies, dict) else [*cookies]

    def restore(self) -> None:
        """Restore the cookies and headers from before the test. Forget a login of the test."""
        cookies = _cookies_of(self._client)
        cookies.clear()
        if isinstance(cookies, dict):
            cookies.update(self._cookies)
        else:
            for cookie in self._cookies:
                cookies.set_cookie(cookie)
        if self._headers is not None:
            self._client.headers = self._headers
        if self._login is not None and not self._has_logged_in:
            self._login.is_done = False


def _cookies_of(client: Any) -> Any:
    """Return the cookie jar of a client, or the dictionary with the cookies of Werkzeug's."""
    if hasattr(client, "cookies"):
        return client.cookies.jar
    # Werkzeug has no public name for all cookies.
    return getattr(client, "_cookies", {})

"""Restores the app's state in memory after a test."""

import asyncio
import sys
from collections import ChainMap, UserDict, UserList
from collections.abc import (
    Collection,
    Iterator,
    Mapping,
    MutableMapping,
    MutableSequence,
    MutableSet,
)
from contextlib import suppress
from functools import lru_cache
from queue import Queue
from types import SimpleNamespace
from typing import Any, Protocol
from weakref import WeakSet

from pytest_arena._app._kind import apps_of, is_frameworks_app
from pytest_arena._config._load import is_library, project_modules
from pytest_arena._values import PLAIN, Contents, holds_values, is_data

OVERRIDES = "app.dependency_overrides"
# The attributes of Starlette's apps and routers that tests set. The app sets the other attributes.
_SETTINGS = {
    *("debug", "dependency_overrides", "exception_handlers", "lifespan_context"),
    *("on_shutdown", "on_startup", "redirect_slashes", "root_path", "routes", "state"),
    *("dependencies", "title", "user_middleware", "version"),
}
# Starlette builds its middleware stack from these settings.
_IN_THE_STACK = {"debug", "exception_handlers", "user_middleware"}
# FastAPI builds its cached OpenAPI schema from these settings.
_IN_THE_SCHEMA = {"root_path", "routes", "title", "version"}


# The `__dict__` of an app or router, a name in it, its value, and a copy if that is a dict or list.
_Setting = tuple[dict[str, Any], str, Any, Any]

# Clients of wider fixtures, modules and classes.
WIDE_CLIENTS: WeakSet[Any] = WeakSet()

# The apps in the project's modules and of wide fixtures, without the app of ``arena_app``.
OTHER_APPS: list[object] = []


_CLIENT_SETTINGS = (
    "auth",
    "base_url",
    "follow_redirects",
    "max_redirects",
    "params",
    "timeout",
)


def note_other_apps(named: object) -> None:
    """Note the apps in the project's modules, also in modules of tests, without the named one."""
    apps = {}
    for module, _ in project_modules():
        for value in [*vars(module).values()]:
            if value is not named and is_frameworks_app(value):
                apps[id(value)] = value
    OTHER_APPS[:] = apps.values()


class ClientState:
    """The cookies, headers, settings and login of a client before a test."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._login = getattr(client, "_arena_login", None)
        self._has_logged_in = self._login is not None and self._login.is_done
        self._cookies = [*client.cookies.jar]
        self._settings = {
            "cookies": type(client.cookies)(client.cookies),
            "headers": client.headers.copy(),
            "event_hooks": {
                name: [*hooks] for name, hooks in client.event_hooks.items()
            },
        }
        for name in _CLIENT_SETTINGS:
            self._settings[name] = getattr(client, name)

    def is_changed(self) -> bool:
        """Return whether the client has other cookies, headers or settings now."""
        # Cookies compare by identity, so another cookie with the same value is a change.
        if [*self._client.cookies.jar] != self._cookies:
            return True
        for name in ("headers", "event_hooks", *_CLIENT_SETTINGS):
            if getattr(self._client, name) != self._settings[name]:
                return True
        return False

    def restore(self) -> bool:
        """Restore the values from before the test. Return whether they had changed."""
        is_changed = self.is_changed()
        if is_changed:
            for name, value in self._settings.items():
                setattr(self._client, name, value)
        if self._login is not None and not self._has_logged_in:
            self._login.forget()
        return is_changed


def _state_of_client(client: Any) -> ClientState | Contents:
    """Record the state of a client of an HTTP library, Starlette, Litestar, Flask or Quart."""
    if hasattr(client, "cookies"):
        return ClientState(client)
    jar = getattr(client, "cookie_jar", client)  # Quart's client has one
    cookies = getattr(jar, "_cookies", None)  # no public name returns all
    return Contents([cookies, getattr(client, "environ_base", None)])


class RunOfFixture(Protocol):
    """An app that a wide fixture runs."""

    @property
    def app(self) -> object:
        """The app."""

    @property
    def state(self) -> Mapping[str, object]:
        """The state that its lifespan gives to requests."""


class AppState:
    """The settings of an app and the containers in its state, before a test.

    It includes the apps in ``OTHER_APPS`` and the clients in ``WIDE_CLIENTS``. ``lifespan_state``
    is the state of a session-wide lifespan. ``runs`` are the runs of wide fixtures.
    """

    def __init__(
        self,
        app: object,
        lifespan_state: Mapping[str, object] | None = None,
        runs: Collection[RunOfFixture] = (),
    ) -> None:
        self.app = app
        self._lifespan_state = lifespan_state
        self._runs = runs
        self._parts: list[tuple[str, Contents | ClientState]] = []
        # The attributes of each `app.state`, and their names before the test.
        self._attributes: list[tuple[Any, Any]] = []
        # Objects that are not restored: a name and a copy of the content of each.
        self._foreign: list[tuple[str, Contents]] = []
        lifespan_states = [lifespan_state]
        parts = [*apps_of(app)]
        for other in OTHER_APPS:
            parts += apps_of(other)
        for run in runs:
            lifespan_states.append(run.state)
            parts += apps_of(run.app)
        for client in WIDE_CLIENTS:
            self._parts.append(("a TestClient", _state_of_client(client)))
            # Starlette's client has the state that its lifespan gives to requests.
            lifespan_states.append(getattr(client, "app_state", None))
        self._settings: list[_Setting] = []
        self._schemas = _schemas_of(parts)
        # Each app, and its middleware if Starlette has built it.
        self._stacks: list[tuple[Any, object]] = []
        for part in parts:
            self._stacks.append((part, getattr(part, "middleware_stack", None)))
            self._settings += _settings_of(part)
            for name, container in _state_of(part):
                if name == "app.state":
                    self._attributes.append((container, {*container}))
                    self._watch_foreign(container)
                self._parts.append((name, Contents(container, is_of_app)))
        for state in lifespan_states:
            if isinstance(state, dict):
                self._parts.append(("the lifespan's state", Contents(state, is_of_app)))
                self._watch_foreign(state)

    def _watch_foreign(self, state: Mapping[str, object]) -> None:
        for name, value in state.items():
            kind: type = type(value)
            if not _is_foreign_container(kind):
                continue
            shown = f"app.state.{name} ({kind.__module__}.{kind.__qualname__})"
            containers = []
            for attribute, item in getattr(value, "__dict__", {}).items():
                if type(item) in PLAIN and attribute not in _WAITERS:
                    containers.append(item)
            self._foreign.append((shown, Contents(value)))
            self._foreign.append((shown, Contents(containers)))

    def unrestored(self) -> list[str]:
        """Return the names of changed objects that pytest-arena does not restore."""
        changed: dict[str, None] = {}
        for name, contents in self._foreign:
            if contents.is_changed():
                changed[name] = None
        return [*changed]

    def record_again(self) -> "AppState":
        """Record the present state of the same app."""
        return AppState(self.app, self._lifespan_state, self._runs)

    def is_changed(self) -> bool:
        """Return whether any part has changed."""
        if self._changed_settings() or self.unrestored():
            return True
        return any(contents.is_changed() for _, contents in self._parts)

    def restore(self) -> list[str]:
        """Restore the state from before the test. Return the names of the changed parts.

        They include new attributes of ``app.state``.
        """
        changed = []
        for attributes, known in self._attributes:
            changed += attributes.keys() - known
        names = [_restore_setting(setting) for setting in self._changed_settings()]
        changed += [f"app.{name}" for name in names]
        if not _IN_THE_SCHEMA.isdisjoint(names):
            # The cached schema may have the test's routes.
            for attributes, schema in self._schemas:
                attributes["openapi_schema"] = schema
        for name, contents in self._parts:
            if contents.restore():
                changed.append(name)
        for app, stack in self._stacks:
            if stack is None:
                _reset_middleware(app)
        return changed

    def _changed_settings(self) -> list[_Setting]:
        changed = []
        for setting in self._settings:
            attributes, name, value, items = setting
            is_same = attributes.get(name) is value
            if is_same and items is not None:
                is_same = value == items
            if not is_same:
                changed.append(setting)
        return changed


def _schemas_of(apps: list[object]) -> list[tuple[dict[str, Any], Any]]:
    schemas = []
    for app in apps:
        attributes = getattr(app, "__dict__", {})
        if "openapi_schema" in attributes:
            schemas.append((attributes, attributes["openapi_schema"]))
    return schemas


def _settings_of(app: object) -> list[_Setting]:
    settings = []
    for owner in (app, getattr(app, "router", None)):
        attributes = getattr(owner, "__dict__", {})
        for name in sorted(_SETTINGS & attributes.keys()):
            value = attributes[name]
            items = None
            if isinstance(value, dict | list):
                items = value.copy()
            settings.append((attributes, name, value, items))
    return settings


def _restore_setting(setting: _Setting) -> str:
    """Restore the value of a setting. Return its name."""
    attributes, name, value, items = setting
    attributes[name] = value
    if isinstance(value, dict):
        value.clear()
        value.update(items)
    elif isinstance(value, list):
        value[:] = items
    if name in _IN_THE_STACK:
        # Make Starlette build a new stack, because the old one has the test's handlers.
        attributes["middleware_stack"] = None
    return name


def is_of_app(value: object) -> bool:
    """Return whether pytest-arena may restore the attributes and items of an object.

    It may not if the class derives from a library's class, because such a class may keep
    connections, threads or locks in attributes. Base classes in `_VALUE_CLASSES` and from
    `_VALUE_MODULES` are allowed.
    """
    kind: type = type(value)
    return _is_class_of_app(kind)


@lru_cache(maxsize=1024)
def _is_class_of_app(kind: type) -> bool:
    if kind in _VALUE_CLASSES:
        return True
    if issubclass(kind, type) or not holds_values(kind):
        return False
    if any(_is_of_library(base) for base in kind.__mro__):
        return False
    return kind.__module__ not in _VALUE_MODULES


def _is_of_library(kind: type) -> bool:
    if kind in _VALUE_CLASSES or kind.__module__ in _VALUE_MODULES:
        return False
    module = sys.modules.get(kind.__module__)
    return is_library(getattr(module, "__file__", None) or "<")


@lru_cache(maxsize=1024)
def _is_foreign_container(kind: type) -> bool:
    """Return whether pytest-arena only reports changes of objects of this class.

    These are containers and queues of libraries, and classes that derive from a library's. Other
    classes of libraries, such as pools and clients, change at each use and do not count.
    """
    if kind in PLAIN or _is_class_of_app(kind) or issubclass(kind, type):
        return False
    if issubclass(kind, _CONTAINERS):
        return True
    return not _is_of_library(kind) and any(map(_is_of_library, kind.__mro__))


_CONTAINERS = (MutableMapping, MutableSequence, MutableSet, Queue, asyncio.Queue)
# Tasks that wait for an asyncio.Queue are not its content.
_WAITERS = {"_getters", "_putters"}
_VALUE_CLASSES = {ChainMap, SimpleNamespace, UserDict, UserList}
_VALUE_MODULES = {
    "abc",
    "builtins",
    "collections",
    "collections.abc",
    "msgspec",
    "msgspec._core",
    "pydantic.main",
    "pydantic.root_model",
    "pydantic_settings.main",
    "starlette.middleware.base",
    "typing",
}


def _middleware_of(stack: object) -> list[object]:
    """Return the objects of the app's classes in a middleware stack, the outermost first."""
    objects = []
    while stack is not None:
        kind: type = type(stack)
        if _is_class_of_app(kind):
            objects.append(stack)
        stack = getattr(stack, "app", None)
    return objects


def _reset_middleware(app: Any) -> None:
    """Give the middleware that was built in a test the data of new middleware."""
    middleware = _middleware_of(getattr(app, "middleware_stack", None))
    others = middleware
    if middleware:
        with suppress(Exception):  # some middleware can be built only once
            others = _middleware_of(app.build_middleware_stack())
    for used, other in zip(middleware, others, strict=False):
        for name, value in getattr(used, "__dict__", {}).items():
            if is_data(value):
                setattr(used, name, getattr(other, name, value))


def _dependencies_of(app: object) -> list[object]:
    """Return the objects of the app's classes that FastAPI calls as dependencies.

    Costs 0.3 µs for each route and each dependency.
    """
    routes = getattr(app, "routes", None)
    if not isinstance(routes, list):  # a mock has any attribute
        return []
    objects = []
    waiting = [*routes]
    for item in waiting:  # the loop also visits the items that it appends
        dependant = getattr(item, "dependant", item)
        waiting += getattr(dependant, "dependencies", ())
        router = getattr(item, "original_router", None)
        if router is not None:
            waiting += [*router.routes, *item.include_context.dependencies]
        function = getattr(dependant, "call", None) or getattr(
            dependant, "dependency", None
        )
        if function is None:
            continue
        owner = getattr(function, "__self__", function)
        kind: type = type(owner)
        if _is_class_of_app(kind):
            objects.append(owner)
    return objects


def _contexts_of_flask() -> Iterator[tuple[str, Any]]:
    """Yield the contents of the contexts that a wider fixture keeps open."""
    flask = sys.modules.get("flask")
    if flask is None or not flask.has_app_context():
        return
    yield "flask.g", vars(flask.g._get_current_object())  # noqa: SLF001 - of werkzeug, documented
    if flask.has_request_context():
        context = flask.globals.request_ctx._get_current_object()  # noqa: SLF001 - of werkzeug, documented
        yield "flask.request", [vars(context), vars(context.request)]
        yield "flask.session", context.session


def _state_of(app: object) -> Iterator[tuple[str, Any]]:
    stack = getattr(app, "__dict__", {}).get("middleware_stack")
    objects = _middleware_of(stack) + _dependencies_of(app)
    if objects:
        yield "a middleware or a dependency", objects
    # Starlette's and Litestar's State keep their attributes in `_state`. No public method replaces
    # all of them.
    state = getattr(app, "state", None)
    attributes = getattr(state, "_state", None)
    if isinstance(attributes, dict):
        yield "app.state", attributes
    config = getattr(app, "config", None)  # Flask's
    if isinstance(config, dict):
        yield "app.config", config
    extensions = getattr(app, "extensions", None)
    if isinstance(extensions, dict):
        # Keep a new extension, because it has also registered functions.
        for held in list(extensions.values()):
            if type(held) in PLAIN or is_of_app(held):
                yield "app.extensions", held
        yield from _contexts_of_flask()
    # The stores of a Litestar app, and the contents of its stores in memory.
    registry = getattr(app, "stores", None)
    stores = getattr(registry, "_stores", None)
    if isinstance(stores, dict):
        yield "app.stores", stores
        for store in list(stores.values()):
            content = getattr(store, "_store", None)  # of a MemoryStore
            if isinstance(content, dict):
                yield "app.stores", content

"""Restores the app's state in memory after a test."""

from __future__ import annotations

import sys
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pytest_arena._app._kind import apps_of
from pytest_arena._config._load import is_library
from pytest_arena._values import PLAIN, Contents, holds_values

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

OVERRIDES = "app.dependency_overrides"


class AppState:
    """The overrides of an app and the containers in its state, as they were before a test.

    ``lifespan_state`` is the state that a lifespan for the whole session gives to requests.
    """

    def __init__(
        self, app: object, lifespan_state: Mapping[str, object] | None = None
    ) -> None:
        self.app = app
        self._lifespan_state = lifespan_state
        self._parts = []
        self._routes: list[tuple[list[object], list[object]]] = []
        for part in apps_of(app):
            routes = getattr(part, "routes", None)
            if isinstance(routes, list):
                self._routes.append((routes, routes.copy()))
            for name, container in _state_of(part):
                contents = Contents(container, is_of_app)
                self._parts.append((name, contents))
        if isinstance(lifespan_state, dict):
            contents = Contents(lifespan_state, is_of_app)
            self._parts.append(("the lifespan's state", contents))

    def anew(self) -> AppState:
        """Return the state of the same app as it is now."""
        return AppState(self.app, self._lifespan_state)

    def changed(self) -> list[str]:
        """Return the names of the parts that are different now."""
        changed = []
        for name, contents in self._parts:
            if contents.is_changed():
                changed.append(name)
        return changed

    def restore(self) -> list[str]:
        """Put the former contents back. Returns the names of the parts that were different."""
        for routes, before in self._routes:
            if routes != before:
                routes[:] = before
        changed = []
        for name, contents in self._parts:
            if contents.restore():
                changed.append(name)
        return changed


def is_of_app(value: object) -> bool:
    """Whether the attributes and items of an object are the app's.

    They are if no class of a library is above its class: a library's class keeps connections,
    threads and locks in attributes. The classes of `_VALUE_MODULES` keep only values.
    """
    kind: type = type(value)
    return _is_class_of_app(kind)


@lru_cache(maxsize=1024)
def _is_class_of_app(kind: type) -> bool:
    if issubclass(kind, type) or not holds_values(kind):
        return False
    for base in kind.__mro__:
        if base.__module__ in _VALUE_MODULES:
            continue
        module = sys.modules.get(base.__module__)
        if is_library(getattr(module, "__file__", None) or "<"):
            return False
    return kind.__module__ not in _VALUE_MODULES


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
    "typing",
}


def _state_of(app: object) -> Iterator[tuple[str, Any]]:
    """Yield the containers in which an app keeps its state."""
    # `_state` is what Starlette's and Litestar's State keep their attributes in. There is no
    # public way to replace them all.
    attributes = getattr(getattr(app, "state", None), "_state", None)
    containers = {
        OVERRIDES: getattr(app, "dependency_overrides", None),
        "app.state": attributes,
        "app.config": getattr(app, "config", None),  # Flask's
    }
    for name, container in containers.items():
        if isinstance(container, dict):
            yield name, container
    extensions = getattr(app, "extensions", None)
    if isinstance(extensions, dict):
        # The names stay: an extension that a test adds has also registered functions.
        for held in list(extensions.values()):
            if type(held) in PLAIN or is_of_app(held):
                yield "app.extensions", held
    # The stores of a Litestar app, and the contents of those in memory.
    registry = getattr(app, "stores", None)
    stores = getattr(registry, "_stores", None)
    if isinstance(stores, dict):
        yield "app.stores", stores
        for store in list(stores.values()):
            content = getattr(store, "_store", None)  # of a MemoryStore
            if isinstance(content, dict):
                yield "app.stores", content

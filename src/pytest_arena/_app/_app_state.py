"""What does an app keep outside of its databases, and what was that before a test?"""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Mapping
from operator import is_
from typing import TYPE_CHECKING, Any

from pytest_arena._app._kind import unwrapped

if TYPE_CHECKING:
    from collections.abc import Iterator

OVERRIDES = "app.dependency_overrides"

_MAPPINGS = (dict, defaultdict, OrderedDict, Counter)
_SEQUENCES = (list, deque)
_CONTAINERS: set[type] = {*_MAPPINGS, *_SEQUENCES, set}
_MOST_ITEMS = (
    10_000  # of a container: to copy a larger one would take longer than most tests
)
_MOST_CONTAINERS = 1_000


class AppState:
    """The overrides of an app and the containers in its state, as they were before a test.

    pytest-arena copies dicts, lists, sets and deques, also inside of each other. It never copies
    another object. A test of an app with an empty state costs some microseconds.
    """

    def __init__(self, app: object) -> None:
        self.app = app
        self._kept: list[_Kept] = []
        known: set[int] = set()
        for name, container in _state_of(app):
            self._keep(name, container, known)

    def _keep(self, name: str, container: Any, known: set[int]) -> None:
        waiting = [container]
        while waiting and len(known) < _MOST_CONTAINERS:
            container = waiting.pop()
            if id(container) in known or len(container) > _MOST_ITEMS:
                continue
            known.add(id(container))
            self._kept.append(_Kept(name, container))
            values = container.values() if isinstance(container, dict) else container
            waiting += [value for value in [*values] if type(value) in _CONTAINERS]

    def anew(self) -> AppState:
        """Return the state of the same app as it is now."""
        return AppState(self.app)

    def changed(self) -> list[str]:
        """Return the names of the parts that are different now."""
        return [kept.name for kept in self._kept if kept.is_changed()]

    def restore(self) -> list[str]:
        """Put the former contents back. Returns the names of the parts that were different."""
        changed = [kept for kept in self._kept if kept.is_changed()]
        for kept in changed:
            kept.restore()
        return [kept.name for kept in changed]


class _Kept:
    """A container, and a copy of what was in it."""

    __slots__ = ("_before", "_container", "name")

    def __init__(self, name: str, container: Any) -> None:
        self.name = name
        self._container = container
        self._before = _copied(container)

    def is_changed(self) -> bool:
        """Whether other objects are in the container now."""
        now = self._container
        before = self._before
        if len(now) != len(before):
            return True
        if isinstance(now, dict):
            # By identity: what an app keeps there (arrays, engines) need not be comparable.
            return now.keys() != before.keys() or any(
                now[key] is not before[key] for key in before
            )
        if isinstance(now, set):
            return bool(now != before)
        return not all(map(is_, now, before))

    def restore(self) -> None:
        """Put the former objects back."""
        self._container.clear()
        if isinstance(self._container, _SEQUENCES):
            self._container.extend(self._before)
        else:
            self._container.update(self._before)


def _copied(container: Any) -> Any:
    if isinstance(container, dict):
        return dict(container)
    return set(container) if isinstance(container, set) else list(container)


def _state_of(app: object) -> Iterator[tuple[str, Any]]:
    """Yield the containers in which an app, and each app mounted in it, keeps its state."""
    for part in _apps_of(app):
        parts = (
            (OVERRIDES, getattr(part, "dependency_overrides", None)),
            # `_state` is what Starlette's and Litestar's State keep their attributes in. There is
            # no public way to replace them all.
            ("app.state", getattr(getattr(part, "state", None), "_state", None)),
            ("app.config", getattr(part, "config", None)),  # Flask's
        )
        yield from ((name, found) for name, found in parts if isinstance(found, dict))
        yield from (("app.extensions", held) for held in _held_by_extensions(part))
        yield from (("app.stores", held) for held in _stores_of(part))


def _apps_of(app: object, deepest: int = 3) -> Iterator[object]:
    for part in unwrapped(app):
        yield part
        mounts = getattr(part, "mounts", None)  # of Werkzeug's DispatcherMiddleware
        inner = [*mounts.values()] if isinstance(mounts, dict) else []
        routes = getattr(part, "routes", None)
        if isinstance(routes, list):
            # Of Starlette's routes a Mount and a Host have routes themselves.
            inner += [
                getattr(route, "app", None)
                for route in routes
                if hasattr(route, "routes")
            ]
        for one in inner if deepest else ():
            yield from _apps_of(one, deepest - 1)


def _held_by_extensions(app: object) -> Iterator[Any]:
    """Yield the containers of Flask's extensions.

    Their names stay: an extension that a test adds has also registered functions with the app.
    """
    extensions = getattr(app, "extensions", None)
    if isinstance(extensions, dict):
        yield from (
            held for held in [*extensions.values()] if type(held) in _CONTAINERS
        )


def _stores_of(app: object) -> Iterator[Any]:
    """Yield what Litestar's stores have in memory, and the dict of the stores themselves."""
    stores = getattr(getattr(app, "stores", None), "_stores", None)
    if isinstance(stores, Mapping):
        yield stores
        contents = (getattr(store, "_store", None) for store in [*stores.values()])
        yield from (content for content in contents if isinstance(content, dict))

"""Is this app the one that is meant, made another time or put together in another way?"""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakKeyDictionary, WeakSet

from pytest_arena._app._kind import is_litestar
from pytest_arena._app._made_of import code_of, made_of, place_of
from pytest_arena._app._routes import endpoints
from pytest_arena._config._load import is_library

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from types import FrameType

__all__ = ["Kinship", "Made", "frameworks", "handlers", "is_own", "kinship"]

Kinship = Literal["same", "part", "other"]

_FRAMEWORKS = (
    ("starlette.applications", "Starlette"),
    ("fastapi.applications", "FastAPI"),
    ("litestar.app", "Litestar"),
)


def frameworks() -> list[type[Any]]:
    """Return the classes of apps that were imported. Imports nothing."""
    modules = [(sys.modules.get(module), name) for module, name in _FRAMEWORKS]
    return [getattr(module, name) for module, name in modules if hasattr(module, name)]


def is_own(kind: type[Any]) -> bool:
    """Whether it is a class of the user's, and no framework's app: its instances are alike."""
    module = sys.modules.get(kind.__module__)
    file = getattr(module, "__file__", None)
    is_one = issubclass(kind, tuple(frameworks()))
    return not is_one and file is not None and not is_library(file)


def handlers(app: object) -> frozenset[object]:
    """Return what of the user's code answers requests; of a library's routes nothing.

    Two apps of one factory have the same: functions count by their code. Looks at an app once;
    that costs some 10 µs for each route.
    """
    try:
        if (found := _found.get(app)) is None:
            found = _found[app] = _handlers(app)
    except TypeError:  # Litestar's: nobody can refer to it weakly
        found = _handlers(app)
    return found


_found: WeakKeyDictionary[object, frozenset[object]] = WeakKeyDictionary()


def _handlers(app: object) -> frozenset[object]:
    codes = map(code_of, endpoints(app))
    return frozenset(place_of(one) for one in codes if one is not None)


def kinship(app: frozenset[object], known: Collection[frozenset[object]]) -> Kinship:
    """Say how an app with these handlers is related to apps with those.

    It is the same where it has all of them, or nothing beside them; with a part of them and others
    nobody can tell.
    """
    related = [one for one in known if not app.isdisjoint(one)]
    if any(app <= one or one <= app for one in related):
        return "same"
    return "part" if related else "other"


class Made:
    """Knows the apps that a factory has made from `watch` to `close`, whoever called it.

    The frameworks' classes tell of each app that is made; it is the factory's if that is being
    called. Costs some microseconds for each app.
    """

    def __init__(self, factory: object) -> None:
        self._code = code_of(factory)
        self.inside = made_of(factory)  # of apps, too, that it made before anybody watched
        self.apps: WeakSet[Any] = WeakSet()
        self.handlers: set[frozenset[object]] = set()  # of those that are gone, too
        self._originals: dict[type[Any], Callable[..., None]] = {}

    def watch(self) -> None:
        """Be told of each app of the frameworks that are imported by now. Idempotent."""
        for kind in frameworks():
            if kind not in self._originals and "__init__" in vars(kind):
                self._watch(kind)

    def close(self) -> None:
        """Leave the classes as they were."""
        for kind, original in self._originals.items():
            kind.__init__ = original
        self._originals.clear()

    def _watch(self, kind: type[Any]) -> None:
        original = self._originals[kind] = kind.__init__

        @functools.wraps(original)
        def made(app: Any, *args: Any, **options: Any) -> None:
            __tracebackhide__ = True
            original(app, *args, **options)
            if self._is_called(sys._getframe(1)):  # noqa: SLF001 - who makes it, says nothing else
                self.see(app)

        kind.__init__ = made

    def see(self, app: object) -> None:
        """An app was made by the factory."""
        if is_litestar(app):  # nobody can refer to it weakly, and all its handlers are there now
            self.handlers.add(handlers(app))
        elif isinstance(app, tuple(frameworks())):
            self.apps.add(app)

    def know(self, app: object) -> None:
        """An app of the factory's is complete: others are compared with it from here on."""
        if found := handlers(app):
            self.handlers.add(found)

    def _is_called(self, frame: FrameType | None) -> bool:
        while frame is not None and frame.f_code is not self._code:
            frame = frame.f_back
        return frame is not None

"""Is the app that is asked the one under test, whoever has made it?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_arena._app import (
    Made,
    frameworks,
    handlers,
    is_factory,
    is_own,
    is_watchable,
    kinship,
    unwrapped,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_arena._app import Door
    from pytest_arena._run._apps import Apps
    from pytest_arena._run._test import RunningTest
    from pytest_arena._run.instruments._log import Log

__all__ = ["UnderTest"]

_NO_APP = "there is no arena_app: which app is under test? Name it: arena_app = app.main:app"
_SEVERAL = "there is no arena_app, and the test asked several apps: which one is under test?"
_UNSEEN = "only clients of arena's are seen to ask {what}: use the fixtures client or test_client"
_FUNCTION = _UNSEEN.format(what="an arena_app that is a function")
_NO_KIND = _UNSEEN.format(what="what this arena_app makes")
_UNMADE = (
    "arena_app is a factory that nobody was seen to call: have tests ask the fixture arena_app, "
    "or name the app itself"
)
_PART = "it asked an app that has but a part of the routes of arena_app, and others"


class UnderTest:
    """Knows the app that ``arena_app`` names, and those that are the same in all but identity.

    That are what a factory has made, whoever called it; what the fixture ``arena_app`` is; and an
    app whose requests the same code answers, as one has that a test puts together for itself.
    Where ``arena_app`` is not set it is the one app of a framework's that the test asks.
    """

    def __init__(self, apps: Apps, door: Door) -> None:
        self._apps, self._door = apps, door
        self._made: Made | None = None  # where `arena_app` is a factory
        self._looked_at: object = None  # the last `arena_app` that was asked whether it is one
        self._own: set[type[Any]] = set()  # classes of the user's, of apps that it has made

    def start(self) -> None:
        """After the collection: see what a factory makes, also for fixtures of a session."""
        named = self._apps.named
        self._apps.watched_by(self._door.watch, self._built)
        if named is not None and named is not self._looked_at:
            self._look_at(named)
        if self._made is not None:
            self._made.watch()

    def _look_at(self, named: object) -> None:
        self._looked_at = named
        if self._made is None and is_factory(named):
            self._made = Made(named)
            self._know_class(named)

    def _know_class(self, named: object) -> None:
        """The factory may be the class of the apps itself."""
        if isinstance(named, type) and is_own(named):
            self._own.add(named)
            self._door.watch_class(named)

    def close(self) -> None:
        """Leave everything as it was."""
        if self._made is not None:
            self._made.close()

    def watch(self) -> None:
        """A test begins: from here on calls of apps are seen."""
        self.start()
        for kind in frameworks():
            self._door.watch_class(kind)
        if self._apps.named is not None and self._made is None:
            self._door.watch(self._apps.named)

    def _built(self, app: object) -> None:
        if self._made is not None:
            self._made.know(app)
        self._own.update(_own_classes(app))
        self._door.watch(app)

    def doubt(self, log: Log) -> str:
        """Why a test may have asked the app under test, of which no request was seen; else ""."""
        if log.doubt:
            return log.doubt
        if self._made is not None:
            return self._doubt_of(self._made)
        named = self._apps.named
        if named is None:
            return "" if self._apps.given is not None else _NO_APP
        return "" if is_watchable(named) else _FUNCTION

    def _doubt_of(self, made: Made) -> str:
        if made.inside or made.apps or made.handlers or self._own:
            return ""
        return _NO_KIND if self._apps.given is not None else _UNMADE

    def is_asked(self, app: object, test: RunningTest, log: Log) -> bool:
        """Whether this is it. Looks at an app once in a test."""
        if id(app) not in log.apps:
            log.apps[id(app)] = app, self._is_it(app, test, log)
        return log.apps[id(app)][1]

    def _is_it(self, app: object, test: RunningTest, log: Log) -> bool:
        if app is self._apps.named and self._made is None:
            return True
        known = list(self._known(test))
        if not known and self._made is None:
            return self._is_the_only(app, log)
        if any(app is one for one in known) or self._is_made(app):
            return True
        related = kinship(handlers(app), [*map(handlers, known), *self._made_handlers()])
        if related == "part":
            log.doubt = _PART
        return related == "same" or self._is_of_own_class(app, known)

    def _known(self, test: RunningTest) -> Iterator[object]:
        """Those that are known as they are, and what is inside of them."""
        named = None if self._made is not None else self._apps.named
        outer = (named, self._apps.given, *(one.app for one in test.app_runs))
        for one in (*outer, *self._apps.of_wide()):
            if one is not None:
                yield from unwrapped(one)

    def _is_made(self, app: object) -> bool:
        if self._made is None or app not in self._made.apps:
            return False
        self._made.know(app)
        return True

    def _made_handlers(self) -> Iterator[frozenset[object]]:
        if self._made is not None:
            yield self._made.inside
            yield from self._made.handlers
            if not self._made.handlers:  # of one that is complete: they are alike
                yield from map(handlers, list(self._made.apps))

    def _is_of_own_class(self, app: object, known: list[object]) -> bool:
        """Of a class that is the user's, and not a middleware that any app may be in."""
        own = self._own.union(*map(_own_classes, known))
        kinds = tuple(frameworks())
        return type(app) in own and not any(isinstance(one, kinds) for one in unwrapped(app))

    def _is_the_only(self, app: object, log: Log) -> bool:
        others = [other for other, is_it in log.apps.values() if is_it]
        if not isinstance(app, tuple(frameworks())):
            return False
        if others and kinship(handlers(app), [*map(handlers, others)]) != "same":
            log.doubt, log.is_ambiguous = _SEVERAL, True
        return True


def _own_classes(app: object) -> Iterator[type[Any]]:
    return (type(one) for one in unwrapped(app) if is_watchable(one) and is_own(type(one)))

"""What do other plugins do to a test that arena has to know?"""

from __future__ import annotations

import inspect
import sys
import traceback
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from pytest_arena._config._load import is_library

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_OURS = "pytest_arena."


def own_function(item: Any) -> tuple[Any, str, Any]:
    """Return where the test's own function stands: object, attribute and value.

    Under Hypothesis' ``@given`` it is not the item's: to replace ``inner_test`` is the documented
    way for plugins.
    """
    function = getattr(item, "obj", None)
    given = getattr(function, "hypothesis", None)
    return (given, "inner_test", given.inner_test) if given else (item, "obj", function)


_SETTINGS = (
    "_hypothesis_internal_use_settings"  # there is no public name for a test's settings
)


@contextmanager
def suppressed_health_check(item: Any) -> Iterator[None]:
    """Around the call: no complaint that our fixtures are not reset between examples.

    They are. Of a function-scoped fixture of the user's own Hypothesis complains as ever.
    """
    function = getattr(item, "obj", None)
    function = getattr(function, "__func__", function)
    settings = getattr(function, _SETTINGS, None)
    if settings is None or not _asks_for_ours_alone(item):
        yield
        return
    hypothesis: Any = sys.modules["hypothesis"]
    wanted = {
        *settings.suppress_health_check,
        hypothesis.HealthCheck.function_scoped_fixture,
    }
    setattr(
        function, _SETTINGS, hypothesis.settings(settings, suppress_health_check=wanted)
    )
    try:
        yield
    finally:
        setattr(function, _SETTINGS, settings)


def _asks_for_ours_alone(item: Any) -> bool:
    known, names = _fixtures_of(item), inspect.signature(item.function).parameters
    asked = [known[name][-1] for name in names if name in known]
    found = [fixture for fixture in asked if fixture.scope == "function"]
    return bool(found) and all(map(_is_ours, found))


def _fixtures_of(item: Any) -> dict[str, Any]:
    """Return the fixtures that a test uses: by name all that there are, of which the last wins."""
    known: dict[str, Any] = getattr(
        getattr(item, "_fixtureinfo", None), "name2fixturedefs", {}
    )
    return {name: fixtures for name, fixtures in known.items() if fixtures}


def asks_for_ours(item: Any) -> bool:
    """Whether the test uses a fixture of ours, so that it will want a database."""
    return any(_is_ours(fixtures[-1]) for fixtures in _fixtures_of(item).values())


def starts_app(item: Any, *, is_async: bool) -> bool:
    """Return whether the test uses a fixture of ours that starts the app before the test.

    A suite's fixture of the same name replaces ours, unless it asks for ours.
    """
    known = _fixtures_of(item)
    names = _STARTING_ASYNC if is_async else _STARTING_SYNC
    for name in names:
        for fixture in reversed(known.get(name, ())):
            if _is_ours(fixture):
                return True
            if name not in fixture.argnames:
                break
    return False


def has_our_app(item: Any) -> bool:
    """Return whether the test's app is the one that the option names, not a suite's fixture."""
    fixtures = _fixtures_of(item).get("arena_app", ())
    return bool(fixtures) and _is_ours(fixtures[-1])


def overrides_app(item: Any) -> bool:
    """Return whether a suite's fixture `arena_app` is in force for a test that asks for none."""
    manager = getattr(item.session, "_fixturemanager", None)
    fixtures: Any = manager.getfixturedefs("arena_app", item) if manager else None
    return bool(fixtures) and not _is_ours(fixtures[-1])


_STARTING_ASYNC = ("client", "client_as", "arena_lifespan")
_STARTING_SYNC = ("test_client", "test_client_as", "arena_lifespan")

# What the facade calls that which these fixtures give.
_BY_HAND = {
    name: name for name in ("client", "client_as", "test_client", "test_client_as")
}
_BY_HAND |= {"db_session": "session", "live_server": "live_server"}


def shadowed_fixtures(items: Iterable[Any]) -> list[str]:
    """Return a line for each fixture of ours whose name another plugin has taken from a test."""
    taken = {
        (name, fixtures[-1].func.__module__)
        for item in items
        for name, fixtures in _fixtures_of(item).items()
        if name in _BY_HAND
        and any(map(_is_ours, fixtures))
        and not _is_ours(fixtures[-1])
        if is_library(inspect.getfile(fixtures[-1].func))
    }
    return [
        f"the fixture {name!r} is {module}'s in this run, whose plugin came later: "
        f"arena.{_BY_HAND[name]}() gives arena's"
        for name, module in sorted(taken)
    ]


def is_outdated(item: Any, fixture: Any) -> bool:
    """Whether a test gives another parameter to a fixture, which is set up by now."""
    is_asked_for = fixture in _fixtures_of(item).get(fixture.argname, ())
    known, param = fixture.cached_result, item.callspec.params[fixture.argname]
    return is_asked_for and known is not None and _differ(known[1], param)


def _differ(one: object, other: object) -> bool:
    with suppress(Exception):  # arrays: pytest finds it out in its own way
        return one is not other and not one == other  # noqa: SIM201 - as pytest asks
    return False


def _is_ours(fixture: Any) -> bool:
    return bool(fixture.func.__module__.startswith(_OURS))


def is_broken_off(error: BaseException) -> bool:
    """Whether Ctrl-C or pytest-timeout has ended a test, which has not ended by itself."""
    pytest: Any = sys.modules["pytest"]
    if isinstance(error, pytest.fail.Exception):
        frames = traceback.walk_tb(error.__traceback__)
        return "timeout_sigalrm" in [frame.f_code.co_name for frame, _ in frames]
    return not isinstance(error, (Exception, pytest.skip.Exception))


def is_forked(item: Any) -> bool:
    """Whether pytest-forked, where it is there, runs this test in a child of this process."""
    is_marked = item.get_closest_marker("forked") is not None
    return is_marked or bool(item.config.getoption("forked", default=False))

"""Recognizes other pytest plugins that affect a test."""

import inspect
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from pytest_arena._config._load import is_library

_OURS = "pytest_arena."
_DATABASE_FIXTURES = "pytest_arena._fixtures"


def own_function(item: object) -> tuple[object, str, Any]:
    """Return the object that has the test's function, the name of the attribute, and the function.

    Under Hypothesis' ``@given`` the attribute is ``inner_test``, which plugins may replace.
    """
    function = getattr(item, "obj", None)
    hypothesis = getattr(function, "hypothesis", None)
    if hypothesis:
        return hypothesis, "inner_test", hypothesis.inner_test
    return item, "obj", function


@contextmanager
def replaced_function(item: Any, function: Callable[..., object]) -> Iterator[None]:
    """Replace the function of a test in this block."""
    original = item.obj
    item.obj = function
    try:
        yield
    finally:
        item.obj = original


# Hypothesis has no public name for a test's settings.
_SETTINGS = "_hypothesis_internal_use_settings"


@contextmanager
def suppressed_health_check(item: object) -> Iterator[None]:
    """Let Hypothesis accept pytest-arena's function-scoped fixtures.

    Hypothesis refuses function-scoped fixtures, because it does not reset them between examples.
    pytest-arena resets its fixtures. A function-scoped fixture of the user is still refused.
    """
    function = getattr(item, "obj", None)
    function = getattr(function, "__func__", function)
    settings = getattr(function, _SETTINGS, None)
    ours, others = _function_fixtures(item)
    if settings is None or not ours:
        yield
        return
    hypothesis: Any = sys.modules["hypothesis"]
    if others:
        try:
            yield
        except hypothesis.errors.FailedHealthCheck as error:
            # Hypothesis names the first fixture.
            text = str(error)
            for name in ours:
                text = text.replace(f"fixture {name!r}", f"fixture {others[0]!r}")
            raise hypothesis.errors.FailedHealthCheck(text) from None
        return
    check = hypothesis.HealthCheck.function_scoped_fixture
    suppressed = {*settings.suppress_health_check, check}
    changed = hypothesis.settings(settings, suppress_health_check=suppressed)
    setattr(function, _SETTINGS, changed)
    try:
        yield
    finally:
        setattr(function, _SETTINGS, settings)


def _function_fixtures(item: Any) -> tuple[list[str], list[str]]:
    """Return the function-scoped fixtures of a test: pytest-arena's, and the others."""
    fixtures_by_name = _fixtures_of(item)
    ours = []
    others = []
    for name in inspect.signature(item.function).parameters:
        if name not in fixtures_by_name:
            continue
        fixture = fixtures_by_name[name][-1]
        if fixture.scope != "function":
            continue
        if _is_ours(fixture):
            ours.append(name)
        else:
            others.append(name)
    return ours, others


def _fixtures_of(item: object) -> dict[str, Any]:
    """Return the fixtures of a test by their names. The test uses the last fixture of a name."""
    info = getattr(item, "_fixtureinfo", None)
    by_name: dict[str, object] = getattr(info, "name2fixturedefs", {})
    return {name: fixtures for name, fixtures in by_name.items() if fixtures}


def uses_our_fixture(item: object) -> bool:
    """Return whether the test uses a fixture of pytest-arena that may connect to a database."""
    for name, fixtures in _fixtures_of(item).items():
        for fixture in reversed(fixtures):
            if fixture.func.__module__ == _DATABASE_FIXTURES:
                return True
            if name not in fixture.argnames:
                break
    return False


@contextmanager
def hidden_from_test(config: Any) -> Iterator[None]:
    """Hide warnings of the block from the running test.

    Filters do not turn warnings of the block into errors. pytest's summary shows the warnings
    without a test.
    """
    with warnings.catch_warnings(record=True) as recorded:
        filters: Any = warnings.filters
        filters[:] = [entry for entry in filters if entry[0] != "error"]
        warnings.simplefilter("default", append=True)
        yield
    for warning in recorded:
        facts = {
            "warning_message": warning,
            "when": "runtest",
            "nodeid": "",
            "location": None,
        }
        config.hook.pytest_warning_recorded.call_historic(kwargs=facts)


def starts_app(item: object, *, is_async: bool) -> bool:
    """Return whether a fixture of pytest-arena starts the app before the test.

    A suite's fixture of the same name replaces it, unless the suite's fixture uses it.
    """
    fixtures_by_name = _fixtures_of(item)
    names = _STARTING_ASYNC if is_async else _STARTING_SYNC
    for name in names:
        for fixture in reversed(fixtures_by_name.get(name, ())):
            if _is_ours(fixture):
                return True
            if name not in fixture.argnames:
                break
    return False


def has_argument(item: object, name: str) -> bool:
    """Return whether a test's function requests a fixture as an argument."""
    info = getattr(item, "_fixtureinfo", None)
    return name in getattr(info, "argnames", ())


def hides_session(item: object) -> bool:
    """Return whether a fixture of the suite replaces `db_session` for the test."""
    fixtures = _fixtures_of(item).get("db_session", ())
    return bool(fixtures) and not _is_ours(fixtures[-1])


def has_our_app(item: object) -> bool:
    """Return whether the test's app is the one that the option names, not a suite's fixture."""
    fixtures = _fixtures_of(item).get("arena_app", ())
    return bool(fixtures) and _is_ours(fixtures[-1])


def overrides_app(item: Any) -> bool:
    """Return whether the suite has a fixture `arena_app` for a test that does not use it."""
    manager = getattr(item.session, "_fixturemanager", None)
    if manager is None:
        return False
    fixtures: Any = manager.getfixturedefs("arena_app", item)
    return bool(fixtures) and not _is_ours(fixtures[-1])


_STARTING_ASYNC = ("client", "client_as", "arena_lifespan")
_STARTING_SYNC = ("test_client", "test_client_as", "arena_lifespan")

# The method of the fixture `arena` that returns the same as a fixture, by the fixture's name.
_METHODS = {
    "client": "client",
    "client_as": "client_as",
    "test_client": "test_client",
    "test_client_as": "test_client_as",
    "db_session": "session",
    "live_server": "live_server",
}


def shadowed_fixtures(items: Iterable[Any]) -> list[str]:
    """Return a line for each fixture of pytest-arena that another plugin replaces."""
    replaced = {
        (name, fixtures[-1].func.__module__)
        for item in items
        for name, fixtures in _fixtures_of(item).items()
        if name in _METHODS and _is_shadowed(fixtures)
    }
    lines = []
    for name, module in sorted(replaced):
        problem = f"the plugin {module} replaces the fixture {name!r} of pytest-arena"
        lines.append(f"{problem}: call arena.{_METHODS[name]}() instead")
    return lines


def _is_shadowed(fixtures: Any) -> bool:
    """Return whether a fixture of another plugin, not of the suite, replaces pytest-arena's."""
    last = fixtures[-1]
    if _is_ours(last) or not any(map(_is_ours, fixtures)):
        return False
    return is_library(inspect.getfile(last.func))


def is_outdated(item: Any, fixture: Any) -> bool:
    """Return whether a fixture was set up with another parameter than the test's parameter."""
    fixtures = _fixtures_of(item).get(fixture.argname, ())
    if fixture not in fixtures:
        return False
    result = fixture.cached_result
    param = item.callspec.params[fixture.argname]
    return result is not None and _differ(result[1], param)


def _differ(value: object, other: object) -> bool:
    with suppress(Exception):  # the `==` of arrays has no truth value
        return value is not other and not value == other  # noqa: SIM201 - as pytest asks
    return False


def _is_ours(fixture: Any) -> bool:
    """Return whether pytest-arena defines a fixture."""
    return bool(fixture.func.__module__.startswith(_OURS))


def is_interruption(error: BaseException) -> bool:
    """Return whether Ctrl-C or pytest-timeout interrupted a test."""
    pytest: Any = sys.modules["pytest"]
    if isinstance(error, pytest.fail.Exception):
        frames = traceback.walk_tb(error.__traceback__)
        functions = [frame.f_code.co_name for frame, _ in frames]
        return "timeout_sigalrm" in functions
    return not isinstance(error, (Exception, pytest.skip.Exception))


def is_forked(item: Any) -> bool:
    """Return whether pytest-forked runs this test in a child of this process."""
    is_marked = item.get_closest_marker("forked") is not None
    return is_marked or bool(item.config.getoption("forked", default=False))

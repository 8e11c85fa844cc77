"""Recognizes other pytest plugins that affect a test."""

import sys
import traceback
from typing import Any

from pytest_arena.errors import ConfigError


def own_function(item: object) -> tuple[object, str, Any]:
    """Return the object that has the test's function, the name of the attribute, and the function.

    Under Hypothesis' ``@given`` the attribute is ``inner_test``, which plugins may replace.
    """
    function = getattr(item, "obj", None)
    hypothesis = getattr(function, "hypothesis", None)
    if hypothesis:
        return hypothesis, "inner_test", hypothesis.inner_test
    return item, "obj", function


def is_interruption(error: BaseException) -> bool:
    """Return whether Ctrl-C or pytest-timeout interrupted a test."""
    pytest: Any = sys.modules["pytest"]
    if isinstance(error, pytest.fail.Exception):
        frames = traceback.walk_tb(error.__traceback__)
        functions = [frame.f_code.co_name for frame, _ in frames]
        return "timeout_sigalrm" in functions
    return not isinstance(error, (Exception, pytest.skip.Exception))


def refuse_fork(item: Any) -> None:
    """Refuse a test that pytest-forked would run in a fork of this process.

    Raises:
        ConfigError: the option ``--forked`` or the marker is set.
    """
    if not item.config.pluginmanager.has_plugin("pytest_forked"):
        return
    if item.config.getoption("forked") or item.get_closest_marker("forked"):
        raise ConfigError(
            f"pytest-forked would run {item.nodeid} in a fork of this process",
            why="both processes would use the same connections to the test's database",
            cause="the option --forked, or @pytest.mark.forked",
            fix="remove it, or use pytest-xdist, which replaces a worker that crashes: "
            "pytest -n 2",
        )

"""A pytest plugin: how long did each test take, and how much of it in a plugin's hooks?"""

from __future__ import annotations

import functools
import gc
import json
import os
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

OUTPUT = Path(os.environ["BENCH_OUTPUT"])
COLLECTS = "BENCH_COLLECTS" in os.environ

_tests: list[float] = []
_hooks: list[float] = []
_now = {"seconds": 0.0}


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol() -> Generator[None, object, object]:
    """A test from its first hook to its last."""
    _now["seconds"] = 0.0
    if COLLECTS:  # what one test has left is not looked through in another one's time
        gc.collect(0)
    started = perf_counter()
    result = yield
    _tests.append(perf_counter() - started)
    _hooks.append(_now["seconds"])
    return result


def pytest_sessionfinish() -> None:
    """Hand the times over: each worker its own."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
    file = OUTPUT.with_name(f"{worker}-{OUTPUT.name}")
    file.write_text(json.dumps({"tests": _tests, "hooks": _hooks}))


def pytest_collection_finish(session: pytest.Session) -> None:
    """From here on a plugin's hooks are timed, if one is named: it costs a microsecond each."""
    for item in session.items:  # as arena asks for it, too: it is kept, and no test pays for it
        _ = item.location
    plugin = session.config.pluginmanager.get_plugin(os.environ.get("BENCH_HOOKS", ""))
    if plugin is None:
        return
    for caller in session.config.pluginmanager.get_hookcallers(plugin) or ():
        for implementation in caller.get_hookimpls():
            if implementation.plugin is plugin:
                timed = _timed_wrapper if implementation.wrapper else _timed
                function = timed(implementation.function)
                implementation.function = function  # type: ignore[misc]  # no hook is around a hook


def _timed(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def timed(*args: Any) -> Any:
        started = perf_counter()
        try:
            return function(*args)
        finally:
            _now["seconds"] += perf_counter() - started

    return timed


def _timed_wrapper(function: Callable[..., Any]) -> Callable[..., Any]:
    """The time of a wrapper is that on both sides of its yield."""

    @functools.wraps(function)
    def timed(*args: Any) -> Generator[None, object, object]:
        started = perf_counter()
        wrapper = function(*args)
        next(wrapper)
        _now["seconds"] += perf_counter() - started
        result = yield
        started = perf_counter()
        try:
            wrapper.send(result)
        except StopIteration as stop:
            result = stop.value
        _now["seconds"] += perf_counter() - started
        return result

    return timed

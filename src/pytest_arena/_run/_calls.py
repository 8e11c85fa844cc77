"""How is the test's own function called, so that it begins and ends as a test should?"""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_arena._run._fixture_levels import Examples
    from pytest_arena._run._run import ArenaRun

__all__ = ["conducted"]


def conducted(
    function: Callable[..., Any], run: ArenaRun, examples: Examples | None
) -> Callable[..., Any]:
    """Return a function that calls the test's own in its place.

    A coroutine's clients, lifespan and sessions are closed in the loop that the runner gives it.
    Where it is called once for each example, each of them begins like the first.
    """
    if inspect.iscoroutinefunction(function):
        return _closing(function, run, examples)
    return _beginning(function, examples) if examples is not None else function


def _closing(
    function: Callable[..., Any], run: ArenaRun, examples: Examples | None
) -> Callable[..., Any]:
    @functools.wraps(function)
    async def closing(*args: Any, **kwargs: Any) -> None:
        __tracebackhide__ = True
        if examples is not None:
            await examples.abegin()
        run.begin_call()
        try:
            await function(*args, **kwargs)
        except BaseException:
            await run.aclose_failed_test()
            raise
        await run.aclose_test()
        if examples is not None:
            await examples.aend()

    return closing


def _beginning(function: Callable[..., Any], examples: Examples) -> Callable[..., Any]:
    @functools.wraps(function)
    def beginning(*args: Any, **kwargs: Any) -> None:
        __tracebackhide__ = True
        examples.begin()
        function(*args, **kwargs)
        examples.end()

    return beginning

"""Empties `functools.lru_cache` caches that read a test's database."""

from __future__ import annotations

import functools
from types import CodeType
from typing import TYPE_CHECKING, Any

from sqlalchemy.engine import Engine
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker
from sqlalchemy.orm import sessionmaker

from pytest_arena._config._load import is_library
from pytest_arena._process import replace_attribute

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import ExitStack

__tracebackhide__ = True  # a traceback of the app or of a test ends at its own line

# A function that returns one of these caches no rows.
_NO_ROWS = (Engine, AsyncEngine, sessionmaker, async_sessionmaker)


class FunctionCache:
    """The cache of one function of the app."""

    clear: Callable[[], object]
    info: Callable[[], functools._CacheInfo]

    def belong_to(self, function: functools._lru_cache_wrapper[Any]) -> None:
        """Note the decorated function, which empties the cache and counts its hits."""
        self.clear = function.cache_clear
        self.info = function.cache_info

    def note_hits(self, before: Mapping[FunctionCache, int]) -> None:
        """Note whether the new value was computed from values of other caches with rows.

        ``before`` has the hits of these caches before the computation. A hit in another thread
        counts too: emptying a cache without need is safe.
        """
        for cache, hits in before.items():
            level = FILLED.get(cache)
            if level is not None and cache.info().hits > hits:
                FILLED[self] = max(level, FILLED.get(self, level))


# The caches of the functions that run now, in any thread: a function may read rows in another
# thread. So a statement may be attributed to a cache of another request. Emptying it is safe.
COMPUTED: list[FunctionCache] = []
# The caches that have rows of a database, each with the level in which it was filled.
FILLED: dict[FunctionCache, int] = {}


def note_statement(level: int) -> None:
    """Note in the caches of running functions that a statement was sent in a level."""
    for cache in COMPUTED[:]:
        FILLED[cache] = level


def empty_caches(level: int = 0) -> None:
    """Empty the caches that were filled in this level, without an argument those of tests."""
    for cache, filled_in in [*FILLED.items()]:
        if filled_in == level or (filled_in > 0 and not level):
            del FILLED[cache]
            cache.clear()


def watch_cached_functions(undo: ExitStack) -> None:
    """Watch functions of the app that `lru_cache` or `cache` decorate from now on.

    Functions of libraries are not watched. A cache miss takes a microsecond longer. ``undo``
    restores `functools`.
    """
    original: Any = functools.lru_cache

    @functools.wraps(original)
    def watched(maxsize: Any = 128, typed: bool = False) -> Any:  # noqa: FBT001, FBT002 - as there
        if not callable(maxsize):
            return functools.partial(_cached, original(maxsize, typed))
        return _cached(original(typed=typed), maxsize)

    replace_attribute(undo, functools, "lru_cache", watched)


def _cached(decorate: Callable[[object], Any], function: Any) -> Any:
    code = getattr(function, "__code__", None)
    if not isinstance(code, CodeType) or is_library(code.co_filename):
        return decorate(function)
    cache = FunctionCache()

    @functools.wraps(function)
    def computing(*args: object, **kwargs: object) -> object:
        hits = {filled: filled.info().hits for filled in [*FILLED]}
        COMPUTED.append(cache)
        try:
            value = function(*args, **kwargs)
        finally:
            COMPUTED.remove(cache)
        cache.note_hits(hits)
        if isinstance(value, _NO_ROWS):
            FILLED.pop(cache, None)
        return value

    cached = decorate(computing)
    functools.update_wrapper(cached, function)
    cache.belong_to(cached)
    return cached

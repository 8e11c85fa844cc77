"""Which functions of the drivers does every connection go through? Each asks the guard first."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from pytest_arena._imports import when_imported
from pytest_arena._postgresql.drivers._raw_guard import Guard
from pytest_arena._postgresql.drivers._statements import (
    STATEMENTS,
    guard_cursors,
    owner_of,
    replace_function,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

    from pytest_arena._postgresql.drivers._statements import Change
    from pytest_arena._product import Core

__all__ = ["watch_drivers"]

# Whether a driver's inner function is called by its outer one, whose arguments were looked at.
# Somebody may have got hold of the outer one before the guard was there: then the inner one asks.
_is_inner: ContextVar[bool] = ContextVar("arena_is_inner_call", default=False)


@contextmanager
def _looked_at() -> Iterator[None]:
    _is_inner.set(True)
    try:
        yield
    finally:
        _is_inner.set(False)  # no token: a coroutine may be closed in another context


def _guard_asyncpg(guard: Guard, module: ModuleType) -> None:
    def make(original: Any) -> Any:
        async def _connect(**kwargs: Any) -> Any:
            __tracebackhide__ = True
            why = guard.admit("asyncpg", [], kwargs)
            connection = await original(**kwargs)
            guard.opened(why, connection)
            return connection

        return _connect

    # Private; connect() and pools have nothing else in common.
    replace_function(module, "_connect", make)


def _guard_psycopg(guard: Guard, module: ModuleType) -> None:
    def make(original: Any) -> Any:
        def connect(cls: Any, *args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            given = list(args)
            why = guard.admit("psycopg", given, kwargs)
            with _looked_at():
                connection = original(cls, *given, **kwargs)
            guard.opened(why, connection)
            return connection

        return connect

    _guard_inner_psycopg(guard, module.Connection)
    replace_function(module.Connection, "connect", make)
    _renew("psycopg", "connect", module.Connection.connect)


def _guard_async_psycopg(guard: Guard, module: ModuleType) -> None:
    def make(original: Any) -> Any:
        async def connect(cls: Any, *args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            given = list(args)
            why = guard.admit("psycopg_async", given, kwargs)
            with _looked_at():
                connection = await original(cls, *given, **kwargs)
            guard.opened(why, connection)
            return connection

        return connect

    replace_function(module.AsyncConnection, "connect", make)


def _guard_inner_psycopg(guard: Guard, kind: Any) -> None:
    """Of both classes; for the outer one that somebody had before the guard was there."""

    def make(original: Any) -> Any:
        def _connect_gen(cls: Any, conninfo: str = "", *args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            dialect = "psycopg_async" if hasattr(cls, "__aenter__") else "psycopg"
            why, text = _admit_text(guard, dialect, conninfo)
            connection = yield from original(cls, text, *args, **kwargs)
            guard.opened(why, connection)
            return connection

        return _connect_gen

    replace_function(owner_of(kind, "_connect_gen"), "_connect_gen", make)


def _guard_generators(guard: Guard, module: ModuleType) -> None:
    """The innermost one, which has no connection of psycopg's yet."""

    def make(original: Any) -> Any:
        def connect(conninfo: str, *args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            _, text = _admit_text(guard, "psycopg", conninfo)
            return (yield from original(text, *args, **kwargs))

        return connect

    replace_function(module, "connect", make)


def _admit_text(guard: Guard, dialect: str, conninfo: str) -> tuple[Any, str]:
    __tracebackhide__ = True
    if _is_inner.get():
        return None, conninfo
    given, named = [conninfo], dict[str, Any]()
    why = guard.admit(dialect, given, named)
    if named:
        conninfo = sys.modules["psycopg.conninfo"].make_conninfo(*given, **named)
    return why, conninfo


def _renew(package: str, name: str, function: Any) -> None:
    """A package that was loaded before the guard came has the old function at hand."""
    module = sys.modules.get(package)
    if module is not None and name in vars(module):
        vars(module)[name] = function


def _guard_psycopg2(guard: Guard, module: ModuleType) -> None:
    def make_outer(original: Any) -> Any:
        def connect(*args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            given = list(args)
            why = guard.admit("psycopg2", given, kwargs)
            with _looked_at():
                connection = original(*given, **kwargs)
            _opened_psycopg2(guard, module, why, connection)
            return connection

        return connect

    def make_inner(original: Any) -> Any:
        def connect(dsn: str = "", *args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            if _is_inner.get():
                _is_inner.set(False)  # a connection_factory of the app's may open others
                return original(dsn, *args, **kwargs)
            given, named = [dsn], dict[str, Any]()
            why = guard.admit("psycopg2", given, named)
            text = module.extensions.make_dsn(*given, **named) if named else dsn
            connection = original(text, *args, **kwargs)
            _opened_psycopg2(guard, module, why, connection)
            return connection

        return connect

    replace_function(module, "_connect", make_inner)
    _renew("psycopg2._psycopg", "_connect", vars(module)["_connect"])
    replace_function(module, "connect", make_outer)


def _opened_psycopg2(guard: Guard, module: ModuleType, why: Any, connection: Any) -> None:
    guard.opened(why, connection)
    if why is not None and why.address is not None:
        guard_cursors(guard, module.extensions, connection)


def _guard_pools(guard: Guard, module: ModuleType) -> None:
    """Refuse where a pool is opened: its own threads and tasks would try for minutes."""
    for name, dialect in (("ConnectionPool", "psycopg"), ("AsyncConnectionPool", "psycopg_async")):
        owner = vars(module).get(name)
        if owner is not None and owner.__module__ in {module.__name__, "psycopg_pool"}:
            # open() and `open=True` have nothing else in common.
            replace_function(owner, "_open", partial(_refusing_open, guard, dialect))


def _refusing_open(guard: Guard, dialect: str, original: Any) -> Any:
    def _open(pool: Any) -> Any:
        __tracebackhide__ = True
        text, options = pool.conninfo, pool.kwargs or {}
        # Either may be a function, which is then called for each connection.
        if isinstance(text, str) and isinstance(options, dict):
            guard.refuse_outside(dialect, [text], dict(options))
        return original(pool)

    return _open


_CONNECTING: dict[str, Change] = {
    "asyncpg.connect_utils": _guard_asyncpg,
    "psycopg.generators": _guard_generators,
    "psycopg.connection": _guard_psycopg,
    "psycopg.connection_async": _guard_async_psycopg,
    "psycopg2": _guard_psycopg2,
    "psycopg_pool.pool": _guard_pools,
    "psycopg_pool.pool_async": _guard_pools,
}


@cache
def watch_drivers(core: Callable[[], Core | None]) -> None:
    """Watch asyncpg, psycopg and psycopg2 until the process ends. Imports none of them."""
    guard = Guard(core)
    for module, change in _CONNECTING.items():
        when_imported(module, partial(guard.change, change, _cannot_watch))
    for module, change in STATEMENTS.items():
        when_imported(module, partial(guard.change, change, _cannot_read))


def _cannot_watch(module: str, reason: str) -> str:
    """A note: a driver's version has other functions than those that are watched."""
    return (
        f"connections that {module} opens without an engine are not watched: this version has no "
        f"{reason}"
    )


def _cannot_read(module: str, reason: str) -> str:
    """A note: the same of the functions that statements go through."""
    return (
        f"statements that somebody sends by {module}, past an engine, are not looked at: this "
        f"version has no {reason}"
    )

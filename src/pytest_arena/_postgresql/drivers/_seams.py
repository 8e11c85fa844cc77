"""Which functions of the drivers does every connection go through? Each asks the guard first."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import TYPE_CHECKING, Any

from pytest_arena._postgresql.drivers._base import is_guarded, marked, owner_of
from pytest_arena._postgresql.drivers._statements import guard_cursors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    from pytest_arena._postgresql.drivers._base import Change, Guard

__all__ = ["CONNECTING"]

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
    original = vars(module)["_connect"]  # private; connect() and pools have nothing else in common
    if is_guarded(original):
        return

    @marked
    @wraps(original)
    async def _connect(**kwargs: Any) -> Any:
        __tracebackhide__ = True
        why = guard.admit("asyncpg", [], kwargs)
        connection = await original(**kwargs)
        guard.opened(why, connection)
        return connection

    vars(module)["_connect"] = _connect


def _guard_psycopg(guard: Guard, module: ModuleType) -> None:
    _guard_inner_psycopg(guard, module.Connection)
    owner = module.Connection
    original = vars(owner)["connect"].__func__
    if is_guarded(original):
        return

    @marked
    @wraps(original)
    def connect(cls: Any, *args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        given = list(args)
        why = guard.admit("psycopg", given, kwargs)
        with _looked_at():
            connection = original(cls, *given, **kwargs)
        guard.opened(why, connection)
        return connection

    owner.connect = classmethod(connect)
    _renew("psycopg", "connect", owner.connect)


def _guard_async_psycopg(guard: Guard, module: ModuleType) -> None:
    owner = module.AsyncConnection
    original = vars(owner)["connect"].__func__
    if is_guarded(original):
        return

    @marked
    @wraps(original)
    async def connect(cls: Any, *args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        given = list(args)
        why = guard.admit("psycopg_async", given, kwargs)
        with _looked_at():
            connection = await original(cls, *given, **kwargs)
        guard.opened(why, connection)
        return connection

    owner.connect = classmethod(connect)


def _guard_inner_psycopg(guard: Guard, kind: Any) -> None:
    """Of both classes; for the outer one that somebody had before the guard was there."""
    owner = owner_of(kind, "_connect_gen")
    original = vars(owner)["_connect_gen"].__func__
    if is_guarded(original):
        return

    @marked
    @wraps(original)
    def _connect_gen(cls: Any, conninfo: str = "", *args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        dialect = "psycopg_async" if hasattr(cls, "__aenter__") else "psycopg"
        why, text = _admit_text(guard, dialect, conninfo)
        connection = yield from original(cls, text, *args, **kwargs)
        guard.opened(why, connection)
        return connection

    owner._connect_gen = classmethod(_connect_gen)  # noqa: SLF001 - nothing public is as deep


def _guard_generators(guard: Guard, module: ModuleType) -> None:
    """The innermost one, which has no connection of psycopg's yet."""
    original = module.connect
    if is_guarded(original):
        return

    @marked
    def connect(conninfo: str, *args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        _, text = _admit_text(guard, "psycopg", conninfo)
        return (yield from original(text, *args, **kwargs))

    vars(module)["connect"] = connect


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
    _guard_inner_psycopg2(guard, module)
    if is_guarded(module.connect):
        return
    connect = module.connect

    @marked
    @wraps(connect)
    def outer_connect(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        given = list(args)
        why = guard.admit("psycopg2", given, kwargs)
        with _looked_at():
            connection = connect(*given, **kwargs)
        _opened_psycopg2(guard, module, why, connection)
        return connection

    module.connect = outer_connect  # type: ignore[attr-defined] # a module is not typed


def _guard_inner_psycopg2(guard: Guard, module: ModuleType) -> None:
    inner = vars(module)["_connect"]
    if is_guarded(inner):
        return

    @marked
    @wraps(inner)
    def inner_connect(dsn: str = "", *args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        if _is_inner.get():
            _is_inner.set(False)  # a connection_factory of the app's may open others
            return inner(dsn, *args, **kwargs)
        given, named = [dsn], dict[str, Any]()
        why = guard.admit("psycopg2", given, named)
        text = module.extensions.make_dsn(*given, **named) if named else dsn
        connection = inner(text, *args, **kwargs)
        _opened_psycopg2(guard, module, why, connection)
        return connection

    vars(module)["_connect"] = inner_connect
    _renew("psycopg2._psycopg", "_connect", inner_connect)


def _opened_psycopg2(guard: Guard, module: ModuleType, why: Any, connection: Any) -> None:
    guard.opened(why, connection)
    if why is not None and why.address is not None:
        guard_cursors(guard, module.extensions, connection)


def _guard_pools(guard: Guard, module: ModuleType) -> None:
    """Refuse where a pool is opened: its own threads and tasks would try for minutes."""
    for name, dialect in (("ConnectionPool", "psycopg"), ("AsyncConnectionPool", "psycopg_async")):
        owner = vars(module).get(name)
        if owner is not None and owner.__module__ in {module.__name__, "psycopg_pool"}:
            _guard_pool(guard, owner, dialect)


def _guard_pool(guard: Guard, owner: Any, dialect: str) -> None:
    original = vars(owner)["_open"]
    if is_guarded(original):
        return

    @marked
    @wraps(original)
    def _open(pool: Any) -> Any:
        __tracebackhide__ = True
        text, options = pool.conninfo, pool.kwargs or {}
        # Either may be a function, which is then called for each connection.
        if isinstance(text, str) and isinstance(options, dict):
            guard.refuse_outside(dialect, [text], dict(options))
        return original(pool)

    owner._open = _open  # noqa: SLF001 - open() and `open=True` have nothing else in common


CONNECTING: dict[str, Change] = {
    "asyncpg.connect_utils": _guard_asyncpg,
    "psycopg.generators": _guard_generators,
    "psycopg.connection": _guard_psycopg,
    "psycopg.connection_async": _guard_async_psycopg,
    "psycopg2": _guard_psycopg2,
    "psycopg_pool.pool": _guard_pools,
    "psycopg_pool.pool_async": _guard_pools,
}

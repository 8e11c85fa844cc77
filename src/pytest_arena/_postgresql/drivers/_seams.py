"""Which functions of the drivers does every connection go through? Each asks the guard first."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, partial, wraps
from typing import TYPE_CHECKING, Any

from pytest_arena._postgresql.drivers._raw_guard import Guard
from pytest_arena._process import when_imported

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType
    from typing import TypeAlias

    from pytest_arena._product import Core

    Change: TypeAlias = Callable[[Guard, ModuleType], None]

__all__ = ["watch_drivers"]

# Without parameters; all others, prepared ones, cursors; and COPY, out of a query and in.
_ASYNCPG_STATEMENTS = ("execute", "_get_statement", "_copy_out", "_copy_in")


def replace_function(owner: Any, name: str, make: Callable[[Any], Any]) -> None:
    """Put what ``make`` returns in the place of a function of a driver's, once and for all.

    Raises:
        KeyError: this version of the driver has no such function.
    """
    original = vars(owner)[name]
    function = getattr(original, "__func__", original)
    if not hasattr(function, "arena_guards"):
        guarded: Any = wraps(function)(make(function))
        guarded.arena_guards = True
        setattr(owner, name, classmethod(guarded) if function is not original else guarded)


def owner_of(kind: type, name: str) -> Any:
    """Return the class that a method is written in.

    Raises:
        AttributeError: this version of the driver has no such method.
    """
    for base in kind.__mro__:
        if name in vars(base):
            return base
    raise AttributeError(name)


def _guard_asyncpg_statements(guard: Guard, module: ModuleType) -> None:
    def make(original: Any) -> Any:
        async def ask_first(connection: Any, query: str, *args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            guard.refuse_beyond(connection, query)
            return await original(connection, query, *args, **kwargs)

        return ask_first

    for name in _ASYNCPG_STATEMENTS:
        replace_function(module.Connection, name, make)


def _guard_psycopg_statements(guard: Guard, module: ModuleType) -> None:
    def make(original: Any) -> Any:
        def _convert_query(cursor: Any, *args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            converted = original(cursor, *args, **kwargs)
            guard.refuse_beyond(cursor._conn, converted.query)  # noqa: SLF001 - `connection` is the same, slower
            return converted

        return _convert_query

    # Of all cursors, sync, async and on the server, and of COPY: they have nothing else in common.
    replace_function(owner_of(module.Cursor, "_convert_query"), "_convert_query", make)


def guard_cursors(guard: Guard, extensions: Any, connection: Any) -> None:
    """Have a connection of psycopg2's make cursors that ask first.

    Its own class of cursors is C's and cannot be changed. A connection whose class makes its
    cursors its own way is left alone.
    """
    kind = connection.cursor_factory or extensions.cursor
    has_own_way = type(connection).cursor is not extensions.connection.cursor
    if isinstance(kind, type) and not (has_own_way and connection.cursor_factory is None):
        connection.cursor_factory = _asking_cursor(guard, kind)


@cache
def _asking_cursor(guard: Guard, kind: Any) -> Any:
    class Cursor(kind):  # type: ignore[misc] # whichever class the app has chosen
        def execute(self, query: Any, *args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            guard.refuse_beyond(self.connection, _query_text(self, query))
            return super().execute(query, *args, **kwargs)

        def executemany(self, query: Any, *args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            guard.refuse_beyond(self.connection, _query_text(self, query))
            return super().executemany(query, *args, **kwargs)

        def copy_expert(self, sql: Any, *args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            guard.refuse_beyond(self.connection, _query_text(self, sql))
            return super().copy_expert(sql, *args, **kwargs)

        def callproc(self, procname: Any, *args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            guard.refuse_beyond(self.connection, f"{procname}(")
            return super().callproc(procname, *args, **kwargs)

    Cursor.__name__, Cursor.__qualname__ = kind.__name__, kind.__qualname__
    return Cursor


def _query_text(cursor: Any, query: Any) -> str | bytes:
    # A composed one, of psycopg2.sql, is put together by the connection's own rules.
    return query if isinstance(query, str | bytes) else str(query.as_string(cursor))


_STATEMENTS: dict[str, Change] = {
    "asyncpg.connection": _guard_asyncpg_statements,
    "psycopg.cursor": _guard_psycopg_statements,
}

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
    for module, change in _STATEMENTS.items():
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

"""Which functions of the drivers does every statement go through? Each asks the guard first.

Engines have their own events; this is for whoever has the driver's connection in hand.
"""

from __future__ import annotations

from functools import cache, wraps
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType
    from typing import TypeAlias

    from pytest_arena._postgresql.drivers._raw_guard import Guard

    Change: TypeAlias = Callable[[Guard, ModuleType], None]

__all__ = ["STATEMENTS", "Change", "guard_cursors", "owner_of", "replace_function"]

# Without parameters; all others, prepared ones, cursors; and COPY, out of a query and in.
_OF_ASYNCPG = ("execute", "_get_statement", "_copy_out", "_copy_in")


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


def _guard_asyncpg(guard: Guard, module: ModuleType) -> None:
    def make(original: Any) -> Any:
        async def ask_first(connection: Any, query: str, *args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            guard.refuse_beyond(connection, query)
            return await original(connection, query, *args, **kwargs)

        return ask_first

    for name in _OF_ASYNCPG:
        replace_function(module.Connection, name, make)


def _guard_psycopg(guard: Guard, module: ModuleType) -> None:
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
            guard.refuse_beyond(self.connection, _text(self, query))
            return super().execute(query, *args, **kwargs)

        def executemany(self, query: Any, *args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            guard.refuse_beyond(self.connection, _text(self, query))
            return super().executemany(query, *args, **kwargs)

        def copy_expert(self, sql: Any, *args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            guard.refuse_beyond(self.connection, _text(self, sql))
            return super().copy_expert(sql, *args, **kwargs)

        def callproc(self, procname: Any, *args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            guard.refuse_beyond(self.connection, f"{procname}(")
            return super().callproc(procname, *args, **kwargs)

    Cursor.__name__, Cursor.__qualname__ = kind.__name__, kind.__qualname__
    return Cursor


def _text(cursor: Any, query: Any) -> str | bytes:
    # A composed one, of psycopg2.sql, is put together by the connection's own rules.
    return query if isinstance(query, str | bytes) else str(query.as_string(cursor))


STATEMENTS: dict[str, Change] = {
    "asyncpg.connection": _guard_asyncpg,
    "psycopg.cursor": _guard_psycopg,
}

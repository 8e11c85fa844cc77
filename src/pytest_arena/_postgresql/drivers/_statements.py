"""Which functions of the drivers does every statement go through? Each asks the guard first.

Engines have their own events; this is for whoever has the driver's connection in hand.
"""

from __future__ import annotations

from functools import cache, wraps
from typing import TYPE_CHECKING, Any

from pytest_arena._postgresql.drivers._base import is_guarded, marked, owner_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from pytest_arena._postgresql.drivers._base import Change, Guard

__all__ = ["STATEMENTS", "guard_cursors"]

# Without parameters; all others, prepared ones, cursors; and COPY, out of a query and in.
_OF_ASYNCPG = ("execute", "_get_statement", "_copy_out", "_copy_in")


def _guard_asyncpg(guard: Guard, module: ModuleType) -> None:
    for name in _OF_ASYNCPG:
        original = vars(module.Connection)[name]
        if not is_guarded(original):
            setattr(module.Connection, name, _asking(guard, original))


def _asking(guard: Guard, original: Callable[..., Any]) -> Any:
    @marked
    @wraps(original)
    async def ask_first(connection: Any, query: str, *args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        guard.refuse_beyond(connection, query)
        return await original(connection, query, *args, **kwargs)

    return ask_first


def _guard_psycopg(guard: Guard, module: ModuleType) -> None:
    # Of all cursors, sync, async and on the server, and of COPY.
    owner = owner_of(module.Cursor, "_convert_query")
    original = vars(owner)["_convert_query"]
    if is_guarded(original):
        return

    @marked
    @wraps(original)
    def _convert_query(cursor: Any, *args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        converted = original(cursor, *args, **kwargs)
        guard.refuse_beyond(cursor._conn, converted.query)  # noqa: SLF001 - `connection` is the same, slower
        return converted

    owner._convert_query = _convert_query  # noqa: SLF001 - execute(), stream(), copy() have nothing else in common


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

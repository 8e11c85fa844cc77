"""How is an ATTACH seen, before SQLite opens the file that it names?"""

from __future__ import annotations

import sqlite3
from functools import cache
from time import perf_counter
from typing import TYPE_CHECKING, Any

from pytest_arena._dialects import _sqlite as sql
from pytest_arena._gate import _refuse
from pytest_arena.errors import RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_arena._gate._base import Resolver

__all__ = ["GuardedConnection", "watch"]


class GuardedConnection(sqlite3.Connection):
    """What everybody gets in the place of a plain connection: its cursors look at each ATTACH.

    The statement and its parameters are seen, which SQLite's own authorizer would not show.
    """

    # Plain classes until somebody sets them: a connection made before the gate knows nothing.
    arena_resolver: Resolver | None = None
    arena_outside: str | None = None  # the real path of a file that was nobody's when it was opened
    arena_made_table: Callable[[float, float], None] | None = None

    def cursor(self, factory: Any = sqlite3.Cursor) -> Any:
        """As ``sqlite3.Connection.cursor``."""
        return super().cursor(_guarded(factory) if isinstance(factory, type) else factory)

    # sqlite3's own three make their cursors without asking cursor().

    def execute(self, sql: str, parameters: Any = (), /) -> Any:
        """As ``sqlite3.Connection.execute``."""
        __tracebackhide__ = True
        return self.cursor().execute(sql, parameters)

    def executemany(self, sql: str, parameters: Any, /) -> Any:
        """As ``sqlite3.Connection.executemany``."""
        return self.cursor().executemany(sql, parameters)

    def executescript(self, sql_script: str, /) -> Any:
        """As ``sqlite3.Connection.executescript``."""
        __tracebackhide__ = True
        return self.cursor().executescript(sql_script)


class _GuardedCursor:
    """The cursor of a guarded connection. Costs 1-2 µs a statement."""

    connection: GuardedConnection

    def execute(self, statement: str, parameters: Any = ()) -> Any:
        __tracebackhide__ = True
        self._admit(statement, parameters)
        started = perf_counter()
        try:
            return super().execute(statement, parameters)  # type: ignore[misc]  # the mixed-in one
        finally:
            made_table = self.connection.arena_made_table
            if made_table is not None and sql.makes_table(statement):
                made_table(started, perf_counter())

    def executemany(self, statement: str, parameters: Any) -> Any:
        __tracebackhide__ = True
        self._admit(statement, ())
        return super().executemany(statement, parameters)  # type: ignore[misc]  # the mixed-in one

    def executescript(self, script: str) -> Any:
        __tracebackhide__ = True
        self._admit(script, ())
        return super().executescript(script)  # type: ignore[misc]  # the mixed-in cursor

    def _admit(self, script: str, parameters: Any) -> None:
        __tracebackhide__ = True
        resolver, outside = self.connection.arena_resolver, self.connection.arena_outside
        if resolver is None:
            return
        if outside is not None and resolver.stands_for(outside):
            error = _refuse.production_file(outside)
            resolver.refused(error)
            raise error
        if isinstance(script, str) and "attach" in script.lower():
            for name in sql.attached_files(script, parameters):
                _admit(resolver, name)


@cache
def _guarded(base: type[sqlite3.Cursor]) -> Any:
    return type(f"Guarded{base.__name__}", (_GuardedCursor, base), {})


def _admit(resolver: Resolver, name: str | None) -> None:
    __tracebackhide__ = True
    file = sql.file_of(name, uri=True) if name is not None else ""
    if name is None or (file and not resolver.is_inside(file) and resolver.belongs_to_app(file)):
        error = _refuse.attached(file)
        resolver.refused(error)
        raise error


def watch(resolver: Resolver, connection: sqlite3.Connection) -> None:
    """Have SQLite ask before it attaches a file, on a connection of the app's own class.

    What the app then sees is SQLite's own error; the refusal is kept, and reported.
    """

    def authorize(action: int, name: str | None, *_: Any) -> int:
        if action != sqlite3.SQLITE_ATTACH:
            return sqlite3.SQLITE_OK
        if name is None:  # a parameter or an expression: known when the statement starts
            connection.set_trace_callback(at_start)
            return sqlite3.SQLITE_OK
        return sqlite3.SQLITE_OK if _admits(resolver, name) else sqlite3.SQLITE_DENY

    def at_start(statement: str) -> None:
        if not all(_admits(resolver, name) for name in sql.attached_files(statement)):
            # A trace cannot refuse a statement; a limit that is looked at after it can.
            connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)

    connection.set_authorizer(authorize)


def _admits(resolver: Resolver, name: str | None) -> bool:
    try:
        _admit(resolver, name)
    except RefusedError:
        return False
    return True

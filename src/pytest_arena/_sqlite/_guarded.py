"""How are the statements of a plain connection looked at, before SQLite runs them?"""

from __future__ import annotations

import sqlite3
from functools import cache
from typing import TYPE_CHECKING, Any

from pytest_arena import _clock
from pytest_arena._sqlite import _messages
from pytest_arena._sqlite._attach import attaching, led, watch
from pytest_arena._sqlite._attach_sql import let_attach, may_attach
from pytest_arena._sqlite._scripts import makes_table
from pytest_arena._sqlite._sql import OwnConnection

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from pytest_arena._product import Aim, Core

__all__ = ["GuardedConnection", "guard", "guarded_class"]


class GuardedConnection(sqlite3.Connection):
    """What everybody gets in the place of a plain connection: its cursors look at each ATTACH.

    The statement and its parameters are seen, which SQLite's own authorizer would not show. On an
    engine's connection the file is replaced by the arena's, elsewhere one of the app's is refused.
    A statement that comes another way (a cursor that was made from its class) finds SQLite
    attaching no file at all.
    """

    # Of the class until somebody sets them: a connection made before the gate knows nothing.
    arena_core: Core | None = None
    arena_outside: str | None = None  # the real path of a file that was nobody's when it was opened
    arena_made_table: Callable[[float, float], None] | None = None
    arena_leads: Callable[[str], Aim | None] | None = None  # where a file lands that it attaches
    arena_aims: tuple[Aim, ...] = ()  # of what it has attached
    arena_authorizer: Callable[..., int] | None = None  # the app's own

    def cursor(self, factory: Any = sqlite3.Cursor) -> Any:
        """As ``sqlite3.Connection.cursor``."""
        return super().cursor(_guarded(factory) if isinstance(factory, type) else factory)

    # sqlite3's own three make their cursors without asking cursor().

    def execute(self, *args: Any, **kwargs: Any) -> Any:
        """As ``sqlite3.Connection.execute``."""
        __tracebackhide__ = True
        return self.cursor().execute(*args, **kwargs)

    def executemany(self, *args: Any, **kwargs: Any) -> Any:
        """As ``sqlite3.Connection.executemany``."""
        return self.cursor().executemany(*args, **kwargs)

    def executescript(self, *args: Any, **kwargs: Any) -> Any:
        """As ``sqlite3.Connection.executescript``."""
        __tracebackhide__ = True
        return self.cursor().executescript(*args, **kwargs)

    def set_authorizer(self, authorizer_callback: Any) -> None:
        """As ``sqlite3.Connection.set_authorizer``."""
        self.arena_authorizer = authorizer_callback
        super().set_authorizer(authorizer_callback)


class _GuardedCursor:
    """The cursor of a guarded connection. Costs 1-2 µs a statement.

    An app's own cursor has the parameters that it likes: all are handed on as they came.
    """

    connection: GuardedConnection

    def execute(self, *args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        self._check_file()
        statement = _statement(args, kwargs)
        if may_attach(statement):
            with _attaching(self.connection):
                args, kwargs = _led(self.connection, args, kwargs)
                return super().execute(*args, **kwargs)  # type: ignore[misc]  # the mixed-in one
        started = _clock.seconds()
        try:
            return super().execute(*args, **kwargs)  # type: ignore[misc]  # the mixed-in one
        finally:
            made_table = self.connection.arena_made_table
            if made_table is not None and makes_table(statement):
                made_table(started, _clock.seconds())

    def executemany(self, *args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        self._check_file()  # an ATTACH is refused here by sqlite3 itself
        return super().executemany(*args, **kwargs)  # type: ignore[misc]  # the mixed-in one

    def executescript(self, *args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        self._check_file()
        if not may_attach(_statement(args, kwargs)):
            return super().executescript(*args, **kwargs)  # type: ignore[misc]  # the mixed-in one
        with _attaching(self.connection):
            args, kwargs = _led(self.connection, args, kwargs)
            return super().executescript(*args, **kwargs)  # type: ignore[misc]  # the mixed-in one

    def _check_file(self) -> None:
        __tracebackhide__ = True
        core, outside = self.connection.arena_core, self.connection.arena_outside
        if core is not None and outside is not None and core.files.stands_for(outside):
            raise core.ledger.refused(_messages.production_file(outside))


@cache
def _guarded(base: type[sqlite3.Cursor]) -> Any:
    return type(f"Guarded{base.__name__}", (_GuardedCursor, base), {})


@cache
def guarded_class(base: type[sqlite3.Connection]) -> type[GuardedConnection]:
    """Return an app's own class that is guarded below: what it overrides is called as before."""
    bases = (GuardedConnection,) if base is sqlite3.Connection else (base, GuardedConnection)
    return type(base.__name__, bases, {"__module__": base.__module__})


def _attaching(connection: GuardedConnection) -> AbstractContextManager[None]:
    return attaching(connection, connection.arena_core, connection.arena_authorizer)


def _statement(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    found = args[0] if args else next(iter(kwargs.values()), "")
    return found if isinstance(found, str) else ""


def _led(
    connection: GuardedConnection, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments, with the arena's files in the places of those that the script attaches."""
    __tracebackhide__ = True
    if connection.arena_core is None:
        return args, kwargs
    names, values = [*range(len(args)), *kwargs], [*args, *kwargs.values()]
    leads, given = connection.arena_leads, values[1] if len(values) > 1 else ()
    script, bound, aims = led(connection.arena_core, leads, values[0], given)
    connection.arena_aims = (*connection.arena_aims, *aims)
    new = dict(zip(names, (script, bound), strict=False))
    placed = tuple(new.get(number, value) for number, value in enumerate(args))
    return placed, {name: new.get(name, value) for name, value in kwargs.items()}


def guard(core: Core, connection: sqlite3.Connection, *, of_engine: bool) -> None:
    """Have an open connection ask before it attaches a file; arena's own need not."""
    if isinstance(connection, GuardedConnection):
        connection.arena_core = core
        let_attach(connection, allowed=False)
    elif not isinstance(connection, OwnConnection):
        watch(core, connection, of_engine=of_engine)

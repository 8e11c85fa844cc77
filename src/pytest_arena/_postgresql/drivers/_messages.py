"""The guard's words for connections to servers that no engine opens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_arena._origin import user_line
from pytest_arena._product import NOWHERE
from pytest_arena.errors import ProductionDatabaseError, UnknownDatabaseError

if TYPE_CHECKING:
    from pytest_arena._postgresql._arguments import Target
    from pytest_arena._values import CodeLine
    from pytest_arena.errors import RefusedError

__all__ = [
    "beyond",
    "cannot_read",
    "cannot_watch",
    "led_astray",
    "made_elsewhere",
    "raw_connection",
]

_UNSEEN = "no line of yours is on the stack: a pool's own task or thread connects"
_UNSEEN_LINE = "no line of yours is on the stack: a thread or an extension module connects"
_REDIRECT = "arena_drivers = redirect   (it then lands in the test's database)"


def raw_connection(
    target: Target, driver: str, *, of_app: bool, line: CodeLine | None = None
) -> RefusedError:
    """A connection by a driver itself, to a server's database outside of the arena."""
    kind = ProductionDatabaseError if of_app else UnknownDatabaseError
    return kind(
        f"refused: a connection to {target.name} by {driver}, and not by the app's engine",
        why="arena leads engines into the test's database; what this connection does would stay "
        "in a database that may be a real one",
        cause=str(line or user_line() or _UNSEEN),
        fix=f"{_REDIRECT}\nor use the app's engine, db_session or arena.url{_allowing(target)}",
    )


def led_astray(target: Target) -> UnknownDatabaseError:
    """An engine's connection whose arguments somebody changed after arena had."""
    return UnknownDatabaseError(
        f"refused: an engine's connection to {target.name}, which is not inside the arena",
        why="a do_connect listener of the app changed where it goes after arena had led it into "
        "the test's database; what the test did would stay there",
        cause=str(user_line() or _UNSEEN),
        fix=f"set what belongs to the session alone in the listener{_allowing(target)}",
    )


def made_elsewhere(target: Target) -> UnknownDatabaseError:
    """A connection that a factory opened, instead of the one that it was asked for."""
    return UnknownDatabaseError(
        f"refused: a connection to {target.name}, which is not inside the arena",
        why="a connection_factory was asked for one to the test's database and opened another one; "
        "what it does would stay there",
        cause=str(user_line() or _UNSEEN),
        fix="let the factory pass on the dsn that it is given",
    )


def _allowing(target: Target) -> str:
    if any(NOWHERE in name for name in target.names):  # the environment's, before it was replaced
        return ""
    hosts_alike = target.names[0] if len(target.names) == 1 else f"postgresql://*/{target.database}"
    return f"; or, if tests may reach it:\narena_allow = {hosts_alike}"


def cannot_watch(module: str, reason: str) -> str:
    """A note: a driver's version has other functions than those that are watched."""
    return (
        f"connections that {module} opens without an engine are not watched: this version has no "
        f"{reason}"
    )


def cannot_read(module: str, reason: str) -> str:
    """A note: the same of the functions that statements go through."""
    return (
        f"statements that somebody sends by {module}, past an engine, are not looked at: this "
        f"version has no {reason}"
    )


def beyond(statement: str) -> ProductionDatabaseError:
    """A statement that would touch another database of the server, or all of it."""
    return ProductionDatabaseError(
        f"refused: {statement}, which reaches beyond the test's database",
        why="the server may have databases of yours; what is done to them, and to the server, is "
        "not taken back after the test",
        cause=str(user_line() or _UNSEEN_LINE),
        fix="delete the fixture that makes a test database, and name what fills one:\n"
        "arena_schema = <module>:<Base>   (a migration names its own by current_database())",
    )

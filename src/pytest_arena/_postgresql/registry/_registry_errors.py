"""The errors for a server that refuses a statement or does not answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_arena._product._server_errors import (
    CROWDED,
    DROPPED,
    FULL,
    WHY,
    server_is_down,
)
from pytest_arena.errors import ArenaError, IsolationError, ServerError

if TYPE_CHECKING:
    from pytest_arena._postgresql._control import ControlFailure
    from pytest_arena._values import Address

# Statements that a user can paste.
_GIVE_CREATEDB = 'ALTER ROLE "{role}" CREATEDB;   -- as a superuser'
ANOTHER = (
    "ARENA_DATABASE=own pytest …   # a private server, or the URL of another server"
)


_KNOWN: dict[str, tuple[type[ArenaError], str, str]] = {
    "42501": (
        ServerError,
        "the role has too few rights on this server",
        _GIVE_CREATEDB,
    ),
    "53100": FULL,
    "53200": (
        ServerError,
        "the server has no memory for another lock: many tables, or many runs at once",
        "pytest -n 2 …   # or a larger max_locks_per_transaction on the server",
    ),
    "53300": CROWDED,
    "55006": (
        IsolationError,
        "a client is connected to a database of pytest-arena, and this role may not disconnect it",
        "close the tool that is connected to the database, or use `arena_database = own`",
    ),
    "55P03": (
        IsolationError,
        "another session holds a lock, and has not released it in time",
        "find sessions in databases named arena_… in pg_stat_activity, and end them",
    ),
    "3D000": DROPPED,
}


def failed(what: str, error: ControlFailure, address: Address) -> ArenaError:
    """Return the error for a refusal. ``what`` names the operation that failed."""
    if error.is_down:
        return server_is_down(what, error, address, ANOTHER)
    cause = f"the server answered with SQLSTATE {error.sqlstate}"
    kind, cause, fix = _KNOWN.get(error.sqlstate, (ServerError, cause, ANOTHER))
    return kind(
        f"{address.server}: {what}: {error.first_line}",
        why=WHY,
        cause=cause,
        fix=fix.format(role=address.user),
    )

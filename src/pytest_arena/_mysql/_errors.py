"""Errors of a server that refuses, or is down."""

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
    from pytest_arena._mysql._control import MySQLFailure
    from pytest_arena._values import Address

# Statements that a user can paste.
GRANT = "GRANT ALL ON `arena\\_%`.* TO {user};   -- by an administrator"
_ANOTHER = "ARENA_DATABASE=mysql://root@host:3306/ pytest …   # another server"

_NO_RIGHTS = (
    ServerError,
    "the login {user}{source} has too few rights on this server",
    (
        f"{GRANT}\nTriggers and views of the app may need SUPER, SET USER, or "
        "SET GLOBAL log_bin_trust_function_creators = 1"
    ),
)
_LOCKED = (
    IsolationError,
    "another session holds a lock, and has not released it in time",
    "search SHOW PROCESSLIST for sessions in databases named arena_…",
)
_KNOWN: dict[int, tuple[type[ArenaError], str, str]] = {
    **dict.fromkeys((1044, 1142, 1227, 1370, 1410, 1418, 1419), _NO_RIGHTS),
    **dict.fromkeys((1021, 1114), FULL),
    **dict.fromkeys((1040, 1203, 1226), CROWDED),
    1205: _LOCKED,
    1049: DROPPED,
}


def failed(
    what: str, error: MySQLFailure, address: Address, source: str = ""
) -> ArenaError:
    """Return the error for a refused statement. ``what`` names the operation that failed.

    ``source`` is the place of the option that names the server.
    """
    if error.is_lost:
        return server_is_down(what, error, address, _ANOTHER)
    cause = f"the server answered with error {error.number}"
    kind, cause, fix = _KNOWN.get(error.number, (ServerError, cause, _ANOTHER))
    of_source = f" of {source}" if source else ""
    return kind(
        f"{address.server}: {what}: {error.first_line}",
        why=WHY,
        cause=cause.format(user=address.user, source=of_source),
        fix=fix.format(user=address.user),
    )

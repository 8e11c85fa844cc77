"""Errors of a server that refuses, or is down."""

from __future__ import annotations

from pytest_arena._product._server_errors import CROWDED, DROPPED, FULL, Known
from pytest_arena.errors import ServerError

# Statements that a user can paste.
GRANT = "GRANT ALL ON `arena\\_%`.* TO {user};   -- by an administrator"
ANOTHER = "ARENA_DATABASE=mysql://root@host:3306/ pytest …   # another server"

_NO_RIGHTS = (
    ServerError,
    "the login {user}{source} has too few rights on this server",
    (
        f"{GRANT}\nTriggers and views of the app may need SUPER, SET USER, or "
        "SET GLOBAL log_bin_trust_function_creators = 1"
    ),
)
KNOWN: dict[int, Known] = {
    **dict.fromkeys((1044, 1142, 1227, 1370, 1410, 1418, 1419), _NO_RIGHTS),
    **dict.fromkeys((1021, 1114), FULL),
    **dict.fromkeys((1040, 1203, 1226), CROWDED),
    1049: DROPPED,
}

"""The errors for a server that refuses a statement, by SQLSTATE."""

from __future__ import annotations

from pytest_arena._product._server_errors import CROWDED, DROPPED, FULL, Known
from pytest_arena.errors import IsolationError, ServerError

# Statements that a user can paste.
_GIVE_CREATEDB = 'ALTER ROLE "{user}" CREATEDB;   -- as a superuser'
ANOTHER = (
    "ARENA_DATABASE=own pytest …   # a private server, or the URL of another server"
)
KNOWN: dict[str, Known] = {
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

"""Errors of a server that refuses, or is down."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_arena.errors import ArenaError, IsolationError, ServerError

if TYPE_CHECKING:
    from pytest_arena._postgresql._control import ControlFailure
    from pytest_arena._values import Address

_WHY = "each test works on a database that pytest-arena makes on this server"
# Lines to paste.
_GIVE_CREATEDB = 'ALTER ROLE "{role}" CREATEDB;   -- as a superuser'
_RENAME = 'ALTER DATABASE "{name}" RENAME TO …;   -- if it may have another name'
_ANOTHER = (
    "ARENA_DATABASE=own pytest …   # starts a private server; a URL names another one"
)


_KNOWN: dict[str, tuple[type[ArenaError], str, str]] = {
    "42501": (
        ServerError,
        "the role has too few rights on this server",
        _GIVE_CREATEDB,
    ),
    "53100": (
        IsolationError,
        "the disk of the server is full: each clone takes as much room as its template",
        "arena databases sweep --all   # and make room on the server's disk",
    ),
    "53200": (
        ServerError,
        "the server has no room for one more lock: many tables, or many runs at once",
        "pytest -n 2 …   # or a larger max_locks_per_transaction on the server",
    ),
    "53300": (
        ServerError,
        (
            "all connections of the server are taken: each worker has some, and the pools of "
            "the app's engines as many as they may overflow to"
        ),
        "pytest -n 2 …   # or a smaller pool_size, or a larger max_connections on the server",
    ),
    "55006": (
        IsolationError,
        "a client is connected to a database of pytest-arena, and this role may not end that",
        "close the tool that is connected to it, or use `arena_database = own`",
    ),
    "55P03": (
        IsolationError,
        "another session holds a lock there, and has not released it in time",
        "look into pg_stat_activity for sessions in databases named arena_…",
    ),
    "3D000": (
        IsolationError,
        "a database of this run was dropped, by another tool or with its server",
        "do not drop databases named arena_…: `arena databases sweep` removes those that are left",
    ),
}


def failed(what: str, error: ControlFailure, address: Address) -> ArenaError:
    """Return the error for a refused statement. ``what`` is what pytest-arena could not do."""
    cause = "no server answers"
    if error.sqlstate:
        cause = f"the server's answer {error.sqlstate}"
    kind, cause, fix = _KNOWN.get(error.sqlstate, (ServerError, cause, _ANOTHER))
    return kind(
        f"{address.server}: {what}: {error.first_line}",
        why=_WHY,
        cause=cause,
        fix=fix.format(role=address.user),
    )


def server_is_down(what: str, error: ControlFailure, address: Address) -> ServerError:
    """Return the error for a server that answered earlier in this run, and no longer does."""
    why = _WHY
    if address.log:
        why = "the private server of pytest-arena was killed, or has crashed"
        fix = f"pytest …   # starts it again; if it stops again, read {address.log}"
    else:
        start = (
            "start the server again (its log says why it stopped), or use another one:"
        )
        fix = f"{start}\n{_ANOTHER}"
    return ServerError(
        f"{address.server}: {what}: the server has stopped or is restarting",
        why=why,
        cause=f"the connection failed: {error.first_line}",
        fix=fix,
    )


def foreign_registry(address: Address, name: str) -> ServerError:
    """Return the error for another owner's database of the registry's name."""
    return ServerError(
        f"{address.server}: the database {name!r} there is not arena's",
        why="pytest-arena records in it which databases it may drop, and drops no others",
        cause="it has tables and not pytest-arena's comment, or another owner",
        fix=_RENAME.format(name=name),
    )


def is_gone(name: str) -> IsolationError:
    """Return the error for a template that was dropped."""
    return IsolationError(
        f"the template {name!r} is gone",
        why="the databases of tests are copied from it",
        cause="`arena databases sweep`, or another run that dropped old templates",
        fix="pytest …   # once more: pytest-arena builds it again",
    )

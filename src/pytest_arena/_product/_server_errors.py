"""The errors for a server that refuses a statement or does not answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from pytest_arena.errors import ArenaError, IsolationError, ServerError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_arena._product._control_lines import ServerFailure
    from pytest_arena._values import Address

WHY = "each test works on a database that pytest-arena creates on this server"

# The class of an error, its cause, and the next step.
Known: TypeAlias = tuple[type[ArenaError], str, str]
FULL = (
    IsolationError,
    "the disk of the server is full: each clone takes as much room as its template",
    "arena databases sweep --all   # and make room on the server's disk",
)
CROWDED = (
    ServerError,
    (
        "all connections of the server are taken: by each worker, and by the pools of the app's "
        "engines up to their overflow"
    ),
    "pytest -n 2 …   # or a smaller pool_size, or a larger max_connections on the server",
)
DROPPED = (
    IsolationError,
    "a database of this run was dropped, by another tool or with its server",
    "do not drop databases named arena_…: `arena databases sweep` removes leftovers",
)


def failed(
    what: str,
    error: ServerFailure,
    address: Address,
    known: Mapping[Any, Known],
    another: str,
) -> ArenaError:
    """Return the error for a refusal. ``what`` names the operation that failed."""
    if error.is_down:
        return _server_is_down(what, error, address, another)
    unknown = ServerError, f"the server answered with error {error.code}", another
    kind, cause, fix = known.get(error.code, unknown)
    return kind(
        f"{address.server}: {what}: {error.first_line}",
        why=WHY,
        cause=cause.format(user=address.user),
        fix=fix.format(user=address.user),
    )


def _server_is_down(
    what: str, error: ServerFailure, address: Address, another: str
) -> ServerError:
    """Return the error for a server that answered earlier in this run, and no longer does."""
    why = WHY
    if address.log:
        why = "the private server of pytest-arena was killed, or has crashed"
        fix = f"pytest …   # starts it again. If it stops again, read {address.log}"
    else:
        start = (
            "start the server again (its log says why it stopped), or use another one:"
        )
        fix = f"{start}\n{another}"
    return ServerError(
        f"{address.server}: {what}: the server has stopped or is restarting",
        why=why,
        cause=f"the connection failed: {error.first_line}",
        fix=fix,
    )


def template_is_gone(name: str) -> IsolationError:
    """Return the error for a template that was dropped."""
    return IsolationError(
        f"the template {name!r} is gone",
        why="the databases of tests are copies of it",
        cause="`arena databases sweep`, or another run that dropped old templates",
        fix="pytest …   # once more: pytest-arena builds it again",
    )

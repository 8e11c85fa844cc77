"""Does this server let us keep a change journal, and what would make it?"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from pytest_arena._postgresql import _rights_sql as sql
from pytest_arena._postgresql._control import Failed, open_control

if TYPE_CHECKING:
    from pytest_arena._postgresql.registry import ServerRegistry

__all__ = ["lacking", "what_would_do"]

_found: WeakKeyDictionary[ServerRegistry, str] = WeakKeyDictionary()


def lacking(own: ServerRegistry) -> str:
    """Return what keeps the role of a run from undoing tests; "" where nothing does.

    It is tried out: a connection as the journal's, with a trigger on a table that nobody sees.
    Cost: one connection and one round trip (some 5 ms), once a run.

    Raises:
        ArenaError: it cannot be tried: the server is gone, or full of connections.
    """
    if own not in _found:
        with own.saying("whether tests can be undone cannot be tried"):
            _found[own] = _tried(own)
    return _found[own]


def _tried(own: ServerRegistry) -> str:
    [(role, _)] = own.control.rows(sql.whose())
    try:
        with closing(open_control(own.inside)) as control, own.writes.one():
            control.run(sql.BE_REPLICA)
            control.run(sql.may_capture())
    except Failed as error:
        if error.is_elsewhere:  # of which nothing follows for the rest of the run
            raise
        return f"the role {role} may not: {str(error).partition(chr(10))[0]}"
    return ""


def what_would_do(own: ServerRegistry) -> str:
    """Return what gives the role of a run the rights, to be pasted."""
    [(role, version)] = own.control.rows(sql.whose())
    if version >= sql.GRANT_SINCE and "session_replication_role" in lacking(own):
        return f"{sql.grant_replica(role)}   -- as a superuser"
    return "the URL of a server where arena may be a superuser, or arena_database = own"

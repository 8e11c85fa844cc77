"""Refuses statements that name another database, a role or the whole server.

The app's rights on the server are the second wall. Statements inside functions, ``DO`` blocks and
drivers' own cursors are not read.
"""

import re
from functools import lru_cache

from pytest_arena._origin import cause_of_connection
from pytest_arena._values import without_comments
from pytest_arena.errors import ProductionDatabaseError

_BEYOND = re.compile(
    r"""(?isx)
    (?:\A|;) \s* (?P<verb> (?:CREATE|DROP|ALTER) \s+ DATABASE | ALTER \s+ SYSTEM
        | (?:DROP|ALTER) \s+ (?:ROLE|USER(?!\s+MAPPING)|GROUP) ) \b
    | (?P<function> \bpg_terminate_backend ) \s* \(
        (?=.*\bpg_stat_activity\b) (?!.*\bcurrent_database\s*\()"""
)
_ITS_DEFAULT = (
    "set the role's default in this database alone:\n"
    "DO $$ BEGIN EXECUTE format('ALTER ROLE … IN DATABASE %I SET …', current_database()); END $$"
)
_FILL = (
    "delete the fixture that creates a test database, and name the source of its tables:\n"
    "arena_schema =\n    <name of the database> = <module>:<Base>"
)
# What to send instead.
INSTEAD = {
    "ALTER ROLE": _ITS_DEFAULT,
    "ALTER USER": _ITS_DEFAULT,
    "ALTER DATABASE": "in a migration or in arena_schema, for the database that it runs in:\n"
    "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I …', current_database()); END $$",
}
_NEXT = {
    **INSTEAD,
    "CREATE DATABASE": _FILL,
    "DROP DATABASE": _FILL,
    "PG_TERMINATE_BACKEND": "end sessions of the test's database: "
    "WHERE datname = current_database()",
}
_LEAVE_OUT = "send it by hand before the tests, and not while tests run"


@lru_cache(maxsize=1024)
def reaches_beyond(statement: str) -> str:
    """Return what a statement does to other databases or the server, "" for nothing.

    >>> reaches_beyond("SELECT 1; drop database shop")
    'DROP DATABASE'
    """
    beyond = _BEYOND.search(without_comments(statement))
    if beyond is None:
        return ""
    return " ".join((beyond["verb"] or beyond["function"]).upper().split())


def refused_beyond(beyond: str) -> ProductionDatabaseError:
    """Return the error for a statement that would change another database or the server."""
    return ProductionDatabaseError(
        f"refused: {beyond}, which reaches beyond the test's database",
        why="the server may have databases of yours. pytest-arena does not undo changes to them "
        "or to the server",
        cause=cause_of_connection(),
        fix=_NEXT.get(beyond, _LEAVE_OUT),
    )

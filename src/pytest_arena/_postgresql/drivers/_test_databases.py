"""Answers CREATE and DROP DATABASE of fixtures.

pytest-arena redirects engines on any database to the test's database, which exists already.
"""

import re

from pytest_arena._postgresql import STANDARD_DATABASES
from pytest_arena._values import without_comments

_NO_SESSION = "SELECT true AS pg_terminate_backend WHERE false"
# PostgreSQL refuses this statement in a transaction block, like the statements that it replaces.
_NO_DATABASE = 'DROP DATABASE IF EXISTS "pytest-arena: no database"'
_CREATES_OR_DROPS = re.compile(
    r"""(?isx) \s* (?P<verb> CREATE|DROP) \s+ DATABASE \s+ (?:IF \s+ EXISTS \s+)?
    (?P<name> "(?:[^"]|"")+" | \w[\w$]* ) (?P<options> [^;]*) ;? \s* $"""
)
_SENT_IN_PLACE = f"{_NO_DATABASE} -- sent by pytest-arena in place of "
_COPIES = re.compile(r'(?i)\bTEMPLATE\b\s*=?\s*"?(?!template[01]\b)\w')
_ENDS_SESSIONS = re.compile(
    r"(?is)\bpg_terminate_backend\b.*\bdatname\s*=\s*'(?P<name>[^']+)'"
)


def created_or_dropped_database(statement: str) -> str:
    """Return the name of the database that a statement creates or drops, or "".

    A statement that ends the sessions of a database also counts, because it prepares a drop.

    >>> created_or_dropped_database('CREATE DATABASE "shop-test" TEMPLATE template1')
    'shop-test'
    >>> created_or_dropped_database("CREATE DATABASE mine TEMPLATE real")
    ''
    """
    statement = without_comments(statement)
    match = _CREATES_OR_DROPS.match(statement)
    if match is not None and not _COPIES.search(match["options"]):
        name = match["name"]
        is_quoted = name.startswith('"')
        name = name[1:-1].replace('""', '"') if is_quoted else name.lower()
        return "" if name in STANDARD_DATABASES else name
    ends = _ENDS_SESSIONS.search(statement)
    if match is None and ends is not None:
        return ends["name"]
    return ""


def replacement(statement: str) -> str:
    """Return the statement to send in place of one that creates or drops a database.

    The replacement has no effect. In an open transaction it fails, as the original would.
    """
    match = _CREATES_OR_DROPS.match(without_comments(statement))
    if match is None:
        return _NO_SESSION
    return f"{_SENT_IN_PLACE}{match['verb'].upper()} DATABASE"


def is_replacement(statement: str) -> bool:
    """Return whether this statement is the replacement of another statement."""
    return statement.removeprefix(_SENT_IN_PLACE) in {
        "CREATE DATABASE",
        "DROP DATABASE",
    }

"""Reads a user's grants on one database, for the same grants on another database."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from pytest_arena._mysql._control import identifier, literal
from pytest_arena._mysql.drivers._reach import unquoted

# Rights on a database. Of a grant on the whole server, pytest-arena gives only these rights.
_OF_DATABASES = frozenset(
    {
        "ALL PRIVILEGES",
        "SELECT",
        "INSERT",
        "UPDATE",
        "DELETE",
        "CREATE",
        "DROP",
        "REFERENCES",
        "INDEX",
        "ALTER",
        "CREATE TEMPORARY TABLES",
        "LOCK TABLES",
        "EXECUTE",
        "CREATE VIEW",
        "SHOW VIEW",
        "CREATE ROUTINE",
        "ALTER ROUTINE",
        "EVENT",
        "TRIGGER",
        "DELETE HISTORY",
    }
)
_WHOLE_DATABASE = "*"
ANY_DATABASE = "?"  # in a stored grant, in place of a database's name
_NAME = r"`(?:[^`]|``)+`"
_GRANT = re.compile(
    rf"GRANT (?P<rights>.+) ON (?P<kind>PROCEDURE |FUNCTION |PACKAGE BODY |PACKAGE |TABLE )?"
    rf"(?P<database>\*|{_NAME})\.(?P<name>\*|{_NAME}) TO (?P<account>\S+)"
)
# These grants give no right on a database.
_WITHOUT_RIGHTS = re.compile(r"GRANT (?:USAGE|PROXY) ON ")


@dataclass(frozen=True, slots=True)
class Grant:
    """Rights on a database, or on one of its objects."""

    rights: str
    kind: str = ""  # the kind of object, such as "PROCEDURE ", or "" for a table
    name: str = _WHOLE_DATABASE  # the name of the object

    def statement(self, database: str, account: str) -> str:
        """Write the statement that gives the rights on another database."""
        place = identifier(database)
        name = self.name
        if name == _WHOLE_DATABASE:
            place = place.replace("_", r"\_")  # GRANT reads the name as a pattern
        else:
            name = identifier(name)
        return f"GRANT {self.rights} ON {self.kind}{place}.{name} TO {account}"


ALL = Grant("ALL PRIVILEGES")


class UnreadableGrantError(Exception):
    """A grant that cannot be given on another database, such as a role."""


def grants_on(database: str, lines: Iterable[str]) -> list[Grant]:
    """Return the grants on a database among the lines of SHOW GRANTS for one user.

    If several patterns match, the server uses the pattern with the longest start before a wildcard.

    Raises:
        UnreadableGrantError: a line has a role, or revokes a part of a grant.
    """
    grants: list[Grant] = []
    of_patterns = {}
    for line in lines:
        match = _GRANT.match(line)
        if match is None:
            if _WITHOUT_RIGHTS.match(line):
                continue
            raise UnreadableGrantError(line.partition(" IDENTIFIED ")[0])
        if _WITHOUT_RIGHTS.match(line):
            continue
        grant = Grant(match["rights"], match["kind"] or "", unquoted(match["name"]))
        pattern = unquoted(match["database"])
        if pattern == "*":
            grants += _of_server(grant)
        elif grant.name != _WHOLE_DATABASE:
            if pattern == database:
                grants.append(grant)
        elif _matches(pattern, database):
            of_patterns[pattern] = grant
    if of_patterns:
        grants.append(of_patterns[max(of_patterns, key=_beginning)])
    return grants


def _of_server(grant: Grant) -> list[Grant]:
    rights = [
        right for right in grant.rights.split(", ") if right.upper() in _OF_DATABASES
    ]
    if rights:
        return [Grant(", ".join(rights))]
    return []


def _matches(pattern: str, database: str) -> bool:
    """Return whether a pattern of a grant, with the wildcards ``_`` and ``%``, matches a name."""
    parts = []
    for part in re.findall(r"\\.|.", pattern):
        wildcard = {"_": ".", "%": ".*"}.get(part)
        parts.append(wildcard or re.escape(part.removeprefix("\\")))
    return re.fullmatch("".join(parts), database) is not None


def _beginning(pattern: str) -> int:
    """Return the number of characters before the first wildcard."""
    wildcard = re.search(r"(?<!\\)[_%]", pattern)
    if wildcard:
        return wildcard.start()
    return len(pattern) + 1


def revoke(line: str) -> str:
    """Return the statement that revokes the grant in a line of SHOW GRANTS."""
    match = _GRANT.match(line)
    if match is None:
        return ""
    place = f"{match['kind'] or ''}{match['database']}.{match['name']}"
    return f"REVOKE {match['rights']} ON {place} FROM {match['account']}"


def account_shown(user: str, host: str) -> str:
    """Write an account for a statement."""
    return f"{literal(user)}@{literal(host)}"

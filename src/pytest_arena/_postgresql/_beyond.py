"""Which statements reach beyond the database that they are run in?"""

from __future__ import annotations

import re

__all__ = ["reaches_beyond"]

# Asked first, since each statement of an app's is: most hold none of these words.
_WORDS = (
    *("alter", "drop", "grant", "revoke", "comment", "database", "tablespace", "program"),
    *("dblink", "foreign", "server", "mapping", "subscription", "pg_terminate", "pg_reload"),
    *("pg_rotate", "pg_promote", "replication_slot", "pg_auth", "pg_db_role"),
)
_BEYOND = re.compile(
    r"""(?ix) \b(?:
      (?:CREATE|DROP|ALTER) \s+ (?:DATABASE|TABLESPACE|SERVER|SUBSCRIPTION|USER\s+MAPPING) \b
    | (?:DROP|ALTER) \s+ (?:ROLE|USER|GROUP) \b
    | ALTER \s+ SYSTEM \b
    | IMPORT \s+ FOREIGN \b
    | COMMENT \s+ ON \s+ (?:DATABASE|ROLE|TABLESPACE) \b
    | (?:GRANT|REVOKE) \b [^;]*? \b ON \s+ (?:DATABASE|TABLESPACE|PARAMETER) \b
    | (?:GRANT|REVOKE) \s+ pg_\w+ \b
    | (?:TO|FROM) \s+ PROGRAM \b
    | (?:UPDATE|DELETE\s+FROM|INSERT\s+INTO) \s+ (?:ONLY\s+)? (?:pg_catalog\s*\.\s*)?
        pg_(?:database|authid|auth_members|db_role_setting|tablespace) \b
    | dblink\w* \s* \(
    | pg_(?:reload_conf|rotate_logfile|promote|\w*replication_slot\w*) \s* \(
    )"""
)
_ENDS_OTHERS = re.compile(r"(?is)\bpg_terminate_backend\b.*\bpg_stat_activity\b")
_OWN_ONLY = re.compile(r"(?i)\bcurrent_database\s*\(")
_DO = re.compile(r"(?i)\s*DO\b")
# Remarks, and what stands in quotes: data, and names that may be any words.
_QUOTED = re.compile(
    r"""(?sx) --[^\n]* | /\*.*?\*/ | [eE]'(?:[^'\\]|\\.|'')*' | '(?:[^']|'')*' | "(?:[^"]|"")*" """
)
_BODIES = re.compile(r"(?s)\$(\w*)\$.*?\$\1\$")


def reaches_beyond(statement: str) -> str:
    """Return what a statement does to other databases or the whole server, "" for any other.

    Each statement of several is looked at, and the body of a ``DO``; that of a function is not,
    nor is what a statement puts together from parts. ``CREATE ROLE`` is none: apps need their
    roles, and nobody else is harmed. Costs some microseconds.

    >>> reaches_beyond("SELECT 1; drop database shop")
    'DROP DATABASE'
    """
    lowered = statement.lower()
    if not any(word in lowered for word in _WORDS):
        return ""
    bare = _QUOTED.sub(" ''", statement)
    if _DO.match(bare) is None:
        bare = _BODIES.sub("''", bare)
    if found := _BEYOND.search(bare):
        return " ".join(found[0].upper().split())
    if _ENDS_OTHERS.search(bare) and not _OWN_ONLY.search(bare):
        return "PG_TERMINATE_BACKEND of other databases' sessions"
    return ""

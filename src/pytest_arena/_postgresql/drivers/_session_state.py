"""Finds statements that change a session beyond their transaction.

It also finds statements that name or read a custom setting, such as ``app.tenant``.
"""

import re
from threading import Event

from pytest_arena._values import STATEMENT_START as START

# `set_config(…, true)` ends with the transaction. Apps with row security call it in each
# transaction.
ALTERING_CALLS = (
    r"set_config(?!\"?\s*\([^()]*,\s*true\s*\))|pg_(?:try_)?advisory_lock|\bpg_temp\b|"
    r"\bsetseed\b|\bset_limit\b|\bisn_weak\b|\bdblink_connect|\bINTO\s+(?:LOCAL\s+|GLOBAL\s+)?TEMP(?:ORARY)?\s|"
    r"\bUPDATE\b[^;]*\bpg_settings\b|"
    r'\bU&"'  # a name with escaped letters may be any of these names
)
# Settings, roles, listeners, locks, prepared statements. pytest-arena sends DISCARD SEQUENCES.
_ALTERING = (
    r"(?:SET(?!\s+(?:LOCAL|TRANSACTION|CONSTRAINTS)\b)|RESET|DISCARD(?!\s+SEQ)|LISTEN|UNLISTEN|"
    r"PREPARE|DECLARE\b(?=[^;]*\bHOLD)|LOAD|DO\b|EXPLAIN\b(?=[^;]*\bTEMP)|"
    r"CREATE\s+(?:OR\s+REPLACE\s+)?(?:LOCAL\s+|GLOBAL\s+)?TEMP)"
)
_ALTERS = re.compile(START + _ALTERING, re.IGNORECASE | re.DOTALL)
_ALTERS_LATER = re.compile(";" + START + _ALTERING, re.IGNORECASE | re.DOTALL)
_CALLS = re.compile(ALTERING_CALLS, re.IGNORECASE)
# A custom setting such as app.tenant is NULL in a new session. After the first SET it is never NULL
# again in this session: RESET, ROLLBACK and the end of a SET LOCAL make it ''. PostgreSQL's
# settings have no dot in their names. An expression for a name may have a dot in its value.
NAMES = re.compile(
    r"\bset_config\"?\s*\((?!\s*'\w*'\s*,)|"
    r"\bSET\s+(?:LOCAL\s+|SESSION\s+)?[\w\"]+\s*\.\s*[\w\"]+\s*(?:=|TO\b)",
    re.IGNORECASE,
)
# nullif(current_setting('app.tenant', true), '') is NULL in a new and in a used session.
_READS = re.compile(
    r"(?P<nullif>\bNULLIF\s*\(\s*(?:pg_catalog\s*\.\s*)?\"?current_setting\"?\s*"
    r"\((?:[^(),]|\(\w+\))+,(?:[^(),]|\(\w+\))+\)(?:\s*::\s*\w+)?\s*,(?!\s*'[^']))|"
    r"\bcurrent_setting\"?\s*\((?!\s*'\w+'\s*(?:::\s*\w+\s*)?[,)])|"
    r"\bSHOW\s+[\w\"]+\s*\.",
    re.IGNORECASE,
)
# Set when a statement of the run or a database reads a custom setting without nullif.
found_reader = Event()


def alters_session(statement: str) -> bool:
    """Return whether a statement may change the session beyond its transaction. Costs 1 µs."""
    return bool(
        _ALTERS.match(statement)
        or _CALLS.search(statement)
        or (";" in statement and _ALTERS_LATER.search(statement))
    )


def reads_setting(text: str) -> bool:
    """Return whether a text may read a custom setting without nullif."""
    return any(match["nullif"] is None for match in _READS.finditer(text))

"""Finds statements that change a session beyond their transaction."""

from __future__ import annotations

import re

from pytest_arena._values import STATEMENT_START as START

# `set_config(…, true)` has an effect until the transaction ends. Apps with row security call it in
# each transaction.
ALTERING_CALLS = (
    r"set_config(?!\"?\s*\([^()]*,\s*true\s*\))|pg_(?:try_)?advisory_lock|\bpg_temp\b|"
    r"\bsetseed\b|\bINTO\s+(?:LOCAL\s+|GLOBAL\s+)?TEMP(?:ORARY)?\s|"
    r"\bUPDATE\b[^;]*\bpg_settings\b|"
    r'\bU&"'  # a name with escaped letters: it may be any of these
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


def alters_session(statement: str) -> bool:
    """Return whether a statement may change the session beyond its transaction. Costs 1 µs."""
    return bool(
        _ALTERS.match(statement)
        or _CALLS.search(statement)
        or (";" in statement and _ALTERS_LATER.search(statement))
    )

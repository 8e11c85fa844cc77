"""Finds statements that change a session beyond their transaction."""

import re
from functools import lru_cache

from pytest_arena._values import STATEMENT_START as START
from pytest_arena._values import without_comments

# `set_config(…, true)` ends with the transaction. Apps with row security call it in each
# transaction.
_ALTERING_CALLS = (
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
_CALLS = re.compile(_ALTERING_CALLS, re.IGNORECASE)


@lru_cache(maxsize=1024)
def changes_session(statement: str) -> bool:
    """Return whether a statement may change the session beyond its transaction. Costs 1 µs."""
    bare = without_comments(statement)
    return bool(
        _ALTERS.match(bare)
        or _CALLS.search(bare)
        or (";" in bare and _ALTERS_LATER.search(bare))
    )

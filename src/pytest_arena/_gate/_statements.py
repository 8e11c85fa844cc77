"""Reads the texts of statements: written tables, ends of transactions."""

from __future__ import annotations

import re

from pytest_arena._values import STATEMENT_START, without_comments

_NAME = r'(?:"(?:[^"]|"")*"|`[^`]*`|\[[^\]]*\]|[\w$]+)'
_WRITES = (
    r"(?:INSERT\s+(?:OR\s+\w+\s+)?INTO|REPLACE\s+INTO|DELETE\s+FROM(?:\s+ONLY)?|MERGE\s+INTO"
    r"|UPDATE(?:\s+OR\s+\w+)?(?:\s+ONLY)?)"
    rf"(?:\s+|(?=[\"`\[]))(?P<table>{_NAME}(?:\s*\.\s*{_NAME})*)"
)


def at_start(pattern: str) -> re.Pattern[str]:
    """Return a pattern that matches at the first word of a statement."""
    return re.compile(STATEMENT_START + pattern, re.IGNORECASE | re.DOTALL)


_WRITE = at_start(_WRITES)
_INSIDE = re.compile(rf"\b{_WRITES}", re.IGNORECASE)
_WITH = at_start(r"WITH\b")
_END = at_start(r"(?:COMMIT|END|ROLLBACK(?!.*\bTO\b)|ABORT)\b")
# Parts of a statement that look like a write: string literals and row locks.
_NO_WRITES = re.compile(
    r"'(?:[^']|'')*'|\bFOR\s+(?:NO\s+KEY\s+)?UPDATE\b", re.IGNORECASE
)
_PART = re.compile(_NAME)
_DEFAULT_SCHEMAS = ("main", "public")
TEMPORARY_SCHEMAS = ("temp.", "pg_temp.")


def written_table(statement: str) -> str:
    """Return the table that a statement writes, as the app names it, else "". Costs 1 µs."""
    if "--" in statement or "/*" in statement:
        statement = without_comments(statement)
    write = _WRITE.match(statement)
    if write is None and _WITH.match(statement) is not None:
        write = _INSIDE.search(_NO_WRITES.sub("''", statement))
    if write is None:
        return ""
    return _plain_name(write["table"])


def _plain_name(name: str) -> str:
    """Return a table's name without quotes, and without a default schema."""
    parts = []
    for part in _PART.findall(name):
        if part[0] in '"`[':
            quote = part[-1]
            parts.append(part[1:-1].replace(quote * 2, quote))
        else:
            parts.append(part)
    if len(parts) > 1 and parts[0] in _DEFAULT_SCHEMAS:
        parts = parts[1:]
    return ".".join(parts)


def ends_transaction(statement: str) -> bool:
    """Return whether a statement commits or rolls back."""
    return _END.match(statement) is not None

"""Classifies SQL statements by their texts.

The one classifier of the gate. Each product's handle has the pattern of statements that alter a
session. A connection with an altered session is dropped when the level ends.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from pytest_arena._values import without_comments

_NAME = r'(?:"(?:[^"]|"")*"|`[^`]*`|\[[^\]]*\]|[\w$]+)'
_WRITES = (
    r"(?:INSERT\s+(?:OR\s+\w+\s+)?INTO|REPLACE\s+INTO|DELETE\s+FROM(?:\s+ONLY)?|MERGE\s+INTO"
    r"|UPDATE(?:\s+OR\s+\w+)?(?:\s+ONLY)?)"
    rf"(?:\s+|(?=[\"`\[]))(?P<table>{_NAME}(?:\s*\.\s*{_NAME})*)"
)
_WRITE = re.compile(rf"\s*{_WRITES}", re.IGNORECASE)
_INSIDE = re.compile(rf"\b{_WRITES}", re.IGNORECASE)
_WITH = re.compile(r"\s*WITH\b", re.IGNORECASE)
_END = re.compile(
    r"\s*(?:COMMIT|END|ROLLBACK(?!.*\bTO\b)|ABORT)\b", re.IGNORECASE | re.DOTALL
)
# Parts of a statement that look like a write: string literals and row locks.
_NO_WRITES = re.compile(
    r"'(?:[^']|'')*'|\bFOR\s+(?:NO\s+KEY\s+)?UPDATE\b", re.IGNORECASE
)
_PART = re.compile(_NAME)
_DEFAULT_SCHEMAS = ("main", "public")
# The rows of a temporary table end with the connection.
_TEMPORARY_SCHEMAS = ("temp", "pg_temp")


class Statement(NamedTuple):
    """What is known of a statement by its text."""

    table: str  # the table that it writes, as the app names it, or ""
    alters_session: bool  # whether it may change the session beyond its transaction
    ends_transaction: bool


@lru_cache(maxsize=1024)
def classify(text: str, altering: re.Pattern[str]) -> Statement:
    """Classify a statement. ``altering`` is the product's pattern of statements that alter."""
    bare = without_comments(text)
    return Statement(
        _written_table(bare),
        altering.search(bare) is not None,
        _END.match(bare) is not None,
    )


def _written_table(statement: str) -> str:
    write = _WRITE.match(statement)
    if write is None and _WITH.match(statement) is not None:
        write = _INSIDE.search(_NO_WRITES.sub("''", statement))
    if write is None:
        return ""
    parts = [_without_quotes(part) for part in _PART.findall(write["table"])]
    if parts[0] in _TEMPORARY_SCHEMAS:
        return ""
    if len(parts) > 1 and parts[0] in _DEFAULT_SCHEMAS:
        parts = parts[1:]
    return ".".join(parts)


def _without_quotes(name: str) -> str:
    if name[0] not in '"`[':
        return name
    quote = name[-1]
    return name[1:-1].replace(quote * 2, quote)

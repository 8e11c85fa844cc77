"""Which table does a statement write to, and what does it do to its transaction?"""

from __future__ import annotations

import re

from pytest_arena._values import STATEMENT_START as START

__all__ = [
    "COMPILED",
    "ends_transaction",
    "is_plain",
    "savepoint_in",
    "written_table",
]

# How statements of SQLAlchemy's begin that do such things, and are neither a text nor known to it
# as a write.
COMPILED = ("WITH", "SAVEPOINT", "ROLLBACK TO")

_NAME = r'(?:"(?:[^"]|"")*"|`[^`]*`|\[[^\]]*\]|[\w$]+)'
_WRITES = (
    r"(?:INSERT\s+(?:OR\s+\w+\s+)?INTO|REPLACE\s+INTO|DELETE\s+FROM(?:\s+ONLY)?|MERGE\s+INTO"
    r"|UPDATE(?:\s+OR\s+\w+)?(?:\s+ONLY)?)"
    rf"(?:\s+|(?=[\"`\[]))(?P<table>{_NAME}(?:\s*\.\s*{_NAME})*)"
)
_WRITE = re.compile(START + _WRITES, re.IGNORECASE | re.DOTALL)
_ANY = re.compile(
    rf"{START}(?:INSERT|REPLACE|UPDATE|DELETE|MERGE|WITH|SAVEPOINT|ROLLBACK|COMMIT|END|ABORT)\b",
    re.IGNORECASE | re.DOTALL,
)
_INSIDE = re.compile(rf"\b{_WRITES}", re.IGNORECASE)
_WITH = re.compile(rf"{START}WITH\b", re.IGNORECASE | re.DOTALL)
_END = re.compile(rf"{START}(?:COMMIT|END|ROLLBACK|ABORT)\b", re.IGNORECASE | re.DOTALL)
_SAVEPOINT = re.compile(
    rf"{START}(?:SAVEPOINT|(?P<back>ROLLBACK(?:\s+(?:WORK|TRANSACTION))?\s+TO(?:\s+SAVEPOINT)?))"
    rf"\s+(?P<name>{_NAME})",
    re.IGNORECASE | re.DOTALL,
)
# What reads like one inside a statement: texts, and locks on rows.
_NO_WRITES = re.compile(r"'(?:[^']|'')*'|\bFOR\s+(?:NO\s+KEY\s+)?UPDATE\b", re.IGNORECASE)
_PART = re.compile(_NAME)
_DEFAULT_SCHEMAS = ("main", "public")


def is_plain(statement: str) -> bool:
    """Whether a statement is none that anything here has a word for. Costs 0.3 µs."""
    return _ANY.match(statement) is None


def written_table(statement: str) -> str:
    """Return the table that a statement writes to, as an app names it; "" for none. Costs 1 µs."""
    found = _WRITE.match(statement)
    if found is None and _WITH.match(statement) is not None:
        found = _INSIDE.search(_NO_WRITES.sub("''", statement))
    return _plain(found["table"]) if found is not None else ""


def ends_transaction(statement: str) -> bool:
    """Whether it is one by which an app commits or rolls back without SQLAlchemy."""
    return _END.match(statement) is not None


def savepoint_in(statement: str) -> tuple[str, bool] | None:
    """Return the savepoint that a statement sets, or goes back to (True); None for neither."""
    found = _SAVEPOINT.match(statement)
    return (found["name"], found["back"] is not None) if found is not None else None


def _plain(name: str) -> str:
    parts = [
        part[1:-1].replace(part[-1] * 2, part[-1]) if part[0] in '"`[' else part
        for part in _PART.findall(name)
    ]
    return ".".join(parts[1:] if len(parts) > 1 and parts[0] in _DEFAULT_SCHEMAS else parts)

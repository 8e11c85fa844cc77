"""Which tables the statements of a level may have written."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from pytest_arena._mysql._statements import bare, unquoted

_NAME = r"(?:`(?:[^`]|``)+`|[\w$]+)"
_PLACE = rf"(?:(?P<database>{_NAME})\s*\.\s*)?(?P<table>{_NAME})"
_OPTIONS = r"(?:(?:LOW_PRIORITY|HIGH_PRIORITY|DELAYED|QUICK|IGNORE)\s+)*"
_OF_ONE_TABLE = tuple(
    re.compile(rf"(?is)\s*{pattern}")
    for pattern in (
        rf"(?:INSERT|REPLACE)\s+{_OPTIONS}(?:INTO\s+)?{_PLACE}(?=[\s(])",
        rf"UPDATE\s+{_OPTIONS}{_PLACE}(?:\s+(?:AS\s+)?(?!SET\b){_NAME})?\s+SET\b",
        rf"DELETE\s+{_OPTIONS}FROM\s+{_PLACE}\s*(?=\Z|;|\b(?:WHERE|ORDER|LIMIT|RETURNING)\b)",
        rf"TRUNCATE\s+(?:TABLE\s+)?{_PLACE}\s*(?:;\s*)?\Z",
    )
)
_ROWS = re.compile(
    r"(?i)\s*(?:INSERT|REPLACE|UPDATE|DELETE|TRUNCATE|WITH|LOAD|DO|HANDLER|SELECT)\b[^;]*;?\s*\Z"
)
_OF_SESSION = re.compile(
    r"(?i)\s*(?:CREATE(?:\s+OR\s+REPLACE)?|DROP)\s+TEMPORARY\b[^;]*;?\s*\Z"
)
_ANY_TABLE = "*"
_SCHEMA = ""


@lru_cache(maxsize=1024)
def _written_by(text: str) -> tuple[str, str] | None:
    """Return the database and the table that a bare statement writes.

    The table is ``_ANY_TABLE`` for several tables, ``_SCHEMA`` if the schema may have changed.
    Return None if the statement only writes to a temporary table.
    """
    if _OF_SESSION.match(text):
        return None
    if not _ROWS.match(text):
        return "", _SCHEMA
    for pattern in _OF_ONE_TABLE:
        match = pattern.match(text)
        if match is not None:
            return unquoted(match["database"] or ""), unquoted(match["table"]).lower()
    return "", _ANY_TABLE


@dataclass(frozen=True, slots=True)
class Written:
    """The tables that may have been written since a start."""

    tables: frozenset[str]  # in lower case

    def __bool__(self) -> bool:
        return bool(self.tables)

    @property
    def has_new_schema(self) -> bool:
        """Whether the schema may have changed."""
        return _SCHEMA in self.tables

    def names_in(self, known: set[str]) -> set[str]:
        """Return the names of the written tables. A view's name may mean any table."""
        by_name: dict[str, set[str]] = {}
        for name in known:
            by_name.setdefault(name.lower(), set()).add(name)
        if not self.tables <= by_name.keys():
            return {*known}
        return {name for table in self.tables for name in by_name[table]}


class WriteLog:
    """The tables that statements may have written, in order. A position in it is a time."""

    def __init__(self) -> None:
        self._tables: list[str] = []

    def note(self, statement: str, database: str) -> None:
        """Note a statement that may write, of a connection to this database."""
        written = _written_by(bare(statement))
        if written is not None:
            place, table = written
            is_here = place.lower() in {"", database.lower()}
            self._tables.append(table if is_here else _ANY_TABLE)

    def note_all(self, *, is_schema: bool) -> None:
        """Note that any table may have been written, or the schema as well."""
        self._tables.append(_SCHEMA if is_schema else _ANY_TABLE)

    def position(self) -> int:
        """Return the present position."""
        return len(self._tables)

    def since(self, position: int) -> Written:
        """Return what may have been written since a position."""
        return Written(frozenset(self._tables[position:]))

    def forget(self, first: int, last: int) -> None:
        """Forget the writes between two positions, which were undone."""
        del self._tables[first:last]

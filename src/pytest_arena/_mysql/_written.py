"""Which tables the statements of a level may have written."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
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
_ANY_TABLE = ("", "*")
_SCHEMA = ("", "")


@lru_cache(maxsize=1024)
def _written_by(text: str) -> tuple[str, str] | None:
    """Return the database and the table that a bare statement writes.

    Return ``_ANY_TABLE`` for several tables, ``_SCHEMA`` if the schema may have changed,
    None if it only writes to a temporary table.
    """
    if _OF_SESSION.match(text):
        return None
    if not _ROWS.match(text):
        return _SCHEMA
    for pattern in _OF_ONE_TABLE:
        match = pattern.match(text)
        if match is not None:
            return unquoted(match["database"] or ""), unquoted(match["table"])
    return _ANY_TABLE


@dataclass(slots=True)
class Written:
    """The tables that a level may have written."""

    tables: set[str] = field(default_factory=set)  # in lower case
    is_all: bool = False  # it may have written to any table
    has_new_schema: bool = False  # it may have changed the schema

    def __bool__(self) -> bool:
        return bool(self.tables) or self.is_all

    def note(self, statement: str, database: str) -> None:
        """Note a statement that may write."""
        written = _written_by(bare(statement))
        if written is None:
            return
        place, table = written
        is_here = place.lower() in {"", database.lower()}
        if written in {_ANY_TABLE, _SCHEMA} or not is_here:
            self.note_all()
            self.has_new_schema |= written == _SCHEMA
        else:
            self.tables.add(table.lower())

    def note_all(self) -> None:
        """Note that any table may have been written."""
        self.is_all = True

    def note_schema(self) -> None:
        """Note that the schema may have changed."""
        self.is_all = True
        self.has_new_schema = True

    def __add__(self, other: Written) -> Written:
        """Return what either has written."""
        return Written(
            self.tables | other.tables,
            self.is_all or other.is_all,
            self.has_new_schema or other.has_new_schema,
        )

    def names_in(self, known: set[str]) -> set[str]:
        """Return the names of the written tables. A view's name may mean any table."""
        by_name: dict[str, set[str]] = {}
        for name in known:
            by_name.setdefault(name.lower(), set()).add(name)
        if self.is_all or not self.tables <= by_name.keys():
            return {*known}
        return {name for table in self.tables for name in by_name[table]}

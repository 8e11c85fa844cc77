"""Which tables the statements of the levels may have written."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from pytest_arena._mysql._statements import ANY_TABLE, SCHEMA

if TYPE_CHECKING:
    from pytest_arena._mysql._statements import Statement


@dataclass(frozen=True, slots=True)
class Written:
    """The tables that may have been written since a start."""

    tables: frozenset[str]  # in lower case

    def __bool__(self) -> bool:
        return bool(self.tables)

    @property
    def has_new_schema(self) -> bool:
        """Whether the schema may have changed."""
        return SCHEMA in self.tables

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

    def note(
        self, statement: Statement, text: str, database: str, functions: tuple[str, ...]
    ) -> None:
        """Note a statement of a connection to a database, which has functions that may write."""
        table = statement.table
        if table is None:
            if not functions or not _words(functions).search(text):
                return
            table = ANY_TABLE
        is_here = statement.database.lower() in {"", database.lower()}
        self._tables.append(table.lower() if is_here else ANY_TABLE)

    def note_all(self, *, is_schema: bool) -> None:
        """Note that any table may have been written, or the schema as well."""
        self._tables.append(SCHEMA if is_schema else ANY_TABLE)

    def position(self) -> int:
        """Return the present position."""
        return len(self._tables)

    def since(self, position: int) -> Written:
        """Return what may have been written since a position."""
        return Written(frozenset(self._tables[position:]))

    def forget(self, first: int, last: int) -> None:
        """Forget the writes between two positions, which were undone."""
        del self._tables[first:last]


@lru_cache(maxsize=16)
def _words(names: tuple[str, ...]) -> re.Pattern[str]:
    """Return the pattern of these names as whole words."""
    alternatives = "|".join(map(re.escape, names))
    return re.compile(rf"(?i)(?<![\w$])(?:{alternatives})(?![\w$])")

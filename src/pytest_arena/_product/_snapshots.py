"""Frozen databases on a server, and their copies."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_arena._changes import Row, limited, net
from pytest_arena._values import TableRows
from pytest_arena.errors import ArenaError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Future

    from pytest_arena._product._database_registry import DatabaseRegistry


@dataclass(frozen=True, slots=True)
class ReadTable:
    """The rows of a table."""

    columns: tuple[str, ...] = ()
    key: tuple[str, ...] = ()
    rows: Sequence[tuple[str, Row]] = ()  # each row after its text, which is compared


ReadContent = dict[str, ReadTable]


def compared(before: ReadContent, after: ReadContent, limit: int | None) -> list[TableRows]:
    """Return the net difference of two contents, by table.

    All rows of a created table count as added, all rows of a dropped table as removed. A row has
    None for a column that it lacks.
    """
    missing = ReadTable()
    changes = []
    for name in sorted({*before, *after}):
        rows = _changed_rows(name, before.get(name, missing), after.get(name, missing))
        if rows.removed or rows.added:
            changes.append(limited(rows, limit))
    return changes


def _changed_rows(name: str, before: ReadTable, after: ReadTable) -> TableRows:
    """Return the net difference of a table's rows. They may have other columns afterwards."""
    newest = after if after.columns else before
    dropped = [column for column in before.columns if column not in newest.columns]
    columns = (*newest.columns, *dropped)
    if before.columns == after.columns:
        removed, added = net(before.rows, after.rows)
    else:
        removed, added = net(_as(columns, before), _as(columns, after))
    return TableRows(name, columns, newest.key, removed=tuple(removed), added=tuple(added))


def _as(columns: tuple[str, ...], table: ReadTable) -> list[tuple[str, Row]]:
    """Return the rows with other columns, and with their ``repr`` as the compared text."""
    rows = []
    for _, values in table.rows:
        by_name = dict(zip(table.columns, values, strict=True))
        row = tuple(by_name.get(name) for name in columns)
        rows.append((repr(row), row))
    return rows


class FrozenDatabase:
    """A frozen database, and a copy of it that is made ahead in the background.

    The second ``take`` starts the first copy ahead.
    """

    def __init__(
        self, databases: DatabaseRegistry, name: str | None, *, is_ours: bool = False
    ) -> None:
        self._databases = databases
        self.name = name
        self._is_ours = is_ours  # the isolation has frozen the database, and drops it
        # The state of the database, by which its copies are compared with later states.
        self.description: Any = None
        self._ahead: Future[str] | None = None
        self._is_taken = False

    def take(self) -> str:
        """Return the name of a copy that was made ahead, or of a new copy."""
        name = ""
        ahead = self._ahead
        self._ahead = None
        if ahead is not None and not ahead.cancel():
            # If the copy ahead failed, the new copy raises the reason.
            with suppress(ArenaError):
                name = ahead.result()
        name = name or self._databases.create("live", template=self.name)
        if self._is_taken:
            self._ahead = self._databases.create_later("live", template=self.name)
        self._is_taken = True
        return name

    def drop(self) -> None:
        """Drop the database if ``is_ours``. A copy ahead ends with the run."""
        if self._ahead is not None:
            self._ahead.cancel()
        if self._is_ours and self.name:
            self._databases.drop_later(self.name)

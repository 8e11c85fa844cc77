"""The changes of a level at a point in time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_arena._changes import limited, net
from pytest_arena._values import TableRows

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pytest_arena._changes import Row
    from pytest_arena._mysql.journal._schema_facts import AppTable


@dataclass(frozen=True, slots=True)
class ChangedRows:
    """Rows of a table that may have changed, at the start of a level and at a moment.

    Each row has its text, because in Python 1.0 and 1.00 are equal, and values may be lists.
    """

    before: list[tuple[str, Row]] = field(default_factory=list)
    after: list[tuple[str, Row]] = field(default_factory=list)

    @classmethod
    def of(cls, before: Iterable[Row], after: Iterable[Row]) -> ChangedRows:
        """Return rows with their texts."""
        return cls(
            [(repr(row), row) for row in before], [(repr(row), row) for row in after]
        )

    def since(self, earlier: ChangedRows) -> ChangedRows:
        """Return the changes since an earlier moment."""
        return ChangedRows(self.before + earlier.after, self.after + earlier.before)

    def table_rows(self, table: AppTable, limit: int | None) -> TableRows:
        """Return the net changes, with at most ``limit`` rows."""
        removed, added = net(self.before, self.after)
        key: tuple[str, ...] = ()
        if table.has_primary_key:
            key = tuple(column.name for column in table.key)
        rows = TableRows(
            table.name, table.columns, key, removed=tuple(removed), added=tuple(added)
        )
        return limited(rows, limit)


@dataclass(frozen=True, slots=True)
class JournalMoment:
    """The changes of a level at a point in time, by table."""

    tables: dict[str, ChangedRows] = field(default_factory=dict)

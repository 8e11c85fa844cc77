"""The net changes of tables, from their rows at the start of a level and at a moment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_arena._values import TableRows

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pytest_arena._mysql.journal._schema_facts import AppTable

Row = tuple[object, ...]


class NetRows:
    """Rows of a table that were added, with positive counts, and removed, with negative ones."""

    def __init__(self) -> None:
        # By their texts: to Python 1.0 and 1.00 are equal, and a driver's values may be lists.
        self._rows: dict[str, Row] = {}
        self._counts: dict[str, int] = {}

    def add(self, rows: Iterable[Row], sign: int) -> None:
        """Count rows as added (1) or removed (-1)."""
        for row in rows:
            text = repr(row)
            self._rows[text] = row
            self._counts[text] = self._counts.get(text, 0) + sign

    def since(self, earlier: NetRows | None) -> NetRows:
        """Return the changes after those that were counted earlier."""
        result = NetRows()
        result.add_counts(self, 1)
        if earlier is not None:
            result.add_counts(earlier, -1)
        return result

    def add_counts(self, other: NetRows, sign: int) -> None:
        """Add the counts of other changes, or subtract them."""
        for text, count in other._counts.items():
            self._rows[text] = other._rows[text]
            self._counts[text] = self._counts.get(text, 0) + sign * count

    def table_rows(self, table: AppTable, limit: int | None) -> TableRows | None:
        """Return the changes with at most ``limit`` rows, None if there is no change."""
        removed: list[Row] = []
        added: list[Row] = []
        for text, count in self._counts.items():
            target = added if count > 0 else removed
            target += [self._rows[text]] * abs(count)
        number = len(removed) + len(added)
        if number == 0:
            return None
        removed = removed[:limit]
        if limit is not None:
            added = added[: limit - len(removed)]
        key: tuple[str, ...] = ()
        if table.has_primary_key:
            key = tuple(column.name for column in table.key)
        return TableRows(
            table=table.name,
            columns=table.columns,
            key=key,
            removed=tuple(removed),
            added=tuple(added),
            more=number - len(removed) - len(added),
        )


@dataclass(frozen=True, slots=True)
class JournalMoment:
    """The changes of a level at a point in time, by the names of tables."""

    nets: dict[str, NetRows] = field(default_factory=dict)

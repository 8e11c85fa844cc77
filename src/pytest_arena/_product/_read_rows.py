"""Compares the rows of a database at two times."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from pytest_arena._changes import Row, limited, net
from pytest_arena._values import TableRows


@dataclass(frozen=True, slots=True)
class ReadTable:
    """The rows of a table."""

    columns: tuple[str, ...] = ()
    key: tuple[str, ...] = ()
    rows: Sequence[tuple[str, Row]] = ()  # each row after its text, which is compared


@dataclass(frozen=True, slots=True)
class ReadContent:
    """The content of a database's tables: a digest of each, and the rows that were read."""

    digests: dict[str, str] = field(default_factory=dict)
    tables: dict[str, ReadTable] = field(default_factory=dict)


def compared(
    before: ReadContent, after: ReadContent, *, limit: int | None = None
) -> list[TableRows]:
    """Return the net difference of two contents, by table.

    Both must have the rows of tables with different digests. All rows of a created table count as
    added, all rows of a dropped table as removed. A row has None for a column that it lacks.
    """
    missing = ReadTable()
    changes = []
    for name in sorted({*before.digests, *after.digests}):
        if before.digests.get(name) == after.digests.get(name):
            continue
        old = before.tables.get(name, missing)
        new = after.tables.get(name, missing)
        rows = changed_rows(name, old, new)
        if rows.removed or rows.added:
            changes.append(limited(rows, limit))
    return changes


def changed_rows(name: str, before: ReadTable, after: ReadTable) -> TableRows:
    """Return the net difference of a table's rows. They may have other columns afterwards."""
    newest = after if after.columns else before
    dropped = [column for column in before.columns if column not in newest.columns]
    columns = (*newest.columns, *dropped)
    if before.columns == after.columns:
        removed, added = net(before.rows, after.rows)
    else:
        removed, added = net(_as(columns, before), _as(columns, after))
    return TableRows(
        name, columns, newest.key, removed=tuple(removed), added=tuple(added)
    )


def _as(columns: tuple[str, ...], table: ReadTable) -> list[tuple[str, Row]]:
    """Return the rows with other columns, and with their ``repr`` as the compared text."""
    rows = []
    for _, values in table.rows:
        by_name = dict(zip(table.columns, values, strict=True))
        row = tuple(by_name.get(name) for name in columns)
        rows.append((repr(row), row))
    return rows

"""Compares the changes of a database with a test's expectations."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from pytest_arena._changes import shown_in
from pytest_arena._values import counted

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from pytest_arena._changes import Change, Changes, Kind


@dataclass(frozen=True, slots=True)
class ExpectedRows:
    """An expected number of rows of one kind, each with these values of columns."""

    kind: Kind
    number: int
    values: Mapping[str, object]

    def matches(self, change: Change) -> bool:
        """Return whether a row is of this kind and has all values."""
        if change.kind != self.kind:
            return False
        row = change.row
        for name, value in self.values.items():
            if name not in row or row[name] != value:
                return False
        return True

    def text(self) -> str:
        """Return words such as ``1 inserted row with item='chair'``."""
        text = counted(self.number, f"{self.kind} row")
        if self.values:
            text += " with"
        for name, value in self.values.items():
            text += f" {name}={shown_in(name, value)}"
        return text


@dataclass(frozen=True, slots=True)
class Expected:
    """The expectation for a table. ``inserted``, ``updated``, ``deleted`` and ``&`` create it."""

    parts: tuple[ExpectedRows, ...]

    def __and__(self, other: object) -> Expected:
        if not isinstance(other, Expected):
            return NotImplemented
        return Expected(self.parts + other.parts)


def inserted(number: int = 1, /, **columns: object) -> Expected:
    """Expect that exactly ``number`` rows with these values are inserted into a table.

    Without values, each inserted row counts. ``&`` joins several expectations for one table.

    Example::

        with arena.expect_changes(orders=inserted(1, status="paid") & updated(2)):
            test_client.post("/orders")

    Raises:
        ValueError: the number is less than 1.
    """
    return _expected("inserted", number, columns)


def updated(number: int = 1, /, **columns: object) -> Expected:
    """Expect that exactly ``number`` rows of a table are updated to these values.

    A row whose primary key changes counts as a deleted and an inserted row. So does each changed
    row of a table without a primary key.

    Example::

        with arena.expect_changes(stock=updated(1, amount=4)):
            test_client.post("/orders")

    Raises:
        ValueError: the number is less than 1.
    """
    return _expected("updated", number, columns)


def deleted(number: int = 1, /, **columns: object) -> Expected:
    """Expect that exactly ``number`` rows with these values are deleted from a table.

    Example::

        with arena.expect_changes(orders=deleted(1, id=7)):
            test_client.delete("/orders/7")

    Raises:
        ValueError: the number is less than 1.
    """
    return _expected("deleted", number, columns)


def _expected(kind: Kind, number: int, columns: Mapping[str, object]) -> Expected:
    if number < 1:
        raise ValueError(f"{kind}({number}): leave a table out that must not change")
    rows = ExpectedRows(kind, number, columns)
    return Expected((rows,))


def difference(
    changes: Changes, expected: Mapping[str, Expected], *, ignore: Collection[str] = ()
) -> str:
    """Return lines about unexpected and missing rows, or "".

    ``ignore`` has names or patterns of tables. Changes of these tables do not count, except of
    tables with an expectation.
    """
    patterns = (ignore,) if isinstance(ignore, str) else ignore
    names = set(expected)
    for name in changes.tables:
        if not any(fnmatchcase(name, pattern) for pattern in patterns):
            names.add(name)
    lines = ["the database did not change as expected"]
    for name in sorted(names):
        rows = expected.get(name, Expected(()))
        lines += _table_lines(name, changes[name], rows)
    if len(lines) == 1:
        return ""
    lines.append(f"all changes: {changes.counted()}")
    return "\n".join(lines)


_MOST = 20  # rows of a table in a message


def _table_lines(name: str, changes: Changes, expected: Expected) -> Iterator[str]:
    """Yield a line for each unexpected row of a table, and each expectation with missing rows.

    Each row counts for one expectation. The expectation with the fewest spare rows gets its rows
    first.
    """
    rows = list(changes)
    free = set(range(len(rows)))
    matching: dict[int, set[int]] = {}
    for number, part in enumerate(expected.parts):
        matching[number] = {place for place in free if part.matches(rows[place])}
    missing = {}
    while matching:
        spare = {
            number: len(places & free) - expected.parts[number].number
            for number, places in matching.items()
        }
        number = min(spare, key=lambda number: spare[number])
        wanted = expected.parts[number].number
        taken = sorted(matching.pop(number) & free)[:wanted]
        free.difference_update(taken)
        missing[number] = wanted - len(taken)
    unexpected = [rows[place] for place in sorted(free)]
    for row in unexpected[:_MOST]:
        yield f"  unexpected: {row}"
    more = len(unexpected) - _MOST
    if more > 0:
        yield f"  unexpected: … {more:,} rows of {name} more"
    for number, part in enumerate(expected.parts):
        if missing[number]:
            why = _why_missing(part, rows, part.number - missing[number])
            yield f"  missing:    {name}: {part.text()}{why}"


def _why_missing(part: ExpectedRows, rows: list[Change], number: int) -> str:
    """Return why rows are missing: unknown columns or too few rows. Or ""."""
    unknown = [name for name in part.values if rows and name not in rows[0].row]
    if unknown:
        return f" (the table has no column {', '.join(unknown)})"
    if number:
        verb = "is" if number == 1 else "are"
        return f" (there {verb} only {number:,})"
    return ""

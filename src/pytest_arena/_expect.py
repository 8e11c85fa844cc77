"""Compares the changes of a database with the expectations of a test."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from pytest_arena._changes import Change, Changes, Kind, Mask


@dataclass(frozen=True, slots=True)
class ExpectedRows:
    """An expected number of rows of one kind, each with these values."""

    kind: Kind
    number: int
    columns: tuple[tuple[str, object], ...]

    def matches(self, change: Change) -> bool:
        """Return whether a row is of this kind and has each of these columns with its value."""
        if change.kind != self.kind:
            return False
        for name, value in self.columns:
            if name not in change.row or change.row[name] != value:
                return False
        return True

    def text(self, table: str, mask: Mask) -> str:
        """Return the words of a message: ``1 inserted row with item='chair'``."""
        plural = "" if self.number == 1 else "s"
        rows = f"{self.number:,} {self.kind} row{plural}"
        if not self.columns:
            return rows
        values = [
            f"{name}={mask.shown(table, name, value)}" for name, value in self.columns
        ]
        return f"{rows} with {' '.join(values)}"


@dataclass(frozen=True, slots=True)
class Expected:
    """The expectation of one table: made by ``inserted``, ``updated``, ``deleted`` and ``&``."""

    parts: tuple[ExpectedRows, ...]

    def __and__(self, other: object) -> Expected:
        if not isinstance(other, Expected):
            return NotImplemented
        return Expected(self.parts + other.parts)


def inserted(number: int = 1, /, **columns: object) -> Expected:
    """Expect that exactly ``number`` rows with these values are inserted into a table.

    Without values each row counts. Join several expectations of one table by ``&``.

    Example::

        with arena.expect_changes(orders=inserted(1, status="paid") & updated(2)):
            test_client.post("/orders")

    Raises:
        ValueError: a number that is less than nothing.
    """
    return _expected("inserted", number, columns)


def updated(number: int = 1, /, **columns: object) -> Expected:
    """Expect that exactly ``number`` rows of a table are updated, and have these values then.

    A row whose primary key changes counts as deleted and inserted. So does each changed row of a
    table that has no primary key.

    Example::

        with arena.expect_changes(stock=updated(1, amount=4)):
            test_client.post("/orders")

    Raises:
        ValueError: a number that is less than nothing.
    """
    return _expected("updated", number, columns)


def deleted(number: int = 1, /, **columns: object) -> Expected:
    """Expect that exactly ``number`` rows that had these values are deleted from a table.

    Example::

        with arena.expect_changes(orders=deleted(1, id=7)):
            test_client.delete("/orders/7")

    Raises:
        ValueError: a number that is less than nothing.
    """
    return _expected("deleted", number, columns)


def _expected(kind: Kind, number: int, columns: Mapping[str, object]) -> Expected:
    if number < 0:
        raise ValueError(
            f"{kind}({number}): a number of rows is never less than nothing"
        )
    return Expected((ExpectedRows(kind, number, tuple(columns.items())),))


def difference(
    changes: Changes, expected: Mapping[str, Expected], *, ignore: Collection[str] = ()
) -> str:
    """Return lines about rows that differ from the expectation, "" if none does.

    ``ignore`` has names of tables, or patterns over them. Their changes do not count.
    """
    patterns = (ignore,) if isinstance(ignore, str) else ignore
    lines = []
    for name in sorted({*changes.tables, *expected}):
        is_ignored = any(fnmatchcase(name, pattern) for pattern in patterns)
        if name in expected or not is_ignored:
            rows = expected.get(name, Expected(()))
            lines += _ExpectedTable(name, changes[name], rows).lines()
    if not lines:
        return ""
    head = "the database did not change as expected"
    return "\n".join([head, *lines, f"in all it changed: {changes.counted()}"])


_MOST = 20  # rows of a table in a message


class _ExpectedTable:
    """The changed rows of one table. Each of them meets at most one expectation.

    A row may match several expectations. It is given to one that no other row can meet.
    """

    def __init__(self, name: str, changes: Changes, expected: Expected) -> None:
        self._name = name
        self._changes = changes
        # The most detailed ones first.
        self._parts = sorted(expected.parts, key=lambda part: -len(part.columns))
        self._rows = list(changes)
        # The place of each row that is given away, and the place of its expectation.
        self._owners: dict[int, int] = {}
        self._missing = [self._give_rows_to(place) for place in range(len(self._parts))]

    def _give_rows_to(self, place: int) -> int:
        """Give rows to an expectation. Return how many are missing."""
        number = self._parts[place].number
        rows = 0
        for row in self._matching(place):
            if rows == number:
                break
            if row not in self._owners:
                self._owners[row] = place
                rows += 1
        while rows < number and self._give_one_more_to(place, {place}):
            rows += 1
        return number - rows

    def _matching(self, place: int) -> Iterator[int]:
        part = self._parts[place]
        for number, row in enumerate(self._rows):
            if part.matches(row):
                yield number

    def _give_one_more_to(self, place: int, visited: set[int]) -> bool:
        """Give a row to an expectation, if necessary one that its owner can replace."""
        for row in self._matching(place):
            owner = self._owners.get(row)
            is_free = owner is None
            if owner is not None and owner not in visited:
                visited.add(owner)
                is_free = self._give_one_more_to(owner, visited)
            if is_free:
                self._owners[row] = place
                return True
        return False

    def lines(self) -> list[str]:
        """Return a line for each unexpected row and each expectation with missing rows."""
        rows = [
            row for place, row in enumerate(self._rows) if place not in self._owners
        ]
        lines = [f"  unexpected: {row}" for row in rows[:_MOST]]
        if len(rows) > _MOST:
            lines.append(
                f"  unexpected: … {len(rows) - _MOST:,} rows of {self._name} more"
            )
        for part, missing in zip(self._parts, self._missing, strict=True):
            if missing:
                text = part.text(self._name, self._changes.mask)
                why = self._why_missing(part, part.number - missing)
                lines.append(f"  missing:    {self._name}: {text}{why}")
        return lines

    def _why_missing(self, part: ExpectedRows, number: int) -> str:
        if self._rows:
            columns = self._rows[0].row
            unknown = [name for name, _ in part.columns if name not in columns]
            if unknown:
                return f"; it has no column {', '.join(unknown)}"
        if not number:
            return ""
        verb = "is" if number == 1 else "are"
        return f"; there {verb} only {number:,}"

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

    def other_types(self, change: Change) -> str:
        """Return a text about the columns whose values have another type than expected, or ""."""
        texts = []
        for name, value in self.values.items():
            present = change.row[name]
            kind = _type_of(present)
            expected = _type_of(value)
            if present is not None and present != value and kind != expected:
                texts.append(
                    f"{name} is of type {kind} in the database, not {expected}"
                )
        return ", ".join(texts)

    def text(self) -> str:
        """Return words such as ``1 inserted row with item='chair'``."""
        text = counted(self.number, f"{self.kind} row")
        if self.values:
            text += " with"
        for name, value in self.values.items():
            text += f" {name}={shown_in(name, value)}"
        return text


def _type_of(value: object) -> str:
    name = type(value).__name__
    if hasattr(value, "tzinfo"):
        name += f" with tzinfo={value.tzinfo}"
    return name


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
        ValueError: the number is negative.
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
        ValueError: the number is negative.
    """
    return _expected("updated", number, columns)


def deleted(number: int = 1, /, **columns: object) -> Expected:
    """Expect that exactly ``number`` rows with these values are deleted from a table.

    Example::

        with arena.expect_changes(orders=deleted(1, id=7)):
            test_client.delete("/orders/7")

    Raises:
        ValueError: the number is negative.
    """
    return _expected("deleted", number, columns)


def _expected(kind: Kind, number: int, columns: Mapping[str, object]) -> Expected:
    if number < 0:
        raise ValueError(f"{kind}({number}): the number of rows is negative")
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
        table = _ExpectedTable(name, changes[name], rows)
        lines += table.lines()
    if len(lines) == 1:
        return ""
    lines.append(f"all changes: {changes.counted()}")
    return "\n".join(lines)


_MOST = 20  # rows of a table in a message


class _ExpectedTable:
    """The changed rows of one table, and its expectations. Each row counts for one expectation.

    A row may match several expectations. The algorithm finds a maximum matching by augmenting
    paths: an expectation gives up a row if it can get another row.
    """

    def __init__(self, name: str, changes: Changes, expected: Expected) -> None:
        self._name = name
        self._changes = changes
        self._parts = list(expected.parts)
        # The expectations with the most values get their rows first.
        self._parts.sort(key=lambda part: len(part.values), reverse=True)
        self._rows = list(changes)
        # The index of the expectation for which a row counts, by the index of the row.
        self._owners: dict[int, int] = {}
        places = range(len(self._parts))
        self._missing = [*map(self._give_rows_to, places)]

    def _give_rows_to(self, place: int) -> int:
        """Give rows to an expectation, free rows first. Return the number of missing rows."""
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
        """Give an expectation a free row, or a row whose owner can get another row."""
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
        owners = self._owners
        rows = [row for place, row in enumerate(self._rows) if place not in owners]
        lines = [f"  unexpected: {row}" for row in rows[:_MOST]]
        more = len(rows) - _MOST
        if more > 0:
            lines.append(f"  unexpected: … {more:,} rows of {self._name} more")
        for part, missing in zip(self._parts, self._missing, strict=True):
            if missing:
                text = part.text()
                line = f"  missing:    {self._name}: {text}"
                why = self._why_missing(part, part.number - missing)
                if why:
                    line += f" ({why})"
                lines.append(line)
        return lines

    def _why_missing(self, part: ExpectedRows, number: int) -> str:
        """Return why rows are missing: unknown columns, other types or too few rows. Or ""."""
        if self._rows:
            columns = self._rows[0].row
            unknown = [name for name in part.values if name not in columns]
            if unknown:
                return f"the table has no column {', '.join(unknown)}"
        if not number:
            return next(filter(None, map(part.other_types, self._rows)), "")
        verb = "is" if number == 1 else "are"
        return f"there {verb} only {number:,}"

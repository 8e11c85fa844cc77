"""Has a database changed as a test expects it to, and if not, in what?"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from pytest_arena._changes import Change, Changes, Kind, Mask


@dataclass(frozen=True, slots=True)
class ExpectedRows:
    """So many rows of a kind, each with these values."""

    kind: Kind
    number: int
    columns: tuple[tuple[str, object], ...]

    def matches(self, change: Change) -> bool:
        """Whether a row is of this kind and has these values; a column it lacks has none."""
        return change.kind == self.kind and all(
            name in change.row and bool(change.row[name] == value)
            for name, value in self.columns
        )

    def text(self, table: str, mask: Mask) -> str:
        """As a message shows it: ``1 inserted row with item='chair'``."""
        rows = f"{self.number:,} {self.kind} row{'s' * (self.number != 1)}"
        values = " ".join(
            f"{name}={mask.shown(table, name, value)}" for name, value in self.columns
        )
        return f"{rows} with {values}" if values else rows


@dataclass(frozen=True, slots=True)
class Expected:
    """What is expected of one table: made by ``inserted``, ``updated``, ``deleted`` and ``&``."""

    parts: tuple[ExpectedRows, ...]

    def __and__(self, other: object) -> Expected:
        return (
            Expected(self.parts + other.parts)
            if isinstance(other, Expected)
            else NotImplemented
        )


def inserted(number: int = 1, /, **columns: object) -> Expected:
    """Expect that exactly so many rows come into a table; the values are those of the new rows.

    Without values any row will do. Several expectations of one table are joined by ``&``.

    Example::

        with arena.expect_changes(orders=inserted(1, status="paid") & updated(2)):
            test_client.post("/orders")

    Raises:
        ValueError: a number that is less than nothing.
    """
    return _expected("inserted", number, columns)


def updated(number: int = 1, /, **columns: object) -> Expected:
    """Expect that exactly so many rows of a table change; the values are those they have then.

    A row whose primary key changes is deleted and inserted, and so is each changed row of a table
    that has no primary key.

    Example::

        with arena.expect_changes(stock=updated(1, amount=4)):
            test_client.post("/orders")

    Raises:
        ValueError: a number that is less than nothing.
    """
    return _expected("updated", number, columns)


def deleted(number: int = 1, /, **columns: object) -> Expected:
    """Expect that exactly so many rows leave a table; the values are those that they had.

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
    """Return in which rows the changes are other than expected, as text; "" where in none.

    ``ignore`` are names of tables, or patterns over them, in which anything may change.
    """
    ignored = (ignore,) if isinstance(ignore, str) else ignore
    tables = [
        one
        for one in changes.tables
        if not any(fnmatchcase(one, each) for each in ignored)
    ]
    found = [
        _ExpectedTable(name, changes[name], expected.get(name, Expected(())))
        for name in sorted({*tables, *expected})
    ]
    lines = [line for table in found for line in table.lines()]
    if not lines:
        return ""
    head = "the database did not change as expected"
    return "\n".join([head, *lines, f"in all it changed: {changes.counted()}"])


_MOST = 20  # rows of a table in a message


class _ExpectedTable:
    """The changed rows of one table, each taken by at most one expectation.

    A row may answer several of them: one that only it can answer gets it.
    """

    def __init__(self, name: str, changes: Changes, expected: Expected) -> None:
        self._name = name
        self._changes = changes
        self._wanted = sorted(expected.parts, key=lambda one: -len(one.columns))
        self._rows = list(changes)
        self._takers: dict[int, int] = {}  # by the row's place, the expectation's
        self._missing = [
            self._without_an_answer(place) for place in range(len(self._wanted))
        ]

    def _without_an_answer(self, place: int) -> int:
        """Take rows for an expectation; return how many there are too few."""
        wanted = self._wanted[place]
        free = (row for row in self._matching(place) if row not in self._takers)
        had = 0
        for row, _ in zip(free, range(wanted.number), strict=False):
            self._takers[row] = place
            had += 1
        while had < wanted.number and self._takes(place, {place}):
            had += 1
        return wanted.number - had

    def _matching(self, place: int) -> Iterator[int]:
        wanted = self._wanted[place]
        return (number for number, row in enumerate(self._rows) if wanted.matches(row))

    def _takes(self, place: int, asked: set[int]) -> bool:
        """Whether it gets one row more, if need be from another one that has a substitute."""
        for row in self._matching(place):
            taker = self._takers.get(row)
            if taker is not None and taker not in asked:
                asked.add(taker)
                has_given_way = self._takes(taker, asked)
            else:
                has_given_way = taker is None
            if has_given_way:
                self._takers[row] = place
                return True
        return False

    def lines(self) -> list[str]:
        """What is missing in this table and what was not expected; none if all is as it should."""
        rows = [
            row for place, row in enumerate(self._rows) if place not in self._takers
        ]
        lines = [f"unexpected: {row}" for row in rows[:_MOST]]
        if len(rows) > _MOST:
            lines.append(
                f"unexpected: … {len(rows) - _MOST:,} rows of {self._name} more"
            )
        for wanted, number in zip(self._wanted, self._missing, strict=True):
            if number:
                found = wanted.number - number
                text = wanted.text(self._name, self._changes.mask)
                lines.append(
                    f"missing:    {self._name}: {text}{self._found(wanted, found)}"
                )
        return [f"  {line}" for line in lines]

    def _found(self, wanted: ExpectedRows, number: int) -> str:
        unknown = [
            name
            for name, _ in wanted.columns
            if self._rows and name not in self._columns
        ]
        if unknown:
            return f"; it has no column {', '.join(unknown)}"
        are = "is" if number == 1 else "are"
        return f"; there {are} only {number:,}" if number else ""

    @property
    def _columns(self) -> Mapping[str, object]:
        return self._rows[0].row

"""What a request has changed, to be compared with other runs of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_arena._changes import Changes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pytest_arena._changes import Change
    from pytest_arena._product import Isolation

_MOST_ROWS = 1000

# A column of a table of a database, by the number of the database.
Column = tuple[int, str, str]


@dataclass(frozen=True, slots=True)
class Outcome:
    """The rows that have changed in each database since the level on top began.

    Two outcomes are compared by their contents: a lost update has the same numbers of rows. Keys do
    not count, because their order is chance.
    """

    changes: tuple[Changes, ...]

    @classmethod
    def now(cls, isolations: Iterable[Isolation]) -> Outcome:
        """Read the rows. Raises what the databases raise."""
        return cls(tuple(Changes.of(each.rows_changed(limit=_MOST_ROWS)) for each in isolations))

    @property
    def is_whole(self) -> bool:
        """Whether all rows were read."""
        return all(len(each) == len([*each]) for each in self.changes)

    @property
    def is_removal(self) -> bool:
        """Whether rows were deleted, and no others written."""
        return bool(self) and all(change.kind == "deleted" for _, change in self._rows())

    def __bool__(self) -> bool:
        return any(self.changes)

    def __str__(self) -> str:
        return "; ".join(each.counted() for each in self.changes if each) or "nothing"

    def content(self, chance: Iterable[Column] = ()) -> Counter[object]:
        """Return the changed rows without keys, and without the columns of ``chance``."""
        hidden = set(chance)
        return Counter(_content(number, change, hidden) for number, change in self._rows())

    def beyond(self, others: Iterable[Outcome], chance: set[Column]) -> list[str]:
        """Return a line for each row that none of the other outcomes has so often."""
        known: Counter[object] = Counter()
        for other in others:
            known |= other.content(chance)
        lines = []
        for number, change in self._rows():
            content = _content(number, change, chance)
            known[content] -= 1
            if known[content] < 0:
                lines.append(str(change))
        return lines

    def differing(self, other: Outcome) -> set[Column]:
        """Return the columns that differ from another outcome of the same request.

        Such are times, tokens, salts and keys that the app makes.
        """
        found: set[Column] = set()
        for (number, one), (_, two) in zip(self._rows(), other._rows(), strict=False):
            if (one.table, one.kind) == (two.table, two.kind):
                for old, new in ((one.before, two.before), (one.after, two.after)):
                    both = zip(_values(number, one, old), _values(number, two, new), strict=False)
                    found |= {first[0] for first, second in both if first != second}
        return found

    def _rows(self) -> Iterator[tuple[int, Change]]:
        for number, changes in enumerate(self.changes):
            for change in changes:
                yield number, change


def _content(number: int, change: Change, hidden: set[Column]) -> object:
    sides = []
    for side in (change.before, change.after):
        values = _values(number, change, side)
        sides.append(tuple(each for each in values if each[0] not in hidden))
    return number, change.table, change.kind, *sides


def _values(number: int, change: Change, row: Mapping[str, object]) -> Iterator[tuple[Column, str]]:
    """Yield the values of a row with their columns, without its key."""
    for name, value in row.items():
        if name not in change.key:
            yield (number, change.table, name), repr(value)

"""Which rows of a table have gone and come, when those that did both are left out?"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from pytest_arena._values import TableRows

__all__ = ["Row", "limited", "net"]

Row = tuple[object, ...]
_Known = tuple["Hashable", Row]  # what makes it the same row as another one, and its values


def net(gone: Sequence[_Known], come: Sequence[_Known]) -> tuple[list[Row], list[Row]]:
    """Take those off that have gone and come, as multisets: a row twice there once here is one."""
    before, after = (Counter(known for known, _ in rows) for rows in (gone, come))
    both = before & after
    return _without(gone, both.copy()), _without(come, both)


def _without(rows: Sequence[_Known], both: Counter[Hashable]) -> list[Row]:
    left = []
    for known, row in rows:
        if both[known] > 0:
            both[known] -= 1
        else:
            left.append(row)
    return left


def limited(rows: TableRows, limit: int | None) -> TableRows:
    """Keep the first rows; of one that was updated both what it was and what it is."""
    if limit is None or len(rows.gone) + len(rows.come) <= limit:
        return rows
    places = [rows.columns.index(name) for name in rows.key]
    gone_keys, come_keys = _keys(rows.gone, places, "-"), _keys(rows.come, places, "+")
    kept = _first(Counter([*gone_keys, *come_keys]), limit)
    gone = _kept(rows.gone, gone_keys, kept)
    come = _kept(rows.come, come_keys, kept)
    more = len(rows.gone) + len(rows.come) - len(gone) - len(come)
    return replace(rows, gone=gone, come=come, more=rows.more + more)


def _first(numbers: Counter[Hashable], limit: int) -> set[Hashable]:
    total = 0
    kept: set[Hashable] = set()
    for key, number in numbers.items():
        total += number
        if total <= limit:
            kept.add(key)
    return kept


def _keys(rows: Sequence[Row], places: list[int], side: str) -> list[Hashable]:
    if not places:
        return [f"{side}{number}" for number in range(len(rows))]
    return [repr([row[place] for place in places]) for row in rows]  # a key may be a list


def _kept(rows: tuple[Row, ...], keys: list[Hashable], kept: set[Hashable]) -> tuple[Row, ...]:
    return tuple(row for row, key in zip(rows, keys, strict=True) if key in kept)

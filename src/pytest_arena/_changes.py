"""What has changed in a database, row by row, and how is it read?"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import reduce
from itertools import accumulate, zip_longest
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias, overload

from pytest_arena.errors import redact

if TYPE_CHECKING:
    from collections.abc import (
        Callable,
        Hashable,
        Iterable,
        Iterator,
        Mapping,
        Sequence,
    )

    from pytest_arena._values import TableRows

Kind = Literal["inserted", "updated", "deleted"]

_SIGNS: dict[Kind, str] = {"inserted": "+", "updated": "~", "deleted": "-"}
_LONGEST_VALUE = 60
_LONGEST_ROW = 180


@dataclass(frozen=True, slots=True)
class Mask:
    """Which columns hold what nobody is to read in a log.

    Those that are named like a secret, and those that a pattern over ``table.column`` names; a
    pattern without a dot is a column's in any table.
    """

    patterns: tuple[str, ...] = ()

    def hides(self, table: str, column: str) -> bool:
        """Whether a column's values are shown as ``***``."""
        # A report that tells of several databases calls a table analytics/visits.
        named = f"{table.rpartition('/')[2]}.{column}".lower()
        return bool(_SECRET.search(column)) or any(
            fnmatchcase(named, one.lower() if "." in one else f"*.{one.lower()}")
            for one in self.patterns
        )

    def without(self, written: Iterable[NamedValues]) -> Callable[[str], str]:
        """Return what puts ``***`` into a text for what was written into secret columns.

        What has less than four letters is in many a text that does not tell it.
        """
        pairs = (
            (table, pair)
            for table, rows in written
            for row in rows
            for pair in row.items()
        )
        values = (value for table, (name, value) in pairs if self.hides(table, name))
        forms = [form for value in values for form in (repr(value), str(value))]
        telling = [form for form in forms if len(form) >= _TELLING]
        return lambda text: reduce(
            lambda left, form: left.replace(form, "***"), telling, text
        )

    def shown(self, table: str, column: str, value: object) -> str:
        """Return a value of a column as a person may read it."""
        return (
            "***" if value is not None and self.hides(table, column) else shown(value)
        )


NamedValues: TypeAlias = "tuple[str, Sequence[Mapping[str, object]]]"
"""Of a table, rows of values by the names of columns."""
_TELLING = 4  # letters
# A hashtag is none.
_SECRET = re.compile(
    r"(?i)pass(word|wd|phrase|code)|pwd|secret|token|(api|private|secret)_?key|credential"
    r"|(^|_)(hash(ed)?|salt|otp|pin|cvc|cvv)(_|$)|[a-z]Hash$"
)


@dataclass(frozen=True, slots=True, repr=False)
class Change:
    """One row that was inserted, updated or deleted, as it was and as it is.

    Values are those of the database's driver, by the names of the columns: ``before`` is empty
    where the row was inserted, ``after`` where it was deleted. What happened in between, a row
    that came and went, a value that was changed and changed back, is no change.

    Its text is one line, in which the values of secret columns are ``***``; here they are.

    Example::

        [change] = arena.changes()["stock"]
        assert (change.before["amount"], change.after["amount"]) == (5, 4)
    """

    __module__ = "pytest_arena"

    table: str
    """As the app names it; with its schema where that is not the default one: ``audit.log``."""
    kind: Kind
    before: Mapping[str, object]
    after: Mapping[str, object]
    key: tuple[str, ...] = ()
    """The columns of the primary key; none where the table has none."""
    _mask: Mask = field(default=Mask(), compare=False)

    __hash__: ClassVar[None] = None  # type: ignore[assignment]  # its values may be lists

    def __str__(self) -> str:
        """Return it as a line: ``+ orders id=7  total=12.50``."""
        return _as_line(self)

    def __repr__(self) -> str:  # pytest writes it into the report of a failed assertion
        return f"<Change: {self}>"

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that an update has changed; of other kinds none."""
        if self.kind != "updated":
            return ()
        return tuple(
            name for name, new in self.after.items() if _differ(self.before[name], new)
        )

    @property
    def row(self) -> Mapping[str, object]:
        """The row as it is; as it was, where it was deleted."""
        return self.after or self.before


def _differ(old: object, new: object) -> bool:
    """Numeric 1.0 and 1.00 are equal to Python, and two values to the database."""
    return type(old) is not type(new) or repr(_plain(old)) != repr(_plain(new))


def _plain(value: object) -> object:
    return bytes(value) if isinstance(value, memoryview) else value  # psycopg2's bytea


class Changes:
    """What has changed between two moments, row by row: net, committed, in a steady order.

    A row that went and one that came are one update where they have one primary key. A row whose
    key was changed was deleted and inserted; so is each changed row of a table without a primary
    key, where nothing tells which one has become which.

    Example::

        changes = arena.changes()
        assert changes.tables == ("orders", "stock")
        assert len(changes.inserted) == 1
        [stock] = changes["stock"].updated
        assert stock.columns == ("amount",)
    """

    __module__ = "pytest_arena"

    def __init__(
        self, changes: Iterable[Change], mask: Mask, more: Mapping[str, int]
    ) -> None:
        self._all = tuple(changes)
        self._more = dict(more)
        self.mask: Mask = mask

    @classmethod
    def of(cls, tables: Iterable[TableRows], mask: Mask | None = None) -> Changes:
        """Return the changes that rows which have gone and come amount to."""
        tables = sorted(tables, key=lambda one: one.table)
        mask = mask or Mask()
        # Of a pair one row may have been cut off: what is left would tell of another change.
        more = {
            one.table: len(one.removed) + len(one.added) + one.more
            for one in tables
            if one.more
        }
        whole = (one for one in tables if not one.more)
        return cls(
            (change for one in whole for change in _paired(one, mask)), mask, more
        )

    @property
    def inserted(self) -> Changes:
        """Those of rows that have come."""
        return self._only("inserted")

    @property
    def updated(self) -> Changes:
        """Those of rows that are other than they were."""
        return self._only("updated")

    @property
    def deleted(self) -> Changes:
        """Those of rows that have gone."""
        return self._only("deleted")

    def _only(self, kind: Kind) -> Changes:
        return Changes((one for one in self._all if one.kind == kind), self.mask, {})

    @property
    def tables(self) -> tuple[str, ...]:
        """The names of the tables in which something has changed, sorted."""
        return tuple(sorted({*(one.table for one in self._all), *self._more}))

    @overload
    def __getitem__(self, which: str) -> Changes: ...

    @overload
    def __getitem__(self, which: int) -> Change: ...

    def __getitem__(self, which: str | int) -> Changes | Change:
        """The changes of one table, by its name; none where nothing has changed in it."""
        if isinstance(which, int):
            return self._all[which]
        more = {name: number for name, number in self._more.items() if name == which}
        return Changes(
            (one for one in self._all if one.table == which), self.mask, more
        )

    @property
    def counts_more(self) -> bool:
        """Whether there are rows that are counted alone, as in a report; a test is given none."""
        return bool(self._more)

    def __iter__(self) -> Iterator[Change]:
        return iter(self._all)

    def __len__(self) -> int:
        """Return how many there are: in a report also of those that it does not show."""
        return len(self._all) + sum(self._more.values())

    def __bool__(self) -> bool:
        return bool(self._all or self._more)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Changes):
            return NotImplemented
        return (self._all, self._more) == (other._all, other._more)

    __hash__: ClassVar[None] = None  # type: ignore[assignment]  # its values may be lists

    def __repr__(self) -> str:
        return f"<Changes: {self.counted()}>"

    def __str__(self) -> str:
        """Return the tables with their numbers, and a line for each row."""
        return "\n".join([self.counted(), *(f"  {line}" for line in self.lines())])

    def counted(self) -> str:
        """Return how many rows changed in each table: ``orders +1, stock ~1``."""
        return ", ".join(map(self._counted, self.tables)) or "nothing"

    def _counted(self, table: str) -> str:
        if table in self._more:
            return f"{table} some {self._more[table]:,} rows"
        kinds = Counter(one.kind for one in self._all if one.table == table)
        numbers = (
            f"{sign}{kinds[kind]:,}" for kind, sign in _SIGNS.items() if kinds[kind]
        )
        return f"{table} {' '.join(numbers)}"

    def lines(self, most: int | None = None) -> list[str]:
        """Return a line for each row; of each table's at most so many, and the rest counted."""
        return [line for table in self.tables for line in self._lines_of(table, most)]

    def _lines_of(self, table: str, most: int | None) -> list[str]:
        rows = [one for one in self._all if one.table == table]
        # A line that counts one row is as long as the row's.
        shown = rows if most is None or len(rows) <= most + 1 else rows[:most]
        lines = list(map(str, shown))
        return lines + [f"… {len(rows) - len(shown):,} rows of {table} more"] * (
            rows != shown
        )


# Which row has become which?


def _paired(rows: TableRows, mask: Mask) -> list[Change]:
    pairs = _by_key(rows) if rows.key else _by_content(rows)
    changes = (_change(rows, old, new, mask) for old, new in pairs)
    return sorted(changes, key=_order)


Row = tuple[object, ...]
_Known = tuple[
    "Hashable", Row
]  # what makes it the same row as another one, and its values
_Pairs = list[tuple[Row | None, Row | None]]


def _by_key(rows: TableRows) -> _Pairs:
    """Beside each other what has one key."""
    places = [rows.columns.index(name) for name in rows.key]
    old = _keyed(rows.removed, places)
    new = _keyed(rows.added, places)
    pairs: _Pairs = []
    for key in {**old, **new}:
        pairs += zip_longest(old.get(key, []), new.get(key, []))
    return pairs


def _keyed(rows: Iterable[Row], places: list[int]) -> dict[object, list[Row]]:
    keyed: dict[object, list[Row]] = defaultdict(list)
    for row in rows:
        keyed[tuple(_hashable(row[place]) for place in places)].append(row)
    return keyed


def _by_content(rows: TableRows) -> _Pairs:
    """What has gone and what has come; as many rows as are the same in both are neither."""
    removed, added = net(
        *([(_content(row), row) for row in some] for some in (rows.removed, rows.added))
    )
    return [(row, None) for row in removed] + [(None, row) for row in added]


def _content(row: Row) -> Hashable:
    return tuple((type(one), repr(_plain(one))) for one in row)


def _hashable(value: object) -> object:
    value = _plain(value)
    try:
        hash(value)
    except TypeError:  # an array
        return repr(value)
    return value


def _change(rows: TableRows, old: Row | None, new: Row | None, mask: Mask) -> Change:
    kind: Kind = "inserted" if old is None else "deleted" if new is None else "updated"
    before = _named(rows.columns, old)
    after = _named(rows.columns, new)
    return Change(rows.table, kind, before, after, rows.key, mask)


def _named(columns: tuple[str, ...], row: Row | None) -> Mapping[str, object]:
    return MappingProxyType(
        dict(zip(columns, row, strict=True)) if row is not None else {}
    )


def _order(change: Change) -> tuple[int, list[tuple[int, int, str]]]:
    """Inserted, updated, deleted; each by its key, numbers as numbers."""
    names = change.key or tuple(change.row)
    values = (change.row[name] for name in names)
    return list(_SIGNS).index(change.kind), [
        (0, value, "") if isinstance(value, int) else (1, 0, str(value))
        for value in values
    ]


# Which rows have gone and come, when those that did both are left out?


def net(
    removed: Sequence[_Known], added: Sequence[_Known]
) -> tuple[list[Row], list[Row]]:
    """Take those off that have gone and come, as multisets: a row twice there once here is one."""
    before, after = (Counter(known for known, _ in rows) for rows in (removed, added))
    both = before & after
    return _without(removed, both.copy()), _without(added, both)


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
    if limit is None or len(rows.removed) + len(rows.added) <= limit:
        return rows
    places = [rows.columns.index(name) for name in rows.key]
    removed_keys = _keys(rows.removed, places, "-")
    added_keys = _keys(rows.added, places, "+")
    numbers = Counter([*removed_keys, *added_keys])
    totals = accumulate(numbers.values())
    kept = {key for key, total in zip(numbers, totals, strict=True) if total <= limit}
    removed = _kept(rows.removed, removed_keys, kept)
    added = _kept(rows.added, added_keys, kept)
    more = len(rows.removed) + len(rows.added) - len(removed) - len(added)
    return replace(rows, removed=removed, added=added, more=rows.more + more)


def _keys(rows: Sequence[Row], places: list[int], side: str) -> list[Hashable]:
    if not places:
        return [f"{side}{number}" for number in range(len(rows))]
    return [
        repr([row[place] for place in places]) for row in rows
    ]  # a key may be a list


def _kept(
    rows: tuple[Row, ...], keys: list[Hashable], kept: set[Hashable]
) -> tuple[Row, ...]:
    return tuple(row for row, key in zip(rows, keys, strict=True) if key in kept)


# How is it read?


def _as_line(change: Change) -> str:
    """The sign, the table, the key, then what has changed or stands there."""
    key = " ".join(
        f"{name}={_shown_of(change, change.row, name)}" for name in change.key
    )
    head = f"{_SIGNS[change.kind]} {change.table}" + f" {key}" * bool(key)
    rest = _as_update(change) if change.kind == "updated" else _as_row(change)
    # A name may hold anything; what a terminal takes for a command is no part of a line.
    line = f"{head}  {rest}".rstrip()
    return "".join(letter if letter.isprintable() else " " for letter in line)


def _as_update(change: Change) -> str:
    steps = [
        f"{name} {_shown_of(change, change.before, name)} → {_shown_of(change, change.after, name)}"
        for name in change.columns
    ]
    return _fitting(steps, ", ") or "written anew, with the same values"


def _as_row(change: Change) -> str:
    row = change.row
    others = [name for name in row if name not in change.key]
    filled = [
        f"{name}={_shown_of(change, row, name)}"
        for name in others
        if row[name] is not None
    ]
    empty = [name for name in others if row[name] is None]
    return _fitting([*filled, *([f"NULL: {', '.join(empty)}"] if empty else [])], " ")


def _shown_of(change: Change, row: Mapping[str, object], column: str) -> str:
    if tuple(row) == _RAW:
        return "***"
    return change._mask.shown(change.table, column, row[column])  # noqa: SLF001 - of this module


# The text of a whole row, of a table that is not what it was: all its secrets are in it.
_RAW = ("row",)


def _fitting(parts: list[str], between: str) -> str:
    """As many parts as fit into a row, at least one; the rest is counted."""
    text = ""
    for number, part in enumerate(parts):
        longer = text + between * bool(text) + part
        if text and len(longer) > _LONGEST_ROW:
            return f"{text} … {len(parts) - number} more"
        text = longer
    return text


def shown(value: object) -> str:
    """Return a value as a person reads it: short, on one line, a text in quotation marks."""
    if value is None:
        return "NULL"
    if isinstance(value, str):
        text = repr(redact(value[:_ENOUGH]))
        size = f"{len(value):,} characters"
    elif isinstance(value, bytes | bytearray | memoryview):
        text = repr(bytes(value[:_ENOUGH]))
        size = f"{len(value):,} bytes"
    else:
        text = str(value)
        size = f"{len(text):,} characters"
        text = redact(text[:_ENOUGH])
    return (
        text
        if len(text) <= _LONGEST_VALUE
        else f"{text[: _LONGEST_VALUE - 1]}… ({size})"
    )


_ENOUGH = 2_000  # of a long value: a password is found before the cut, which may go through it

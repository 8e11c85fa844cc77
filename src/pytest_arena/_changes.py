"""The changes of a database, row by row, and their text."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from itertools import accumulate, chain, zip_longest
from operator import attrgetter
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
    """The columns whose values no log may show.

    These are the columns with the name of a secret, and those that match a pattern over
    ``table.column``. A pattern without a dot matches columns of any table.
    """

    patterns: tuple[str, ...] = ()

    def hides(self, table: str, column: str) -> bool:
        """Whether a column's values are shown as ``***``."""
        if _SECRET.search(column):
            return True
        # A report about several databases calls a table analytics/visits.
        named = f"{table.rpartition('/')[2]}.{column}".lower()
        for pattern in self.patterns:
            prefix = "" if "." in pattern else "*."
            if fnmatchcase(named, prefix + pattern.lower()):
                return True
        return False

    def without(self, written: Iterable[NamedValues]) -> Callable[[str], str]:
        """Return a function that replaces the values of secret columns in a text by ``***``.

        Values of less than four letters stay: they are in many texts by chance.
        """
        secrets: list[str] = []
        for table, rows in written:
            for name, value in chain.from_iterable(row.items() for row in rows):
                if self.hides(table, name):
                    secrets += (repr(value), str(value))

        def replaced(text: str) -> str:
            for secret in secrets:
                if len(secret) >= _SHORTEST_SECRET:
                    text = text.replace(secret, "***")
            return text

        return replaced

    def shown(self, table: str, column: str, value: object) -> str:
        """Return a value of a column as a person may read it."""
        if value is not None and self.hides(table, column):
            return "***"
        return shown(value)


NamedValues: TypeAlias = "tuple[str, Sequence[Mapping[str, object]]]"
"""The name of a table, and rows of its values by the names of columns."""
_SHORTEST_SECRET = 4  # letters
# `hash` in a longer word, such as `hashtag`, is no secret.
_SECRET = re.compile(
    r"(?i)pass(word|wd|phrase|code)|pwd|secret|token|(api|private|secret)_?key|credential"
    r"|(^|_)(hash(ed)?|salt|otp|pin|cvc|cvv)(_|$)|[a-z]Hash$"
)


@dataclass(frozen=True, slots=True, repr=False)
class Change:
    """One row that was inserted, updated or deleted, as it was and as it is.

    ``before`` and ``after`` have the values of the database's driver by the names of the columns.
    ``before`` is empty if the row was inserted, ``after`` if it was deleted. A row that was
    inserted and deleted in between is no change, nor is a value that was changed and changed back.

    Its text is one line, which shows the values of secret columns as ``***``. The attributes have
    the values.

    Example::

        [change] = arena.changes()["stock"]
        assert (change.before["amount"], change.after["amount"]) == (5, 4)
    """

    __module__ = "pytest_arena"

    table: str
    """The table's name in the app, with its schema if that is not the default: ``audit.log``."""
    kind: Kind
    before: Mapping[str, object]
    after: Mapping[str, object]
    key: tuple[str, ...] = ()
    """The columns of the primary key, () without one."""
    _mask: Mask = field(default=Mask(), compare=False)

    __hash__: ClassVar[None] = None  # type: ignore[assignment]  # its values may be lists

    def __str__(self) -> str:
        """Return it as a line: ``+ orders id=7  total=12.50``."""
        return _as_line(self)

    def __repr__(self) -> str:  # pytest writes it into the report of a failed assertion
        return f"<Change: {self}>"

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that an update has changed. () for the other kinds."""
        if self.kind != "updated":
            return ()
        return tuple(
            name for name, new in self.after.items() if _differ(self.before[name], new)
        )

    @property
    def row(self) -> Mapping[str, object]:
        """The row as it is, or as it was if it was deleted."""
        return self.after or self.before


def _differ(old: object, new: object) -> bool:
    """Whether two values differ in the database: numeric 1.0 and 1.00 are equal to Python."""
    return type(old) is not type(new) or repr(_plain(old)) != repr(_plain(new))


def _plain(value: object) -> object:
    return bytes(value) if isinstance(value, memoryview) else value  # psycopg2's bytea


class Changes:
    """The committed changes between two moments, row by row, in a fixed order.

    A removed row and an added row with the same primary key are one update. If the key itself was
    changed, they are one deleted and one inserted row. A changed row of a table without a primary
    key counts in the same way.

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
        """Return the changes that removed and added rows amount to."""
        mask = mask or Mask()
        changes: list[Change] = []
        more = {}
        for rows in sorted(tables, key=attrgetter("table")):
            if rows.more:
                # One row of a pair may be cut off: the other one would look like another change.
                more[rows.table] = len(rows.removed) + len(rows.added) + rows.more
            else:
                changes += _paired(rows, mask)
        return cls(changes, mask, more)

    @property
    def inserted(self) -> Changes:
        """The inserted rows."""
        return self._only("inserted")

    @property
    def updated(self) -> Changes:
        """The updated rows."""
        return self._only("updated")

    @property
    def deleted(self) -> Changes:
        """The deleted rows."""
        return self._only("deleted")

    def _only(self, kind: Kind) -> Changes:
        changes = [change for change in self._all if change.kind == kind]
        return Changes(changes, self.mask, {})

    @property
    def tables(self) -> tuple[str, ...]:
        """The names of the changed tables, sorted."""
        return tuple(sorted({*(change.table for change in self._all), *self._more}))

    @overload
    def __getitem__(self, which: str) -> Changes: ...

    @overload
    def __getitem__(self, which: int) -> Change: ...

    def __getitem__(self, which: str | int) -> Changes | Change:
        """Return the changes of one table by its name, or one change by its place."""
        if isinstance(which, int):
            return self._all[which]
        changes = [change for change in self._all if change.table == which]
        more = {name: number for name, number in self._more.items() if name == which}
        return Changes(changes, self.mask, more)

    @property
    def counts_more(self) -> bool:
        """Whether some rows are only counted. That is so in reports, never in a test."""
        return bool(self._more)

    def __iter__(self) -> Iterator[Change]:
        return iter(self._all)

    def __len__(self) -> int:
        """Return the number of rows, also of those that a report only counts."""
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
        kinds = Counter(change.kind for change in self._all if change.table == table)
        text = table
        for kind, sign in _SIGNS.items():
            if kinds[kind]:
                text += f" {sign}{kinds[kind]:,}"
        return text

    def lines(self, most: int | None = None) -> list[str]:
        """Return a line for each row. ``most`` rows of a table are shown, the others counted."""
        lines: list[str] = []
        for table in self.tables:
            rows = [change for change in self._all if change.table == table]
            shown = rows
            # A line that counts one row is as long as the line of that row.
            if most is not None and len(rows) > most + 1:
                shown = rows[:most]
            lines += map(str, shown)
            if len(shown) < len(rows):
                lines.append(f"… {len(rows) - len(shown):,} rows of {table} more")
        return lines


# Pairs of a removed and an added row


def _paired(rows: TableRows, mask: Mask) -> list[Change]:
    pairs = _by_key(rows) if rows.key else _by_content(rows)
    changes = (_change(rows, old, new, mask) for old, new in pairs)
    return sorted(changes, key=_order)


Row = tuple[object, ...]
# A value that is equal for equal rows, and the row.
_Identified = tuple["Hashable", Row]
_Pairs = list[tuple[Row | None, Row | None]]


def _by_key(rows: TableRows) -> _Pairs:
    """Return removed and added rows in pairs of the same key."""
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
    """Return the removed and the added rows, without those that are equal."""
    removed, added = net(
        [(_content(row), row) for row in rows.removed],
        [(_content(row), row) for row in rows.added],
    )
    return [(row, None) for row in removed] + [(None, row) for row in added]


def _content(row: Row) -> Hashable:
    return tuple((type(value), repr(_plain(value))) for value in row)


def _hashable(value: object) -> object:
    value = _plain(value)
    try:
        hash(value)
    except TypeError:  # an array
        return repr(value)
    return value


def _change(rows: TableRows, old: Row | None, new: Row | None, mask: Mask) -> Change:
    kind: Kind = "updated"
    if old is None:
        kind = "inserted"
    elif new is None:
        kind = "deleted"
    before = _named(rows.columns, old)
    after = _named(rows.columns, new)
    return Change(rows.table, kind, before, after, rows.key, mask)


def _named(columns: tuple[str, ...], row: Row | None) -> Mapping[str, object]:
    if row is None:
        return MappingProxyType({})
    return MappingProxyType(dict(zip(columns, row, strict=True)))


def _order(change: Change) -> tuple[int, list[tuple[int, int, str]]]:
    """Sort inserted, updated and deleted rows, each by its key, and numbers as numbers."""
    values: list[tuple[int, int, str]] = []
    for name in change.key or change.row:
        value = change.row[name]
        if isinstance(value, int):
            values.append((0, value, ""))
        else:
            values.append((1, 0, str(value)))
    return list(_SIGNS).index(change.kind), values


def net(
    removed: Sequence[_Identified], added: Sequence[_Identified]
) -> tuple[list[Row], list[Row]]:
    """Return the removed and the added rows, as multisets without those that are in both."""
    before = Counter(identity for identity, _ in removed)
    after = Counter(identity for identity, _ in added)
    both = before & after
    return _without(removed, both.copy()), _without(added, both)


def _without(rows: Sequence[_Identified], both: Counter[Hashable]) -> list[Row]:
    left = []
    for identity, row in rows:
        if both[identity] > 0:
            both[identity] -= 1
        else:
            left.append(row)
    return left


def limited(rows: TableRows, limit: int | None) -> TableRows:
    """Keep the first rows. Of an updated row keep both the old and the new one, or none."""
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
    # A key may have a list, which has no hash.
    return [repr([row[place] for place in places]) for row in rows]


def _kept(
    rows: tuple[Row, ...], keys: list[Hashable], kept: set[Hashable]
) -> tuple[Row, ...]:
    return tuple(row for row, key in zip(rows, keys, strict=True) if key in kept)


# The text of a change


def _as_line(change: Change) -> str:
    """Return the sign, the table, the key, and the changed columns or the row."""
    line = f"{_SIGNS[change.kind]} {change.table}"
    for name in change.key:
        line += f" {name}={_shown_of(change, change.row, name)}"
    rest = _as_update(change) if change.kind == "updated" else _as_row(change)
    line = f"{line}  {rest}".rstrip()
    # A terminal would obey control characters in a name.
    return "".join(letter if letter.isprintable() else " " for letter in line)


def _as_update(change: Change) -> str:
    steps = []
    for name in change.columns:
        before = _shown_of(change, change.before, name)
        after = _shown_of(change, change.after, name)
        steps.append(f"{name} {before} → {after}")
    return _fitting(steps, ", ") or "written again, with the same values"


def _as_row(change: Change) -> str:
    parts = []
    empty = []
    for name, value in change.row.items():
        if value is None and name not in change.key:
            empty.append(name)
        elif name not in change.key:
            parts.append(f"{name}={_shown_of(change, change.row, name)}")
    if empty:
        parts.append(f"NULL: {', '.join(empty)}")
    return _fitting(parts, " ")


def _shown_of(change: Change, row: Mapping[str, object], column: str) -> str:
    if tuple(row) == _RAW:
        return "***"
    return change._mask.shown(change.table, column, row[column])  # noqa: SLF001 - of this module


# The only column of a row whose table was changed meanwhile: the text of the row, with its secrets.
_RAW = ("row",)


def _fitting(parts: list[str], between: str) -> str:
    """Join as many parts as fit into a line, at least one, and count the others."""
    text = parts[0] if parts else ""
    for number, part in enumerate(parts[1:], start=1):
        longer = f"{text}{between}{part}"
        if len(longer) > _LONGEST_ROW:
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
    if len(text) > _LONGEST_VALUE:
        return f"{text[: _LONGEST_VALUE - 1]}… ({size})"
    return text


# Of a long value. A password must be found before the text is cut.
_ENOUGH = 2_000

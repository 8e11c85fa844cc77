"""The changes of a database, row by row, and their text."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from itertools import zip_longest
from operator import attrgetter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, overload

from pytest_arena.errors import cut, is_secret, redact

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


def without_values(text: str) -> str:
    """Replace the values of secret columns in the text of a database's error.

    Replace all parameters if the statement names a secret column. Always replace the values of a
    failing row of PostgreSQL, because the text does not name their columns.
    """
    text = _PARAMETERS.sub(_hidden, text)
    text = _KEY.sub(_hidden, text)
    return _FAILING_ROW.sub("(***)", text)


def _hidden(match: re.Match[str]) -> str:
    is_hidden = any(map(is_secret, re.findall(r"\w+", match["names"])))
    return f"{match['head']}***" if is_hidden else match[0]


# The statement and the parameters in the text of SQLAlchemy's errors.
_PARAMETERS = re.compile(r"(?s)(?P<head>\[SQL: (?P<names>.*?)\]\n\[parameters: ).*?(?=\](?:\n|\Z))")
# Values in the details of PostgreSQL's errors.
_KEY = re.compile(r"(?P<head>(?<=Key )\((?P<names>[^()]*)\)=\().*(?=\))")
_FAILING_ROW = re.compile(r"(?s)(?<=Failing row contains )\(.*?\)(?=\.?(?:\n|\Z))")


@dataclass(frozen=True, slots=True, repr=False)
class Change:
    """An inserted, updated or deleted row: its values before and after.

    ``before`` and ``after`` have the values of the database's driver by the names of the columns.
    ``before`` is empty for an inserted row, and ``after`` for a deleted row. A row that was
    inserted and deleted again is no change. A value that was changed and changed back is no change.

    ``str(change)`` is one line and shows the values of secret columns as ``***``. The attributes
    have the real values.

    Example::

        [change] = arena.changes()["stock"]
        assert (change.before["amount"], change.after["amount"]) == (5, 4)
    """

    __module__ = "pytest_arena"

    table: str
    """The name of the table, with the schema unless it is the default: ``audit.log``."""
    kind: Kind
    before: Mapping[str, object]
    after: Mapping[str, object]
    key: tuple[str, ...] = ()
    """The columns of the primary key, () without one."""

    __hash__: ClassVar[None] = None  # type: ignore[assignment]  # its values may be lists

    def __str__(self) -> str:
        """Return the change as a line: ``+ orders id=7  total=12.50``."""
        return _as_line(self)

    def __repr__(self) -> str:  # pytest writes it into the report of a failed assertion
        return f"<Change: {self}>"

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that an update has changed. () for the other kinds."""
        if self.kind != "updated":
            return ()
        return tuple(name for name, new in self.after.items() if _differ(self.before[name], new))

    @property
    def row(self) -> Mapping[str, object]:
        """The new row, or the old row if it was deleted."""
        return self.after or self.before


def _differ(old: object, new: object) -> bool:
    return _content([old]) != _content([new])


class Changes:
    """The committed changes between two moments, row by row, in a fixed order.

    A removed row and an added row with the same primary key are one update. A row whose primary
    key was changed counts as one deleted and one inserted row. So does each changed row of a table
    without a primary key.

    Example::

        changes = arena.changes()
        assert changes.tables == ("orders", "stock")
        assert len(changes.inserted) == 1
        [stock] = changes["stock"].updated
        assert stock.columns == ("amount",)
    """

    __module__ = "pytest_arena"

    def __init__(
        self,
        changes: Iterable[Change],
        more: Mapping[str, int],
        check: Callable[[str], None],
    ) -> None:
        self._all = tuple(changes)
        self._more = dict(more)
        self._check = check  # raises an error for the name of an unknown table

    @classmethod
    def of(
        cls, tables: Iterable[TableRows], check: Callable[[str], None] = lambda _: None
    ) -> Changes:
        """Return the changes in these removed and added rows."""
        changes: list[Change] = []
        more = {}
        for rows in sorted(tables, key=attrgetter("table")):
            if not rows.more:
                changes += _paired(rows)
                continue
            # Only count these rows. If the limit has cut off one row of an update, the other row
            # would look like a deletion or an insertion.
            more[rows.table] = len(rows.removed) + len(rows.added) + rows.more
        return cls(changes, more, check)

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
        return Changes([each for each in self._all if each.kind == kind], {}, self._check)

    @property
    def tables(self) -> tuple[str, ...]:
        """The names of the changed tables, sorted."""
        return tuple(sorted({*self._more, *(change.table for change in self._all)}))

    @overload
    def __getitem__(self, which: str) -> Changes: ...

    @overload
    def __getitem__(self, which: int) -> Change: ...

    def __getitem__(self, which: str | int) -> Changes | Change:
        """Return the changes of one table by its name, or one change by its index.

        Raises:
            ConfigError: the database has no table of this name.
        """
        if isinstance(which, int):
            return self._all[which]
        if which not in self.tables:
            self._check(which)
        more = {name: number for name, number in self._more.items() if name == which}
        return Changes(self._of_table(which), more, self._check)

    def _of_table(self, table: str) -> list[Change]:
        return [change for change in self._all if change.table == table]

    def __iter__(self) -> Iterator[Change]:
        return iter(self._all)

    def __len__(self) -> int:
        """Return the number of rows, also of rows that are only counted."""
        return len(self._all) + sum(self._more.values())

    def __bool__(self) -> bool:
        return bool(self._all or self._more)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Changes):
            return False
        return self._all == other._all and self._more == other._more

    __hash__: ClassVar[None] = None  # type: ignore[assignment]  # its values may be lists

    def __repr__(self) -> str:
        return f"<Changes: {self.counted()}>"

    def __str__(self) -> str:
        """Return the number of rows for each table, and a line for each row."""
        return "\n".join([self.counted(), *(f"  {line}" for line in self.lines())])

    def counted(self) -> str:
        """Return the changed rows of each table: ``orders +1,200, stock ~1``, or ``nothing``."""
        texts = []
        for table in self.tables:
            text = table
            kinds = Counter(change.kind for change in self._of_table(table))
            for kind, sign in _SIGNS.items():
                number = kinds[kind]
                if number:
                    text += f" {sign}{number:,}"
            if table in self._more:
                text = f"{table} some {self._more[table]:,} rows"
            texts.append(text)
        return ", ".join(texts) or "nothing"

    def lines(self, most: int | None = None) -> list[str]:
        """Return a line for each row, at most ``most`` for each table, and count the others."""
        lines: list[str] = []
        for table in self.tables:
            rows = self._of_table(table)
            lines += map(str, rows[:most])
            if most is not None and len(rows) > most:
                lines.append(f"… {len(rows) - most:,} rows of {table} more")
        return lines


# A column of a table of a database, by the number of the database.
Column = tuple[int, str, str]


@dataclass(frozen=True, slots=True)
class Outcome:
    """The rows that have changed in each database since the level on top began.

    Two outcomes are compared by their contents: a lost update has the same numbers of rows. Keys do
    not count, because their order is chance.
    """

    changes: tuple[Changes, ...]

    @property
    def is_whole(self) -> bool:
        """Whether all rows were read."""
        return all(len(each) == len([*each]) for each in self.changes)

    def __bool__(self) -> bool:
        return any(self.changes)

    def __str__(self) -> str:
        return "; ".join(each.counted() for each in self.changes if each) or "nothing"

    def content(self, chance: set[Column]) -> Counter[object]:
        """Return the changed rows without keys, and without the columns of ``chance``."""
        return Counter(_comparable(number, change, chance) for number, change in self._rows())

    def beyond(self, others: Iterable[Outcome], chance: set[Column]) -> list[Change]:
        """Return the rows that none of the other outcomes has so often."""
        known: Counter[object] = Counter()
        for other in others:
            known |= other.content(chance)
        rows = []
        for number, change in self._rows():
            content = _comparable(number, change, chance)
            known[content] -= 1
            if known[content] < 0:
                rows.append(change)
        return rows

    def differing(self, other: Outcome) -> set[Column]:
        """Return the columns that differ from another outcome of the same request.

        Such are times, tokens, salts and keys that the app makes.
        """
        found: set[Column] = set()
        for (number, one), (_, two) in zip(self._rows(), other._rows(), strict=False):
            if (one.table, one.kind) == (two.table, two.kind):
                for old, new in ((one.before, two.before), (one.after, two.after)):
                    both = zip(
                        _columns_of(number, one, old), _columns_of(number, two, new), strict=False
                    )
                    found |= {first[0] for first, second in both if first != second}
        return found

    def _rows(self) -> Iterator[tuple[int, Change]]:
        for number, changes in enumerate(self.changes):
            for change in changes:
                yield number, change


def compared(change: Change, others: Iterable[Change], chance: set[Column]) -> str:
    """Return a line for a change: only the columns that differ from the first one of its kind."""
    hidden = {*change.key, *(name for _, table, name in chance if table == change.table)}
    for other in others:
        if (other.table, other.kind) == (change.table, change.kind):
            shown = {name for name in other.row if _differ(other.row[name], change.row[name])}
            lines = [_as_line(_only(each, shown - hidden)) for each in (change, other)]
            return ", not ".join(lines)
    return str(change)


def _only(change: Change, columns: set[str]) -> Change:
    kept = columns | {*change.key}
    before, after = (
        {name: side[name] for name in side if name in kept}
        for side in (change.before, change.after)
    )
    return replace(change, before=before, after=after)


def _comparable(number: int, change: Change, hidden: set[Column]) -> object:
    sides = []
    for side in (change.before, change.after):
        values = _columns_of(number, change, side)
        sides.append(tuple(each for each in values if each[0] not in hidden))
    return number, change.table, change.kind, *sides


def _columns_of(
    number: int, change: Change, row: Mapping[str, object]
) -> Iterator[tuple[Column, str]]:
    """Yield the values of a row with their columns, without its key."""
    for name, value in row.items():
        if name not in change.key:
            yield (number, change.table, name), repr(value)


def _paired(rows: TableRows) -> list[Change]:
    """Pair removed and added rows of the same key. Without a key, pair each row with None."""
    places = [rows.columns.index(name) for name in rows.key or rows.columns]
    removed = _keyed(rows.removed, places)
    added = _keyed(rows.added, places)
    changes = []
    for key in {**removed, **added}:
        # A key may have several rows, because SQLite allows NULL in a primary key.
        for old, new in zip_longest(removed[key], added[key]):
            kind: Kind = "updated"
            if old is None:
                kind = "inserted"
            elif new is None:
                kind = "deleted"
            elif not rows.key:
                continue  # two equal rows
            before = _named(rows.columns, old)
            changes.append(Change(rows.table, kind, before, _named(rows.columns, new), rows.key))
    return sorted(changes, key=_order)


Row = tuple[object, ...]
# A value that identifies equal rows, and the row.
_Identified = tuple["Hashable", Row]


def _keyed(rows: Iterable[Row], places: list[int]) -> defaultdict[Hashable, list[Row]]:
    """Return the rows by key. ``places`` are the indexes of the key's columns."""
    keyed: defaultdict[Hashable, list[Row]] = defaultdict(list)
    for row in rows:
        # Use the texts of the values, because an array has no hash.
        keyed[_content([row[place] for place in places])].append(row)
    return keyed


def _content(row: Iterable[object]) -> Hashable:
    """Return an object that is equal for two rows with equal values and types."""
    return tuple((type(value), repr(value)) for value in row)


def _named(columns: tuple[str, ...], row: Row | None) -> Mapping[str, object]:
    """Return the values of a row by the names of the columns, no values without a row."""
    return MappingProxyType(dict(zip(columns, row, strict=True) if row is not None else ()))


def _order(change: Change) -> tuple[int, list[tuple[bool, Any]]]:
    """Return a key that sorts changes by kind, then by the row's key. Numbers sort as numbers."""
    kind = list(_SIGNS).index(change.kind)
    values = [change.row[name] for name in change.key or change.row]
    texts = [each if isinstance(each, int) else str(each) for each in values]
    return kind, [(isinstance(each, str), each) for each in texts]


def net(
    removed: Sequence[_Identified], added: Sequence[_Identified]
) -> tuple[list[Row], list[Row]]:
    """Return the removed and the added rows without the rows that are in both.

    Of a row that is twice in one list and once in the other, one row is returned.
    """
    before = Counter(identity for identity, _ in removed)
    after = Counter(identity for identity, _ in added)
    rows = {**dict(removed), **dict(added)}
    gone = [rows[identity] for identity in (before - after).elements()]
    return gone, [rows[identity] for identity in (after - before).elements()]


def limited(rows: TableRows, limit: int | None) -> TableRows:
    """Return the rows up to a limit. Of more rows, return only the number."""
    number = len(rows.removed) + len(rows.added)
    if limit is None or number <= limit:
        return rows
    return replace(rows, removed=(), added=(), more=rows.more + number)


def _as_line(change: Change) -> str:
    """Return the sign, the table, the key, and the changed columns or the row."""
    line = f"{_SIGNS[change.kind]} {change.table}"
    for name in change.key:
        line += f" {name}={shown_in(change.row, name)}"
    rest = _as_row(change)
    if change.kind == "updated":
        steps = []
        for name in change.columns:
            steps.append(f"{name} {shown_in(change.before, name)} → {shown_in(change.after, name)}")
        rest = ", ".join(steps) or "written again with the same values"
    return cut(f"{line}  {rest}".rstrip(), _LONGEST_ROW)


def _as_row(change: Change) -> str:
    """Return the values of the row without its key, then the columns with NULL."""
    parts = []
    empty = []
    for name, value in change.row.items():
        if name in change.key:
            continue
        if value is None:
            empty.append(name)
        else:
            parts.append(f"{name}={shown_in(change.row, name)}")
    if empty:
        parts.append(f"NULL: {', '.join(empty)}")
    return " ".join(parts)


def shown_in(row: Mapping[str, object], column: str) -> str:
    """Return the text of a column's value for a report, ``***`` for a secret column."""
    value = row[column]
    is_hidden = tuple(row) == _RAW or is_secret(column)
    return "***" if value is not None and is_hidden else shown(value)


# If the columns of a table have changed, a row has only this column: a text with possible secrets.
_RAW = ("row",)


def shown(value: object) -> str:
    """Return a short text of a value in one line, with quotation marks around a string."""
    if value is None:
        return "NULL"
    if isinstance(value, str | bytes):
        text = repr(value[:_LONGEST_READ])
    else:
        text = str(value)[:_LONGEST_READ]
    return cut(redact(text), _LONGEST_VALUE)


# The number of characters in which `redact` searches for passwords. It is much larger than the
# number of shown characters, because `redact` cannot find a password that is cut off.
_LONGEST_READ = 2_000

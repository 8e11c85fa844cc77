"""What do statements do while somebody watches: which tables are read, how many rows written?"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = [
    "Doings",
    "Part",
    "note_commit",
    "note_doubt",
    "note_opened",
    "note_statement",
    "noted_write",
    "watch_statements",
]

# The table, the rows that one statement wrote to it (0 where that is not known), and whether these
# were inserted by it.
Part = tuple[str, int, bool]

_MOST_VALUES = 50  # statements of which the values are kept


class _Connection(Protocol):
    written: Any


@dataclass(slots=True, eq=False)
class Doings:
    """What has been done to the databases in one stretch of time, by the statements of engines."""

    statements: set[str] = field(default_factory=set)  # that were run: what they read is in them
    written: list[Part] = field(default_factory=list)  # and committed
    executed: int = 0  # rows that statements wrote, committed or not
    values: list[Any] = field(default_factory=list)  # parameters of statements that wrote
    is_unsure: bool = False  # whether it may be that other rows were written, too, or not these
    opened: list[tuple[_Connection, object]] = field(default_factory=list)  # and what they write
    pending: dict[int, tuple[Part, ...]] = field(default_factory=dict)
    """What stood uncommitted when this stretch began, by connections."""
    shared: set[int] = field(default_factory=set)  # those of them that were used in it

    apart: Doings | None = None  # what the app has done meanwhile, by itself

    def of_the_app(self) -> Doings:
        """Return where it belongs what the app does by itself, as it starts and ends."""
        if self.apart is None:
            self.apart = Doings()
        return self.apart

    def see_pending(self, before: Iterable[Doings]) -> None:
        """Begin with what connections of others have written, and not committed yet."""
        for one in before:
            self.pending |= {id(info): tuple(info.written.parts) for info, _ in one.still_open()}

    def still_open(self) -> list[tuple[_Connection, object]]:
        """Return those that have not been ended."""
        return [(info, written) for info, written in self.opened if info.written is written]

    def joined(self) -> list[Part]:
        """Return what of the pending stood in the transactions in which this stretch took part."""
        return [part for one in sorted(self.shared) for part in self.pending[one]]


_finders: list[Callable[[], Doings | None]] = []


def watch_statements(find: Callable[[], Doings | None]) -> Callable[[], None]:
    """Have each statement noted in what ``find`` returns then. Returns what ends that.

    Cost: 0.2 µs a statement, and what ``find`` takes; 0.05 µs where nobody watches.
    """
    _finders.append(find)

    def end() -> None:
        if find in _finders:
            _finders.remove(find)

    return end


def _doings() -> Doings | None:
    return _finders[-1]() if _finders else None


def note_statement(statement: str, context: Any, info_in: Callable[[Any], object]) -> None:
    """A statement of an engine has run; ``info_in`` says what is known of its connection."""
    if _finders and (doings := _finders[-1]()) is not None:
        doings.statements.add(statement)
        if doings.pending and (place := id(info_in(context))) in doings.pending:
            doings.shared.add(place)


def note_opened(info: _Connection) -> None:
    """A transaction writes for the first time."""
    if (doings := _doings()) is not None:
        doings.opened = [*doings.still_open(), (info, info.written)]


def noted_write(context: Any, statement: str, parameters: Any, part: tuple[str, int]) -> Part:
    """A statement has written rows to a table: return what is known of that."""
    table, rows = part
    is_insert = context.isinsert or statement.lstrip()[:6].upper() == "INSERT"
    if (doings := _doings()) is not None:
        rows = rows or _rows_inserted(context)
        doings.executed += rows or 1
        if len(doings.values) < _MOST_VALUES:
            doings.values.append(parameters)
    return table, rows, is_insert


def note_commit(parts: Iterable[Part]) -> None:
    """What these statements wrote is committed."""
    if (doings := _doings()) is not None:
        doings.written.extend(parts)


def note_doubt() -> None:
    """Something has happened that statements do not tell: the database has to be asked."""
    if (doings := _doings()) is not None:
        doings.is_unsure = True


_NOBODY_COUNTED, _COUNTED = 0, "_arena_counted"


def _rows_inserted(context: Any) -> int:
    """Say how many rows an insert of SQLAlchemy's has made that returns some: no driver counts.

    0 where nobody can tell: an insert from a query, one with a word on conflicts, a later batch.
    """
    statement = context.compiled.statement if context.isinsert and context.compiled else None
    is_told = statement is None or (
        getattr(statement, "_post_values_clause", None)
        or getattr(statement, "select", None) is not None
        or getattr(statement, "_multi_values", None)
        or hasattr(context, _COUNTED)
    )
    if is_told:
        return _NOBODY_COUNTED
    setattr(context, _COUNTED, True)
    return len(context.compiled_parameters)

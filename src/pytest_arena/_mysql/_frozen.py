"""Databases on the server that do not change, and what the live database has changed since."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from pytest_arena._mysql._content import content, read_rows
from pytest_arena._mysql.journal._key_journal import SchemaChanged
from pytest_arena._product._read_rows import ReadContent

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_arena._mysql._server_registry import MySQLRegistry
    from pytest_arena._mysql.journal._key_journal import KeyJournal

_NO_TABLES: Mapping[str, str] = MappingProxyType({})


class FrozenDatabase:
    """A database on the server that does not change. Without a name it is empty."""

    def __init__(
        self, own: MySQLRegistry, name: str | None, *, is_ours: bool = False
    ) -> None:
        self._own = own
        self.name = name
        self._is_ours = is_ours  # this isolation has made it
        self._content: dict[str, str] | None = None

    def copy(self) -> str:
        """Return the name of a new copy.

        Raises:
            IsolationError: no copy can be made.
        """
        return self._own.create("live", template=self.name)

    def rows(
        self,
        tables: Mapping[str, str] = _NO_TABLES,
        *,
        unlike: ReadContent | None = None,
    ) -> ReadContent:
        """Return the digests of its tables, or with ``unlike`` the rows of those that differ.

        ``tables`` are read in the place of its tables of these names.

        Raises:
            MySQLFailure: the server does not answer.
        """
        name = self.name
        if name is None:
            return ReadContent()
        return self._own.control.call(
            lambda control: read_rows(
                control, name, tables, unlike=unlike, only_digests=unlike is None
            )
        )

    def content(self) -> dict[str, str] | None:
        """Return digests of its content, None if it is empty.

        Raises:
            MySQLFailure: the server does not answer.
        """
        name = self.name
        if self._content is None and name is not None:
            self._content = self._own.control.call(
                lambda control: content(control, name)
            )
        return self._content

    def drop(self) -> None:
        """Drop the database if this isolation has made it."""
        if self._is_ours and self.name:
            self._own.drop_later(self.name)


class NoJournal:
    """The levels of a live database without a journal. A changed level is replaced by a copy."""

    isolation = "clone"

    def __init__(self) -> None:
        self.depth = 0

    def enter(self, *, is_used: bool) -> None:
        """Open a level above an unchanged one.

        Raises:
            SchemaChanged: the level below may have changed.
        """
        if is_used:
            raise SchemaChanged
        self.depth += 1

    def rewind(self) -> bool:
        """Raise SchemaChanged: the level may have changed."""
        raise SchemaChanged

    def forget(self) -> None:
        """Drop the top level."""
        self.depth -= 1

    def reinstall(self, database: str) -> None:
        """Go on in another copy."""

    def start_tables(self, number: int) -> Mapping[str, str]:
        """Return nothing: each level begins with the rows of the frozen database."""
        del number
        return _NO_TABLES


@dataclass(slots=True, eq=False)
class LevelBase:
    """A frozen database that the live one was a copy of, and the journal of changes since then.

    ``side`` is the name of the journal's database.
    """

    frozen: FrozenDatabase
    journal: KeyJournal | NoJournal
    side: str = ""

    def rows(self, number: int, *, unlike: ReadContent | None = None) -> ReadContent:
        """Return the rows or the digests at the start of a level of the journal."""
        return self.frozen.rows(self.journal.start_tables(number), unlike=unlike)


@dataclass(slots=True, eq=False)
class MySQLLevel:
    """A level: its base, and its number in the base's journal.

    ``start`` is the same of the content with which it began. They differ after ``replace``.
    """

    base: LevelBase
    number: int
    start: tuple[LevelBase, int]
    is_written: bool = False  # before another level was entered above it
    is_spoiled: bool = False  # only a copy restores it

    def note_written(self) -> None:
        """Note that it may have changed."""
        self.is_written = True

    def spoil(self) -> None:
        """Note that the live database has neither its start nor its changes."""
        self.is_spoiled = True
        self.is_written = True

    def begin_with(self, base: LevelBase) -> None:
        """Note that its content was replaced."""
        self.start = (base, 0)
        self.is_written = True

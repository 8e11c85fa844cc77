"""Frozen databases on the server, and the levels of changes since then."""

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
        self, registry: MySQLRegistry, name: str | None, *, is_ours: bool = False
    ) -> None:
        self._registry = registry
        self.name = name
        self._is_ours = is_ours  # the isolation has created the database
        self._content: dict[str, str] | None = None

    def copy(self) -> str:
        """Return the name of a new copy.

        Raises:
            IsolationError: no copy can be made.
        """
        return self._registry.create("live", template=self.name)

    def rows(
        self,
        tables: Mapping[str, str] = _NO_TABLES,
        *,
        unlike: ReadContent | None = None,
    ) -> ReadContent:
        """Return the digests of its tables, or with ``unlike`` the rows of tables that differ.

        ``tables`` names other tables to read in place of the database's tables.

        Raises:
            MySQLFailure: the server does not answer.
        """
        name = self.name
        if name is None:
            return ReadContent()
        return self._registry.control.call(
            lambda control: read_rows(
                control, name, tables, unlike=unlike, only_digests=unlike is None
            )
        )

    def content(self) -> dict[str, str] | None:
        """Return digests of its content, None without a database.

        Raises:
            MySQLFailure: the server does not answer.
        """
        name = self.name
        if self._content is None and name is not None:
            self._content = self._registry.control.call(
                lambda control: content(control, name)
            )
        return self._content

    def drop(self) -> None:
        """Drop the database if the isolation has created it."""
        if self._is_ours and self.name:
            self._registry.drop_later(self.name)


class NoJournal:
    """The levels of a live database without a journal. A copy restores a changed level."""

    isolation = "clone"

    def __init__(self) -> None:
        self.depth = 0

    def enter(self, *, is_used: bool) -> None:
        """Open a level above an unchanged level.

        Raises:
            SchemaChanged: the level below may have changed.
        """
        if is_used:
            raise SchemaChanged
        self.depth += 1

    def rewind(self) -> bool:
        """Raise SchemaChanged: the level may have changed."""
        raise SchemaChanged

    def cut_to(self, depth: int) -> None:
        """Close the levels above ``depth``."""
        self.depth = depth

    def reinstall(self, database: str) -> None:
        """Do nothing: another copy needs no journal."""

    def start_tables(self, number: int) -> Mapping[str, str]:
        """Return no tables: each level begins with the rows of the frozen database."""
        del number
        return _NO_TABLES


@dataclass(slots=True, eq=False)
class LevelBase:
    """A frozen database equal to an earlier state of the live database, and the journal since then.

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

    ``start`` is the base and the number of its first content. They differ after ``replace``.
    """

    base: LevelBase
    number: int
    start: tuple[LevelBase, int]
    is_written: bool = False  # it had changed before a level above it was entered
    is_spoiled: bool = False  # only a copy restores it

    def note_written(self) -> None:
        """Note that the level may have changed."""
        self.is_written = True

    def spoil(self) -> None:
        """Note that only a copy can restore the level."""
        self.is_spoiled = True
        self.is_written = True

    def begin_with(self, base: LevelBase) -> None:
        """Note that other content replaced the level's content."""
        self.start = (base, 0)
        self.is_written = True

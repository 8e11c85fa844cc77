"""Writes the statements that read and restore rows whose keys are in a journal."""

# ruff: noqa: S608 - names are written by identifier() alone

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_arena._mysql._control import identifier
from pytest_arena._mysql.journal._row_triggers import CASCADED, MAY_CASCADE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pytest_arena._mysql.journal._schema_facts import AppTable, CascadingKey


def in_transaction(statements: Iterable[str]) -> str:
    """Return a text that makes the server execute statements in one transaction and round trip.

    Under REPEATABLE READ, statements do not see entries that are newer than the first read.
    """
    isolation = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"
    return ";\n".join([isolation, "START TRANSACTION", *statements, "COMMIT"])


@dataclass(frozen=True, slots=True)
class JournaledTable:
    """A table of the app, and its journal. The names of the tables are quoted."""

    table: AppTable
    live: str
    journal: str

    def _keys(self) -> str:
        """Write the query of the journaled keys."""
        # DISTINCT, because each change of a row records its key.
        names = ", ".join(f"k{n}" for n, _ in enumerate(self.table.key))
        return (
            f"SELECT DISTINCT {names} FROM {self.journal} WHERE t = {self.table.number}"
        )

    def _is_key_of(self, source: str, keys: str) -> str:
        """Write the condition that a row has a journaled key."""
        terms = [
            f"{source}.{identifier(column.name)} = {keys}.k{n}"
            for n, column in enumerate(self.table.key)
        ]
        return " AND ".join(terms)

    def _journaled_rows(self, source: str) -> str:
        """Write the FROM clause for a table's rows that have journaled keys."""
        # STRAIGHT_JOIN reads the journal first. The server does not know that it is short.
        return (
            f"FROM ({self._keys()}) j "
            f"STRAIGHT_JOIN {source} ON {self._is_key_of(source, 'j')}"
        )

    def select(self, source: str, *, is_whole: bool) -> str:
        """Write the query of the rows in a table: all rows, or those with journaled keys."""
        if is_whole:
            return f"SELECT {self.table.write_columns()} FROM {source}"
        columns = self.table.write_columns(source)
        return f"SELECT {columns} {self._journaled_rows(source)}"

    def restore(self, base: str, *, is_whole: bool) -> tuple[str, ...]:
        """Return the statements that replace rows by those of ``base``."""
        delete = f"DELETE FROM {self.live}"
        if not is_whole:
            # If a key has several entries, the first one deletes the row.
            delete = (
                f"DELETE {self.live} FROM {self.journal} j STRAIGHT_JOIN {self.live} "
                f"ON {self._is_key_of(self.live, 'j')} WHERE j.t = {self.table.number}"
            )
        insert = (
            f"INSERT INTO {self.live} ({self.table.write_columns()}) "
            f"{self.select(base, is_whole=is_whole)}"
        )
        return delete, insert

    def record_cascaded(
        self, child: JournaledTable, key: CascadingKey, sources: tuple[str, str]
    ) -> str:
        """Write the statement that records the rows of a child that a cascade may have changed.

        ``sources`` have the rows of this table and of the child, at the start of the level or now.
        If a row of the child has got another parent, an update has made an entry for it. If a
        cascade has changed the row's key, both sources find the row.
        """
        parents, children = sources
        join = f"STRAIGHT_JOIN {parents} p ON {self._is_key_of('p', 'j')}"
        place = {column.name: f"j.k{n}" for n, column in enumerate(self.table.key)}
        referenced = [place.get(column, "") for _, column in key.columns]
        if all(referenced):
            # The parent's row is not needed. It may not exist, because a child may be an orphan.
            join = ""
        else:
            referenced = [f"p.{identifier(column)}" for _, column in key.columns]
        refers = " AND ".join(
            f"c.{identifier(column)} = {value}"
            for (column, _), value in zip(key.columns, referenced, strict=True)
        )
        names = ", ".join(f"c.{identifier(column.name)}" for column in child.table.key)
        number = child.table.number
        return f"""
            INSERT INTO {child.journal}
            SELECT DISTINCT {number}, {CASCADED}, {names}
            FROM ({self._keys()} AND kind >= {MAY_CASCADE}) j {join}
            STRAIGHT_JOIN {children} c ON {refers}
            WHERE NOT EXISTS (
                SELECT 1 FROM {child.journal} x
                WHERE x.t = {number} AND x.kind = {CASCADED} AND {child._is_key_of("c", "x")})"""

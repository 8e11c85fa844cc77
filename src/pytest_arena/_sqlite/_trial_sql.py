"""A scratch database with two connections that stay open, by which a way is tried out."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pytest_arena._sqlite._restore import leave_wal_alone
from pytest_arena._sqlite._sql import OwnConnection

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Scratch", "States"]

States = list[list[Any]]  # what each connection sees


class Scratch:
    """Some pages of tables and an index; one connection writes, the other one only looks."""

    def __init__(self, file: Path, *, has_wal: bool) -> None:
        self._hands = [self._connect(file) for _ in range(2)]
        self._changes = 0
        mode = "wal" if has_wal else "delete"
        self._hands[0].execute(f"PRAGMA journal_mode = {mode}").close()
        self._hands[0].executescript(_CONTENT)

    def _connect(self, file: Path) -> sqlite3.Connection:
        hand = OwnConnection(file, isolation_level=None, timeout=0)
        hand.execute("PRAGMA synchronous = OFF").close()
        leave_wal_alone(hand)
        return hand

    def close(self) -> None:
        """Close both connections."""
        for hand in self._hands:
            hand.close()

    def change(self) -> None:
        """Change rows and the schema, in as many commits each time, and never in the same way."""
        self._changes += 1
        self._hands[0].executescript(_CHANGE.format(self._changes))

    def states(self) -> States:
        """Return what each connection sees."""
        return [[_look(hand, query) for query in (_SCHEMA, _ROWS)] for hand in self._hands]

    def is_sound(self) -> bool:
        """Whether SQLite finds no fault in the file."""
        return self._hands[1].execute("PRAGMA integrity_check").fetchall() == [("ok",)]

    @contextmanager
    def reader(self) -> Iterator[None]:
        """One connection is in the middle of reading."""
        self._hands[1].execute("BEGIN")
        self._hands[1].execute(_ROWS).fetchall()
        try:
            yield
        finally:
            self._hands[1].execute("COMMIT")


def _look(hand: sqlite3.Connection, query: str) -> object:
    cursor = hand.execute(query)
    # A stale schema may have as many columns: their names tell.
    return [column[0] for column in cursor.description], cursor.fetchall()


_CONTENT = """
BEGIN;
CREATE TABLE a (id INTEGER PRIMARY KEY, text);
CREATE INDEX by_text ON a (text);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20)
INSERT INTO a (text) SELECT hex(zeroblob(600)) || i FROM n;
COMMIT;
"""
_CHANGE = """
INSERT INTO a (text) VALUES ({0});
UPDATE a SET text = 'x{0}' WHERE id = 3;
ALTER TABLE a ADD COLUMN c{0};
CREATE TABLE t{0} (a);
"""
_SCHEMA = "SELECT sql FROM sqlite_master"
_ROWS = "SELECT * FROM a ORDER BY id"

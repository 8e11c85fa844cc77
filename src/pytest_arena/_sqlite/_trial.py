"""Does a way do what it is meant to do, with this SQLite and on this file system?"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_arena._sqlite import _sql as sql
from pytest_arena._sqlite._ways import Backup, LiveFile, Unfit, is_supported

if TYPE_CHECKING:
    from pytest_arena._sqlite._ways import Picture, Way

__all__ = ["works"]

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
_ROWS = "SELECT * FROM a ORDER BY id"
_QUERIES = ("SELECT sql FROM sqlite_master", _ROWS)


_tried: dict[tuple[type[Way], Path], bool] = {}


def works(way: type[Way], folder: Path) -> bool | None:
    """Try a way out in a scratch file, once for each folder. Costs some milliseconds.

    Fast ways rest on what SQLite's files hold, which is documented, and on when its connections
    look at them again, which is not. So it is looked at, before it is relied on. None where
    there is no room for that now: it is tried again the next time.
    """
    if (way, folder) not in _tried:
        try:
            with ExitStack() as stack:
                scratch = tempfile.TemporaryDirectory(dir=folder, prefix="trial-")
                file = Path(stack.enter_context(scratch)) / "trial.db"
                _tried[way, folder] = _Trial(way, file, stack).passes()
        except Exception as error:  # noqa: BLE001 - whatever it is, the way is not for this system
            if sql.is_full(error):
                return None
            _tried[way, folder] = False
    return _tried[way, folder]


class _Trial:
    """Some pages of tables and an index; one connection writes, the other one only looks."""

    def __init__(self, way: type[Way], file: Path, stack: ExitStack) -> None:
        self._writer, self._reader = (
            stack.enter_context(closing(sql.OwnConnection(file, isolation_level=None, timeout=0)))
            for _ in range(2)
        )
        for hand in (self._writer, self._reader):
            hand.execute("PRAGMA synchronous = OFF")
            sql.leave_wal_alone(hand)
        self._writer.execute(f"PRAGMA journal_mode = {'wal' if way.has_wal else 'delete'}").close()
        self._writer.executescript(_CONTENT)
        self._changes = 0
        if not is_supported():
            raise Unfit
        self._live = stack.enter_context(closing(LiveFile(file)))
        self._way = way(self._live)

    def passes(self) -> bool:
        """Whether it goes back to where it was, for connections that look and that have slept."""
        before, parent = self._states(), Backup(self._live).take()
        self._way.settle(parent, self._live.control.data_version())
        self._change()
        middle, upper = self._states(), self._way.take()
        return (
            self._goes_back(upper, middle)
            and self._waits_for_readers(upper)
            and self._goes_back(parent, before)
            and self._reader.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        )

    def _goes_back(self, picture: Picture, states: list[Any]) -> bool:
        """Go back three times. One connection sleeps through each, and looks after each change.

        What a way puts back wrongly is seen where a number comes again that stood for something
        else: in the third turn, at the latest.
        """
        for _ in range(3):
            self._change()
            first, second = self._states()
            if first != second or first == states[0]:
                return False
            self._restore(picture)
        return self._states() == states

    def _waits_for_readers(self, picture: Picture) -> bool:
        self._change()
        with self._reader.reading():
            try:
                self._restore(picture)
            except (sql.Busy, Unfit):
                return True
        return False

    def _restore(self, picture: Picture) -> None:
        self._way.restore(picture, self._live.control.data_version())

    def _change(self) -> None:
        """Change rows and the schema, in as many commits each time, and never in the same way."""
        self._changes += 1
        self._writer.executescript(_CHANGE.format(self._changes))

    def _states(self) -> list[Any]:
        """Return what each connection sees."""
        return [[_look(hand, q) for q in _QUERIES] for hand in (self._writer, self._reader)]


def _look(hand: sql.OwnConnection, query: str) -> object:
    cursor = hand.execute(query)
    # A stale schema may have as many columns: their names tell.
    return [column[0] for column in cursor.description], cursor.fetchall()

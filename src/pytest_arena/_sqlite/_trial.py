"""Tries a fast restore method in a scratch file before its first use.

The methods rely on the file format, which is documented, and on the time at which SQLite's
connections read it again, which is not.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_arena._sqlite import _sql as sql
from pytest_arena._sqlite._live_file import LiveFile, is_supported
from pytest_arena._sqlite._restore import Backup, Inapplicable

if TYPE_CHECKING:
    from pytest_arena._sqlite._restore import FileSnapshot, RestoreMethod

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
_QUERIES = ("SELECT sql FROM sqlite_master", "SELECT * FROM a ORDER BY id")

_results: dict[tuple[type[RestoreMethod], Path], bool] = {}


def works(method: type[RestoreMethod], folder: Path) -> bool | None:
    """Return whether a method passes its trial, made once for each folder. Costs 5 ms.

    None if there is no room for a trial. The next call tries again.
    """
    result = _results.get((method, folder))
    if result is not None:
        return result
    try:
        with ExitStack() as stack:
            scratch = tempfile.TemporaryDirectory(dir=folder, prefix="trial-")
            file = Path(stack.enter_context(scratch)) / "trial.db"
            result = _Trial(method, file, stack).passes()
    except Exception as error:  # noqa: BLE001 - any error means that the method does not work here
        if sql.is_full(error):
            return None
        result = False
    _results[method, folder] = result
    return result


class _Trial:
    """Tables and an index in a file, a connection that writes, and one that only reads."""

    def __init__(
        self, method: type[RestoreMethod], file: Path, stack: ExitStack
    ) -> None:
        self._writer = stack.enter_context(closing(_connect(file)))
        self._reader = stack.enter_context(closing(_connect(file)))
        mode = "wal" if method.has_wal else "delete"
        self._writer.execute(f"PRAGMA journal_mode = {mode}").close()
        self._writer.executescript(_CONTENT)
        self._changes = 0
        if not is_supported():
            raise Inapplicable
        self._live = stack.enter_context(closing(LiveFile(file)))
        self._method = method(self._live)

    def passes(self) -> bool:
        """Return whether both connections read the snapshot's content after each restore."""
        before = self._states()
        lower = Backup(self._live).take()
        self._method.settle(lower, self._live.control.data_version())
        self._change()
        middle = self._states()
        upper = self._method.take()
        return (
            self._restores(upper, middle)
            and self._refuses_under_reader(upper)
            and self._restores(lower, before)
            and self._reader.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        )

    def _restores(self, snapshot: FileSnapshot, states: list[object]) -> bool:
        """Change and restore three times. The reader is idle during each restore.

        A number in the header that a restore puts back wrongly has an old value again in the third
        round at the latest.
        """
        for _ in range(3):
            self._change()
            written, read = self._states()
            if written != read or written == states[0]:
                return False
            self._restore(snapshot)
        return self._states() == states

    def _refuses_under_reader(self, snapshot: FileSnapshot) -> bool:
        self._change()
        with self._reader.reading():
            try:
                self._restore(snapshot)
            except (sql.Busy, Inapplicable):
                return True
        return False

    def _restore(self, snapshot: FileSnapshot) -> None:
        self._method.restore(snapshot, self._live.control.data_version())

    def _change(self) -> None:
        """Change rows and the schema, each time in another way."""
        self._changes += 1
        self._writer.executescript(_CHANGE.format(self._changes))

    def _states(self) -> list[object]:
        """Return what each connection reads."""
        return [_content(self._writer), _content(self._reader)]


def _connect(file: Path) -> sql.OwnConnection:
    connection = sql.OwnConnection(file, isolation_level=None, timeout=0)
    connection.execute("PRAGMA synchronous = OFF")
    sql.leave_wal_alone(connection)
    return connection


def _content(connection: sql.OwnConnection) -> object:
    content = []
    for query in _QUERIES:
        cursor = connection.execute(query)
        # A stale schema may have as many columns, but under other names.
        names = [column[0] for column in cursor.description]
        content.append((names, cursor.fetchall()))
    return content

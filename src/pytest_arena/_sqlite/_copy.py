"""The isolation ``copy``: one file that keeps its path, and is restored by SQLite's backup."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pytest_arena import _process
from pytest_arena._product import Held, nothing
from pytest_arena._sqlite import _messages as messages
from pytest_arena._sqlite import _sql as sql
from pytest_arena._sqlite._content import changed_rows, digests
from pytest_arena.errors import IsolationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_arena._values import TableRows

_Answer = TypeVar("_Answer")
_PATIENCE = 0.2  # seconds, longer than a commit takes
_STEP = 0.002
# Reading a file of this size takes 0.3 ms, so pytest-arena reads it before each request.
_SMALL = 1024 * 1024
_UNKNOWN = -1  # a data version that no file has


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """The content of a database at one time, as the bytes of a file."""

    content: bytes


class Copy:
    """The isolation for SQLite: connections, engines and other processes stay connected.

    Each level keeps a snapshot of the content at its start. Levels without a write between them
    share a snapshot. ``leave`` restores it in place by SQLite's online backup.

    Cost of enter and leave: 50 µs without a write to the file, otherwise 3 ms for each MB.
    """

    name = "copy"

    def __init__(self, live: Path, base: Path | None) -> None:
        self.live = live
        # The number of times that connections to the file became stale.
        self.generation = 0
        self._check_after_leave: Callable[[], None] = nothing
        # The file has the content of `_current` at the data version `_version`.
        self._current = Snapshot(b"")
        self._version = _UNKNOWN
        # A snapshot that was not restored, because the file was lost. The next `enter` restores it.
        self._failed_restore: Snapshot | None = None
        # For each open level, the snapshot that `leave` restores.
        self._levels: list[Snapshot] = []
        # For each open level, the content that its changes are compared with, and first the content
        # before all levels. `replace` changes an item. After a signal between two steps of `enter`
        # or `leave`, the list may have an item too many.
        self._starts: list[Snapshot] = []
        with self._isolation_errors():
            if base is not None:
                shutil.copyfile(base, live)
            self._open()
            self._starts = [self._now()]

    def _open(self) -> None:
        """Open pytest-arena's connection to the file at the path."""
        self._control = sql.open_own(self.live)
        if self._control.execute("PRAGMA journal_mode").fetchone() != ("wal",):
            sql.be_as_in_memory(self._control)
        self._version = _UNKNOWN
        self._inode = sql.inode(self.live)

    @property
    def depth(self) -> int:
        """The number of open levels."""
        return len(self._levels)

    def call_after_leave(self, check: Callable[[], None]) -> None:
        """Call a function after each level is left. If it raises, the level stays."""
        self._check_after_leave = check

    # The present content.

    def _data_version(self) -> int:
        """Return a number that changes when another connection, of any process, commits.

        Costs 2-5 µs. The restores of the control connection do not change it:
        https://sqlite.org/pragma.html#pragma_data_version
        """
        version: int = self._control.execute("PRAGMA data_version").fetchone()[0]
        return version

    def _is_at(self, snapshot: Snapshot) -> bool:
        """Return whether the file has this content, apart from open transactions."""
        return self._current is snapshot and self._version == self._data_version()

    def _is_lost(self) -> bool:
        """Return whether open connections have another file than the path. Costs 2 µs."""
        return sql.inode(self.live) != self._inode

    def _check_place(self) -> None:
        if self._is_lost():
            raise FileNotFoundError("the file was deleted or replaced")

    def _now(self) -> Snapshot:
        """Return a snapshot of the content: ``_current`` if no connection has committed."""
        self._check_place()
        # The version is read before the content. A commit between both steps costs an unnecessary
        # snapshot. In the other order the commit would be missed.
        version = self._data_version()
        if self._version != version:
            self._current = Snapshot(sql.read_content(self._control))
            self._version = version
        return self._current

    # Levels.

    def enter(self) -> None:
        """Open a level above the current content."""
        with self._isolation_errors():
            if self._failed_restore is not None:
                self._put_in_place(self._failed_restore)
            elif self._is_lost():
                # A wider fixture has created the file again. The levels above begin with that file.
                self._control.close()
                self._open()
                self.generation += 1
            snapshot = self._now()
        self._starts[self.depth + 1 :] = [snapshot]
        self._levels.append(snapshot)

    def leave(self) -> bool:
        """Restore the content from the matching ``enter``. Return whether it had changed."""
        with self._isolation_errors():
            is_changed = self._restore(self._levels[-1])
        self._check_after_leave()
        self.forget()
        return is_changed

    def _restore(self, snapshot: Snapshot) -> bool:
        self._check_place()
        # The lock proves that no transaction of any process has uncommitted writes. Such writes do
        # not change the version, and would be committed into the next test.
        with sql.writing(self._control):
            if self._is_at(snapshot):
                return False
            version = self._data_version()
        self._version = _UNKNOWN  # until the restore has ended
        try:
            self._write(snapshot)
        except sqlite3.OperationalError as error:
            # A backup cannot write to a file that has a log and another page size:
            # https://sqlite.org/c3ref/backup_finish.html
            if error.sqlite_errorcode != sqlite3.SQLITE_READONLY:
                raise
            self._put_in_place(snapshot)
            return True
        self._current = snapshot
        # The restore has not changed the version. A commit after the lock has.
        self._version = version
        return True

    def _write(self, snapshot: Snapshot) -> None:
        """Replace the content of the file, in place, for every open connection."""

        def give_up(status: int, _remaining: int, _total: int) -> None:
            # Connection.backup() would retry for ever.
            if status in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
                raise Held("database is locked")

        with closing(sql.open_own()) as memory:
            if snapshot.content:
                memory.deserialize(snapshot.content)
            memory.backup(self._control, progress=give_up, sleep=0)
        # Otherwise the next test copies the log into the file.
        self._control.execute("PRAGMA wal_checkpoint").fetchone()

    def _put_in_place(self, snapshot: Snapshot) -> None:
        """Replace the file by a new one with a snapshot's content.

        Connections that the gate does not know, of other processes or of ``sqlite3`` itself, keep
        using the old, unlinked file.
        """
        self._failed_restore = snapshot
        with sql.whole_or_none(Path(f"{self.live}.new")) as new:
            new.write_bytes(snapshot.content)
            self._control.close()
            sql.remove_file(self.live)
            new.replace(self.live)
        self._open()
        self.generation += 1
        self._current = snapshot
        self._version = self._data_version()
        self._failed_restore = None

    def leave_by_force(self) -> None:
        """Leave a level by replacing the locked file. Cost: a new file and new connections."""
        snapshot = self._levels[-1]
        # Ctrl-C may interrupt the restore. The next `enter` then restores the snapshot.
        self._failed_restore = snapshot
        self.forget()
        with self._isolation_errors():
            self._put_in_place(snapshot)

    def forget(self) -> None:
        """Close the top level, and keep the current content."""
        self._levels.pop()
        del self._starts[self.depth + 1 :]

    def is_clean(self) -> bool:
        """Return whether no transaction has committed or is writing in the top level."""
        try:
            with sql.writing(self._control):
                return self.is_untouched()
        except sqlite3.Error:
            return False

    def is_untouched(self) -> bool:
        """Return whether no transaction has committed in the top level."""
        try:
            return not self._is_lost() and self._is_at(self._levels[-1])
        except sqlite3.Error:
            return False

    # The content, and its changes.

    def replace(self, file: Path | None) -> None:
        """Replace the current content by a file's content, or by an empty database."""
        with self._isolation_errors():
            self._restore(Snapshot(file.read_bytes() if file else b""))
        # The new content counts as the start of the level, not as a change in it.
        self._starts[self.depth] = self._current

    def save(self, file: Path) -> None:
        """Copy the current content into a file."""
        with self._isolation_errors():
            sql.finish_file(self.live, file)

    def content(self) -> dict[str, str]:
        """Return digests of the current content, read by a new connection."""
        with self._isolation_errors():
            return digests(self.live)

    def moment(self, *, exact: bool = False) -> Snapshot | None:
        """Return the current moment for ``rows_changed``, or None if that is expensive."""
        if exact:
            return self._read(self._now)
        try:  # `suppress` would cost half as much as the rest
            if not self._is_at(self._current) and self.live.stat().st_size > _SMALL:
                return None
            return self._now()
        except (sqlite3.Error, OSError):
            return None

    def rows_changed(
        self,
        since: object = None,
        until: object = None,
        *,
        depth: int = 0,
        limit: int | None = None,
    ) -> list[TableRows]:
        """Return the net changes of the committed rows, in the top level or between two moments."""
        before = self._starts[self.depth - depth]
        if isinstance(since, Snapshot):
            before = since
        if isinstance(until, Snapshot):
            after = until
        elif depth:
            after = self._levels[-depth]
        else:
            after = self._read(self._now)
        if before is after:
            return []
        return self._read(lambda: changed_rows(before.content, after.content, limit))

    def _read(self, read: Callable[[], _Answer]) -> _Answer:
        """Call ``read`` until no commit prevents it."""
        end = _process.seconds() + _PATIENCE
        while True:
            try:
                with self._isolation_errors():
                    return read()
            except Held as error:
                if _process.seconds() > end:
                    raise IsolationError(
                        f"the database {self.live.stem!r} cannot be read now: {error}",
                        why="pytest-arena reads the changes of a test from the file",
                        cause="an open transaction has locked the file",
                        fix="commit or roll back before arena.changes()",
                    ) from error
            _process.rest(_STEP)

    def close(self) -> None:
        """Close the live file."""
        self._control.close()

    @contextmanager
    def _isolation_errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            if sql.is_locked(error):
                raise Held(str(error)) from error
            raise messages.lost(self.live, error) from error

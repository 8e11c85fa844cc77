"""The isolation ``rollback``: each level is a savepoint in one transaction."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_arena import _process
from pytest_arena._origin import is_own
from pytest_arena._product import Held, discard, nothing
from pytest_arena._sqlite import _messages as messages
from pytest_arena._sqlite import _sql as sql
from pytest_arena._sqlite._content import Moment, changed_rows, content
from pytest_arena._sqlite._guarded_connection import class_makers, guarded_class
from pytest_arena._sqlite._restore import FileSnapshot
from pytest_arena._sqlite.rollback._shared_database import (
    SharedDatabase,
    SharedLevel,
    share,
    unshare,
)
from pytest_arena._sqlite.rollback._sharing_connection import sharing_class
from pytest_arena.errors import IsolationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from pytest_arena._values import TableRows

_PATIENCE = 1.0  # seconds to wait for the statement of another thread


class Rollback:
    """The isolation by one shared connection.

    Cost of enter and leave: one SAVEPOINT, ROLLBACK TO and RELEASE. If rows of a wider fixture have
    changed, the next level also reads the database.
    """

    name = "rollback"

    def __init__(
        self, live: Path, base: Path | None, *, note: Callable[[str], None] = discard
    ) -> None:
        self.live = live
        self._check_after_leave: Callable[[], None] = nothing
        self._forced = 0
        self._last_moment: Moment | None = None
        with _translated_errors(live):
            if base is not None:
                shutil.copyfile(base, live)
                start = FileSnapshot(base)
            else:
                start = FileSnapshot(sql.write_nothing(live.parent))
        self._shared = SharedDatabase(live, start, note)
        self._lock = _Lock(self._shared)
        # For the base and for each level, the content that its changes are compared with.
        self._starts = [start]
        share(self._shared)
        class_makers[str(live)] = self._class_of
        self._note = note
        self._end_watching = _process.on_audit_events(
            {
                "os.fork": self._on_fork,
                "subprocess.Popen": self._on_process,
                "open": self._on_open,
            }
        )

    def call_after_leave(self, check: Callable[[], None]) -> None:
        """Call a function after each level is left. If it raises, the level stays."""
        self._check_after_leave = check

    @property
    def generation(self) -> int:
        """The number of levels that were left by force."""
        return self._forced

    @property
    def depth(self) -> int:
        """The number of open levels."""
        return len(self._shared.levels)

    def _class_of(self, factory: object) -> object:
        """Return the class of a connection. In a forked process it opens the file itself."""
        if self._shared.is_of_this_process:
            return sharing_class(factory)
        return guarded_class(factory)

    def _on_fork(self) -> None:
        if self.depth and not is_own():
            self._note(messages.OTHER_PROCESS)

    def _on_open(self, name: object, _mode: object, flags: int | None) -> None:
        if self.depth and sql.opens_for_writing(name, flags, self.live):
            raise messages.opened_for_writing(self.live)

    def _on_process(
        self, program: Any, arguments: Any, _folder: object, variables: Any
    ) -> None:
        """Note a process that gets the live file's path by its arguments or by its variables."""
        if not self.depth or is_own():
            return
        words = [arguments] if isinstance(arguments, str | bytes) else [*arguments]
        if "python" in Path(os.fsdecode(program or words[0])).name:
            words += (os.environ if variables is None else variables).values()
        if any(str(self.live) in os.fsdecode(word) for word in words):
            self._note(messages.OTHER_PROCESS)

    def enter(self) -> None:
        """Open a level, and its savepoint.

        If a transaction of a wider fixture has uncommitted writes, the level has no savepoint. Then
        its snapshot restores the level.
        """
        with self._lock as shared:
            snapshot = shared.snapshot()
            name = f"arena_level_{self.depth + 1}"
            level = SharedLevel(name, shared.state, snapshot, shared.journal_mode)
            if shared.open_writer() is None:
                shared.set_savepoint(level)
            self._starts[self.depth + 1 :] = [snapshot]
            shared.levels.append(level)

    def leave(self) -> bool:
        """Roll back to the savepoint. Return whether a transaction had committed changes."""
        with self._lock as shared:
            shared.check_no_writer()
            return self._leave(shared)

    def _leave(self, shared: SharedDatabase) -> bool:
        level = shared.levels[-1]
        is_changed = shared.state != level.state
        shared.leave(level)
        # If the check raises an error, a second call leaves the level by its snapshot.
        self._check_after_leave()
        shared.levels.pop()
        del self._starts[self.depth + 1 :]
        return is_changed

    def leave_by_force(self) -> None:
        """Leave a level, and roll back the open transactions of the app."""
        shared = self._shared
        if not shared.lock.acquire(timeout=_PATIENCE):
            shared.real.interrupt()
            shared.lock.acquire()
        self._forced += 1
        try:
            if shared.writer is not None:
                shared.writer.cut_off()
                shared.end_writer()
            with _translated_errors(self.live):
                level = shared.levels.pop()
                shared.rebuild(level.snapshot, level.state)
                shared.use_journal_mode(level.journal_mode, is_new=False)
                del self._starts[self.depth + 1 :]
        finally:
            shared.lock.release()

    def is_free(self) -> bool:
        """Return whether no open transaction has written."""
        with self._lock as shared:
            return shared.open_writer() is None

    def is_untouched(self) -> bool:
        """Return whether no transaction has committed in the top level."""
        shared = self._shared
        return shared.state == shared.levels[-1].state

    def is_clean(self) -> bool:
        """Return whether no transaction has committed or is writing in the top level."""
        return self.is_free() and self.is_untouched()

    def forget(self, *, is_undone: bool = False) -> None:  # noqa: ARG002 - SQLite has no sequences to reset
        """Close the top level, and keep the current content."""
        with self._lock as shared:
            shared.forget(shared.levels.pop())
            del self._starts[self.depth + 1 :]

    def moment(self, *, exact: bool = False) -> Moment | None:
        """Return the current moment, or None if a database of more than a megabyte has changed."""
        with self._lock as shared:
            snapshot = self._committed(shared) if exact else shared.peek()
            if snapshot is None:
                return None
            last = self._last_moment
            if last is None or last.snapshot is not snapshot:
                self._last_moment = Moment(snapshot, (shared.state, 0))
            return self._last_moment

    def _committed(self, shared: SharedDatabase) -> FileSnapshot:
        try:
            return shared.snapshot()
        except Held as error:
            raise IsolationError(
                f"the database {self.live.stem!r} cannot be read now: {error}",
                why="under rollback all connections share one transaction, which also has the "
                "uncommitted rows",
                cause="an open transaction has written",
                fix="commit or roll back before arena.changes()",
            ) from error

    def rows_changed(
        self,
        since: object = None,
        until: object = None,
        *,
        depth: int = 0,
        limit: int | None = None,
    ) -> list[TableRows]:
        """Return the net changes of the committed rows, in a level or between two moments."""
        with self._lock as shared:
            before = self._starts[self.depth - depth]
            if isinstance(since, Moment):
                before = since.snapshot
            if isinstance(until, Moment):
                after = until.snapshot
            elif depth:
                after = shared.levels[-depth].snapshot
            else:
                after = self._committed(shared)
            if before is after:
                return []
            return changed_rows(before.file(), after.file(), limit=limit)

    def content(self) -> dict[str, str]:
        """Return digests of the committed content."""
        with self._lock as shared:
            return content(self._committed(shared).file())

    def replace(self, file: Path | None) -> None:
        """Replace the current content by a file's content, or by an empty database."""
        with self._lock as shared:
            self._starts[self.depth] = shared.overwrite(file)

    def save(self, file: Path) -> None:
        """Write the committed content into a file."""
        with self._lock as shared:
            shutil.copyfile(self._committed(shared).file(), file)

    def close(self) -> None:
        """Close the real connection."""
        self._end_watching()
        class_makers.pop(str(self.live), None)
        unshare(self._shared)
        with self._shared.lock:
            self._shared.close()


class _Lock:
    """A block in which no other thread uses the real connection.

    Raises:
        Held: a statement of another thread does not end, or a connection holds a lock.
        IsolationError: SQLite cannot read or write the file.
    """

    def __init__(self, shared: SharedDatabase) -> None:
        self._shared = shared

    def __enter__(self) -> SharedDatabase:
        shared = self._shared
        if not shared.lock.acquire(timeout=_PATIENCE):
            raise Held(f"{shared.live.name}: a statement runs in another thread")
        return shared

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._shared.lock.release()
        if error is not None:
            _raise_translated(self._shared.live, error)


@contextmanager
def _translated_errors(live: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        _raise_translated(live, error)
        raise


def _raise_translated(live: Path, error: BaseException) -> None:
    """Raise pytest-arena's error for an error of SQLite or of the file system."""
    if isinstance(error, sql.Busy):
        raise Held(str(error)) from error
    if isinstance(error, sql.FileFailure | OSError | sqlite3.DatabaseError):
        is_full = sql.is_full(error)
        raise messages.lost(live, error, is_full=is_full) from error

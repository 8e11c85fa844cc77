"""The isolation ``copy``: one file that keeps its path, and is restored in place."""

from __future__ import annotations

import os
import shutil
import sqlite3
import weakref
from collections import Counter
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pytest_arena import _process
from pytest_arena._interpreter import on_audit_events
from pytest_arena._product import Held, discard, nothing
from pytest_arena._sqlite import _messages as messages
from pytest_arena._sqlite import _sql as sql
from pytest_arena._sqlite._content import Moment, changed_rows, content
from pytest_arena._sqlite._live_file import LiveFile, is_supported
from pytest_arena._sqlite._restore import (
    NEVER,
    Backup,
    FileSnapshot,
    Inapplicable,
    Pages,
    RestoreMethod,
    Wal,
    works,
)
from pytest_arena.errors import IsolationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pytest_arena._values import TableRows

_Answer = TypeVar("_Answer")
_PATIENCE = 0.2  # seconds, longer than a commit takes
_STEP = 0.002
# Reading a file of this size takes 0.1 ms, so pytest-arena reads it before each request.
_SMALL = 1024 * 1024


class Copy:
    """The isolation for SQLite: connections, engines and other processes stay connected.

    Each level keeps a snapshot of the content at its start. Levels without a write between them
    share a snapshot. ``leave`` restores it by the first of the ``fast`` methods that works now. If
    none works, it uses SQLite's online backup. ``note`` gets a line if a fast method fails its
    trial.

    Cost of enter and leave: 40 µs without a write to the file, otherwise the cost of the method.
    """

    name = "copy"
    fast: tuple[type[RestoreMethod], ...] = (Pages, Wal)

    def __init__(
        self, live: Path, base: Path | None, *, note: Callable[[str], None] = discard
    ) -> None:
        self.live = live
        self._check_after_leave: Callable[[], None] = nothing
        self._note = note
        # Moments that are in use. Iterating over a `WeakSet` costs ten times as much.
        self._moments: weakref.WeakKeyDictionary[Moment, None] = (
            weakref.WeakKeyDictionary()
        )
        self._last_moment: Moment | None = None
        # A snapshot that was not restored, because the file was lost or locked. The next `enter`
        # restores it.
        self._failed_restore: FileSnapshot | None = None
        # The number of times that a level began or ended without a file. Connections to a deleted
        # file are stale.
        self._times_without_file = 0
        # pytest-arena opens the file when it needs the content. For most databases that replace a
        # memory database this never happens.
        self._open_restorer: Restorer | None = None
        # For each open level, the snapshot that `leave` restores.
        self._levels: list[FileSnapshot] = []
        # For each open level, the content that its changes are compared with, and first the content
        # before all levels. `replace` changes an item. After a signal between two steps of `enter`
        # or `leave`, the list may have an item too many.
        self._starts: list[FileSnapshot]
        with self._isolation_errors():
            if base is not None:
                shutil.copyfile(base, live)
            if sql.identity(live) is None:
                self._starts = [FileSnapshot(sql.write_nothing(live.parent))]
            else:
                start = FileSnapshot(base) if base else None
                self._open_restorer = Restorer(live, start, self.fast, note)
                self._open_restorer.start_from_current()
                self._starts = [self._open_restorer.current]
        self._is_overwritten = (
            False  # whether Python has opened the file for writing in this level
        )
        self._end_watching = on_audit_events(
            {"open": self._note_opening, "os.truncate": self._note_truncation}
        )

    def _note_opening(self, name: object, _mode: object, flags: int | None) -> None:
        self._is_overwritten |= sql.opens_for_writing(name, flags, self.live)

    def _note_truncation(self, name: object, _size: object) -> None:
        self._note_opening(name, None, os.O_WRONLY)

    @property
    def depth(self) -> int:
        """The number of open levels."""
        return len(self._levels)

    @property
    def generation(self) -> int:
        """The number of times that connections to the file became stale."""
        if self._open_restorer is None:
            return self._times_without_file
        return self._times_without_file + self._open_restorer.generation

    @property
    def restored(self) -> Counter[str]:
        """The number of restores by each method."""
        if self._open_restorer is None:
            return Counter()
        return self._open_restorer.restored

    @property
    def _restorer(self) -> Restorer:
        if self._open_restorer is None:
            self._open_restorer = Restorer(
                self.live, self._starts[0], self.fast, self._note
            )
        return self._open_restorer

    @property
    def _has_no_file_yet(self) -> bool:
        """Whether the file does not exist, and pytest-arena has never opened it."""
        return self._open_restorer is None and sql.identity(self.live) is None

    def call_after_leave(self, check: Callable[[], None]) -> None:
        """Call a function after each level is left. If it raises, the level stays."""
        self._check_after_leave = check

    def enter(self) -> None:
        """Open a level above the current content."""
        with self._isolation_errors():
            snapshot = self._snapshot_for_level()
        self._starts[self.depth + 1 :] = [snapshot]
        self._levels.append(snapshot)

    def _snapshot_for_level(self) -> FileSnapshot:
        if self._failed_restore is not None:
            self._restorer.put_in_place(self._failed_restore)
            self._failed_restore = None
        elif self._has_no_file_yet:
            self._times_without_file += 1
            return self._starts[0]
        elif self._restorer.live_file.is_replaced():
            # A wider fixture has created the file again. The levels above begin with that file.
            self._restorer.reopen()
        is_overwritten = self._is_overwritten
        self._is_overwritten = False
        try:
            self._restorer.live_file.check_log()
            if is_overwritten:
                self._restorer.reopen()
            return self._restorer.take()
        except FileNotFoundError:
            self._failed_restore = self._restorer.current
            raise

    def leave(self) -> bool:
        """Restore the content from the matching ``enter``. Return whether it had changed."""
        snapshot = self._levels[-1]
        with self._isolation_errors():
            has_other_journal_mode = sql.take_switched(self.live)
            is_overwritten = self._is_overwritten
            self._is_overwritten = False
            if self._has_no_file_yet:
                self._times_without_file += 1
                is_changed = False
            else:
                self._restorer.check_place()
                if has_other_journal_mode or is_overwritten:
                    # A connection cannot set the journal mode while other connections have the file
                    # open. An overwritten file may have the change counter of the old file.
                    self._restorer.put_in_place(snapshot)
                    is_changed = True
                else:
                    is_changed = self._restorer.restore(snapshot)
        self._check_after_leave()
        self._failed_restore = None
        self.forget()
        return is_changed

    def leave_by_force(self) -> None:
        """Leave a level by replacing the locked file.

        Cost: a file copy, and a new connection for each user. Connections that the gate does not
        know, of other processes or of ``sqlite3`` itself, keep using the old, unlinked file.
        """
        # Ctrl-C may interrupt the restore. The next `enter` then restores the snapshot.
        snapshot = self._levels[-1]
        self._failed_restore = snapshot
        self._levels.pop()
        with self._isolation_errors():
            if self._open_restorer is None:
                # Another connection has locked the file, so pytest-arena cannot open it either.
                sql.remove_file(self.live)
            self._restorer.put_in_place(snapshot)
        self._failed_restore = None
        self._remove_unused()

    def is_free(self) -> bool:
        """Return whether no lock prevents the next test from writing."""
        try:
            with self._restorer.control.alone():
                return True
        except sql.Busy:
            return False
        except sql.FileFailure:
            return True  # `leave` reports the failure

    def is_untouched(self) -> bool:
        """Return whether no transaction has committed in the top level."""
        return self._is_at_start(lambda restorer: restorer.control.data_version())

    def is_clean(self) -> bool:
        """Return whether no transaction has committed or is writing in the top level."""
        return self._is_at_start(Restorer.version_without_writers)

    def _is_at_start(self, version: Callable[[Restorer], int]) -> bool:
        if self._has_no_file_yet:
            return True
        if self._failed_restore is not None:
            return False
        try:
            restorer = self._restorer
            if not restorer.is_at(self._levels[-1]):
                return False
            is_in_place = restorer.live_file.is_in_place()
            return is_in_place and version(restorer) == restorer.version
        except (sql.Busy, sql.FileFailure):
            return False

    def forget(self, *, is_undone: bool = False) -> None:  # noqa: ARG002 - SQLite has no sequences to reset
        """Close the top level, and keep the current content."""
        self._levels.pop()
        self._remove_unused()

    def replace(self, file: Path | None) -> None:
        """Replace the current content by a file's content, or by an empty database."""
        source = sql.open_snapshot(file) if file else sql.open_memory()
        with closing(source), self._isolation_errors():
            self._restorer.overwrite(source)
        # The new content counts as the start of the level, not as a change in it.
        self._starts[self.depth] = self._restorer.current

    def save(self, file: Path) -> None:
        """Copy the current content into a file."""
        with self._isolation_errors():
            sql.finish_file(self.live, file)

    def content(self) -> dict[str, str]:
        """Return digests of the current content, read by a new connection."""
        with self._isolation_errors():
            file = self._starts[0].file() if self._has_no_file_yet else self.live
            return content(file) if file.exists() else {}

    def moment(self, *, exact: bool = False) -> Moment | None:
        """Return the current moment for ``rows_changed``, or None if that is expensive.

        Without a commit since the last moment, return the last moment, in 7 µs. With a write-ahead
        log a new moment takes 0.2 ms. Without a log, a file of at most a megabyte is read into
        memory in 0.1 ms. With ``exact``, copy a file of any size, and never return None.

        Raises:
            IsolationError: ``exact``, and the file is lost or locked, or the disk is full.
        """
        if exact:
            return self._read(partial(self._moment_now, exact=True))
        try:  # `suppress` would cost half as much as the rest
            return self._moment_now(exact=False)
        except (sql.Busy, sql.FileFailure, OSError):
            return None

    def _moment_now(self, *, exact: bool) -> Moment | None:
        restorer = self._restorer
        restorer.check_place()
        # The version is read before the content, as in `Restorer.take`.
        data_version = restorer.control.data_version()
        version = (restorer.state_number, data_version)
        # A local variable would keep the last moment and its snapshot alive.
        if self._last_moment is None or self._last_moment.version != version:
            snapshot = restorer.peek(data_version, exact=exact)
            if snapshot is None:
                return None
            self._last_moment = Moment(snapshot, version)
            self._moments[self._last_moment] = None
            self._remove_unused()
        return self._last_moment

    def rows_changed(
        self,
        since: object = None,
        until: object = None,
        *,
        depth: int = 0,
        limit: int | None = None,
    ) -> list[TableRows]:
        """Return the net changes of the committed rows, in the top level or between two moments.

        ``depth`` selects a lower level: 1 is the level below the top level. The changes of a lower
        level end at the start of the next level. A depth that equals the number of levels selects
        the changes before the first level. SQLite compares the two states. This does not write to
        the live file, and keeps no lock.

        Raises:
            IsolationError: the file is lost or locked, or the disk is full.
        """

        def compare() -> list[TableRows]:
            before = self._starts[self.depth - depth]
            if isinstance(since, Moment):
                before = since.snapshot
            end = until
            if end is None and not depth:
                end = self._moment_now(exact=True)
            after = end.snapshot if isinstance(end, Moment) else self._levels[-depth]
            if before is after:
                return []
            return changed_rows(before.file(), after.file(), limit=limit)

        return self._read(compare)

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
        """Close the live file and remove the snapshots."""
        self._end_watching()
        if self._open_restorer is not None:
            self._open_restorer.close()

    def _remove_unused(self) -> None:
        """Remove the snapshots that neither a level nor a moment uses."""
        if self._open_restorer is None:
            return
        del self._starts[self.depth + 1 :]
        used = [self._failed_restore, *self._levels, *self._starts]
        for reference in self._moments.keyrefs():
            moment = reference()
            if moment is not None:
                used.append(moment.snapshot)
        self._open_restorer.remove_unused(used)

    @contextmanager
    def _isolation_errors(self) -> Iterator[None]:
        try:
            yield
        except sql.Busy as error:
            raise Held(str(error)) from error
        except (sql.FileFailure, OSError) as error:
            is_full = sql.is_full(error)
            raise messages.lost(self.live, error, is_full=is_full) from error


class Restorer:
    """Takes snapshots of one live file and restores them.

    The file has the content of ``current`` at the data version ``version``. ``state_number``
    increases whenever this pair is set, and ``generation`` whenever the file is opened again.
    Methods raise ``Busy``, ``FileFailure`` and ``OSError``.
    """

    def __init__(
        self,
        live: Path,
        start: FileSnapshot | None,
        fast: tuple[type[RestoreMethod], ...],
        note: Callable[[str], None],
    ) -> None:
        self.live = live
        self.restored: Counter[str] = Counter()
        self.state_number = 0
        self.generation = 0
        self._fast = fast
        self._note = note
        self._owned: list[FileSnapshot] = []  # snapshots that this object removes
        self._passed: set[str] = set()  # methods that have passed their trials
        self._open()
        # The app may have written to the file before this opened it, so the version is unknown.
        self.current = start or self._own(self._backup.take())
        self.version = NEVER

    def _open(self) -> None:
        self.live_file = LiveFile(self.live)
        self.control = self.live_file.control
        sql.leave_wal_alone(self.control)
        self._backup = Backup(self.live_file)
        self._methods: list[RestoreMethod] = []
        if is_supported():
            self._methods = [method(self.live_file) for method in self._fast]

    def close(self) -> None:
        """Close the file, and remove its snapshots."""
        self.live_file.close()
        for snapshot in self._owned:
            snapshot.remove()

    def reopen(self) -> None:
        """Open the file at the path again."""
        self.live_file.close()
        self._open()
        self._set_current(self.current, NEVER)
        self.generation += 1

    def start_from_current(self) -> None:
        """Note that the file now has the content of the current snapshot."""
        self._start_from(self.current, self.control.data_version())

    def check_place(self) -> None:
        """Raise ``FileNotFoundError`` if another file or log is at the path."""
        if self.live_file.is_replaced():
            raise FileNotFoundError("the file was deleted or replaced")
        self.live_file.check_log()

    def is_at(self, snapshot: FileSnapshot) -> bool:
        """Return whether only commits have written to the file since it had this content."""
        for method in self._methods:
            if method.is_written_past_log():
                return False
        return self.current is snapshot

    def version_without_writers(self) -> int:
        """Return the data version, under the write lock.

        The lock proves that no transaction of any process has uncommitted writes. Such writes do
        not change the version, and would be committed into the next test.
        """
        with self.control.writing():
            return self.control.data_version()

    def take(self) -> FileSnapshot:
        """Return a snapshot of the current content: ``current`` if no transaction has committed."""
        # The version is read before the content. A commit between both steps costs an unnecessary
        # snapshot. In the other order the commit would be missed.
        version = self.control.data_version()
        if version == self.version and self.is_at(self.current):
            return self.current
        self.live_file.keep_log()
        for method in self._applicable_methods():
            with suppress(Inapplicable, OSError):
                snapshot = self._own(method.take())
                self._set_current(snapshot, version)
                return snapshot
        snapshot = self._own(self._backup.take())
        self._start_from(snapshot, version)
        return snapshot

    def peek(self, version: int, *, exact: bool) -> FileSnapshot | None:
        """Return a snapshot for a comparison, which is never restored.

        Return None if that is expensive, unless it is ``exact``.
        """
        if version == self.version:
            return self.current
        may_copy_file = exact or self.live.stat().st_size <= _SMALL
        for method in self._applicable_methods():
            if not method.has_wal and not may_copy_file:
                continue
            with suppress(Inapplicable, OSError):
                if exact:
                    return self._own(method.take())
                return self._own(method.peek())
        if may_copy_file:
            return self._own(self._backup.take())
        return None

    def restore(self, snapshot: FileSnapshot) -> bool:
        """Restore a snapshot. Return whether the content had changed."""
        # Writes of pytest-arena do not change the version. The version is read before the restore,
        # so that a commit right after the restore counts as a change.
        version = self.control.data_version()
        if version == self.version and self.is_at(snapshot):
            version = self.version_without_writers()
            if version == self.version:
                return False
        self.live_file.keep_log()
        for method in self._applicable_methods():
            with suppress(Inapplicable, OSError):
                restored_version = method.restore(snapshot, version)
                self._set_current(snapshot, restored_version)
                self.restored[method.name] += 1
                return True
        try:
            restored_version = self._backup.restore(snapshot, version)
        except sql.FileFailure as error:
            # A backup cannot write to a file that has a log and a new page size:
            # https://sqlite.org/c3ref/backup_finish.html
            if not sql.is_refused(error):
                raise
            self.put_in_place(snapshot)
            return True
        self._start_from(snapshot, restored_version)
        self.restored[self._backup.name] += 1
        return True

    def put_in_place(self, snapshot: FileSnapshot) -> None:
        """Replace the file by a new one with a snapshot's content."""
        with sql.whole_or_none(self.live_file.new_snapshot_path()) as file:
            # The copy may fail, so it precedes the close of the old file.
            shutil.copyfile(snapshot.file(), file)
            self.live_file.close()
            for ending in ("-wal", "-shm", "-journal"):
                Path(f"{self.live}{ending}").unlink(missing_ok=True)
            file.replace(self.live)
        self.reopen()
        self._start_from(snapshot, self.control.data_version())

    def overwrite(self, source: sql.OwnConnection) -> None:
        """Make the file equal to another database, in place."""
        version = self.version_without_writers()
        source.copy_into(self.control)
        snapshot = self._own(self._backup.take())
        self._start_from(snapshot, version)

    def remove_unused(self, used: Iterable[FileSnapshot | None]) -> None:
        """Remove the owned snapshots that are neither in use nor parents of snapshots in use."""
        parents_of_methods = [method.parent for method in self._methods]
        kept: set[FileSnapshot] = set()
        for in_use in (self.current, *used, *parents_of_methods):
            ancestor = in_use
            while ancestor is not None and ancestor not in kept:
                kept.add(ancestor)
                ancestor = ancestor.parent
        for snapshot in list(self._owned):
            if snapshot not in kept:
                self._owned.remove(snapshot)
                snapshot.remove()

    def _own(self, snapshot: FileSnapshot) -> FileSnapshot:
        self._owned.append(snapshot)
        return snapshot

    def _applicable_methods(self) -> Iterator[RestoreMethod]:
        """Yield the fast methods for the file's journal mode that have passed their trials."""
        header = self.live_file.header() if self._methods else None
        if header is None:
            return
        for method in list(self._methods):
            if method.has_wal == header.is_wal and self._has_passed(method):
                yield method

    def _has_passed(self, method: RestoreMethod) -> bool:
        if method.name in self._passed:
            return True
        passed = works(type(method), self.live.parent)
        if passed:
            self._passed.add(method.name)
        elif passed is False:  # None: the disk is too full for a trial
            self._methods.remove(method)
            self._note(
                f"{self.live.name}: the restore method {method.name!r} failed its trial on SQLite "
                f"{sqlite3.sqlite_version}. pytest-arena restores whole copies instead, which "
                "takes longer"
            )
        return bool(passed)

    def _set_current(self, snapshot: FileSnapshot, version: int) -> None:
        self.current = snapshot
        self.version = version
        self.state_number += 1

    def _start_from(self, snapshot: FileSnapshot, version: int) -> None:
        """Note the content of the file after SQLite itself, and no fast method, has written it."""
        for method in self._methods:
            method.start_from(snapshot, version)
        self._set_current(snapshot, version)

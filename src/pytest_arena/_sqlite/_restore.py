"""Three methods that restore a live file: backup, pages, log.

``Backup`` works on each system and in each journal mode. ``Pages`` needs a rollback journal,
``Wal`` a write-ahead log. ``works`` tries both in a scratch file before their first use. For a file
of 37 MB, ``Backup`` alone would take 7 to 200 times as long (docs/explanation/speed.md).
"""

import mmap
import os
import shutil
import tempfile
from abc import ABC, abstractmethod
from contextlib import ExitStack, closing
from pathlib import Path
from typing import ClassVar, NamedTuple
from weakref import WeakKeyDictionary

from pytest_arena._sqlite import _sql as sql
from pytest_arena._sqlite._live_file import (
    Header,
    LiveFile,
    LiveLog,
    LogIndex,
    is_supported,
    set_wal_mode,
)

NEVER = -1  # a data version that no file has
_CHUNK = 256 * 1024  # a multiple of each page size, and less than a processor's cache
_WORD = 0xFFFFFFFF  # numbers in a file's header have 32 bits
_COUNTER_STEP = 1 << 16  # a test commits less often
_LARGEST_SIGNED = 0x7FFFFFFF

# Offsets in the first page: https://sqlite.org/fileformat.html#the_database_header
_COUNTER = 24
_PAGES = 28
_COOKIE = 40
_VALID_FOR = 92  # the number of pages is valid if this field equals the change counter


class Inapplicable(Exception):
    """This method cannot work now. It has changed nothing, so another method may."""


class FileSnapshot:
    """The content of a database at one time, in a file that no connection writes to.

    A snapshot with a ``parent`` keeps only the differences, and creates its file on demand.
    """

    def __init__(self, file: Path, parent: "FileSnapshot | None" = None) -> None:
        self._file = file
        self.parent = parent
        # The schema cookie of the live file while it had this content, None if unknown.
        self.cookie: int | None = None
        self._mapped: mmap.mmap | None = None

    def note_cookie(self, cookie: int | None) -> None:
        """Note the schema cookie of the live file while it has this content."""
        self.cookie = cookie

    def mapped(self) -> mmap.mmap:
        """Return the content of the file. It is mapped into memory at the first call.

        Raises:
            Inapplicable: the file is empty.
        """
        if self._mapped is None:
            with self.file().open("rb") as stream:
                try:
                    mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
                except ValueError as error:  # an empty file
                    raise Inapplicable from error
            self._mapped = mapped
        return self._mapped

    def file(self) -> Path:
        """Return a file with the whole content."""
        return self._file

    def remove(self) -> None:
        """Remove the file."""
        self._file.unlink(missing_ok=True)


class MemorySnapshot(FileSnapshot):
    """A snapshot of a small file in memory. It creates its file on demand."""

    def __init__(self, file: Path, content: bytes) -> None:
        super().__init__(file)
        self._content = content
        self._has_file = False

    def file(self) -> Path:
        """Return a file with the whole content."""
        if not self._file.exists():
            self._has_file = True
            with sql.whole_or_none(self._file) as file:
                file.write_bytes(self._content)
        return self._file

    def remove(self) -> None:
        """Remove the file. Most snapshots never have one."""
        if self._has_file:
            super().remove()


class WalSnapshot(FileSnapshot):
    """The start of a log. The parent's file and this log together are the whole content."""

    def __init__(self, file: Path, parent: FileSnapshot, log: Path) -> None:
        super().__init__(file, parent)
        self._parent_snapshot = parent
        self._log = log

    def file(self) -> Path:
        """Return a file with the whole content."""
        if not self._file.exists():
            self._apply_log()
        return self._file

    def _apply_log(self) -> None:
        log_beside = Path(f"{self._file}-wal")
        with (
            sql.whole_or_none(self._file) as file,
            sql.whole_or_none(log_beside) as log,
        ):
            shutil.copyfile(self._parent_snapshot.file(), file)
            shutil.copyfile(self._log, log)
            set_wal_mode(file)
            with closing(sql.open_control(file)) as control:
                control.execute("PRAGMA journal_mode = DELETE").fetchone()

    def remove(self) -> None:
        """Remove the file and the log."""
        super().remove()
        self._log.unlink(missing_ok=True)


class RestoreMethod(ABC):
    """Takes snapshots of a live file and restores them.

    After ``restore`` the file has the snapshot's content, and each open connection of each process
    reads it. Methods raise ``Inapplicable`` or ``OSError`` if only another method can work,
    ``Busy`` if a lock prevents all methods, and ``FileFailure`` if SQLite cannot read or write.
    """

    name: ClassVar[str]
    has_wal: ClassVar[bool]  # needs a write-ahead log if true, else a rollback journal
    parent: "FileSnapshot | None" = None  # the parent of the next snapshots

    def __init__(self, live: LiveFile) -> None:
        self._live = live
        self._control = live.control

    @abstractmethod
    def start_from(self, snapshot: FileSnapshot, version: int) -> None:
        """Take later snapshots relative to this one. The file has it at this data version."""

    def is_written_past_log(self) -> bool:
        """Return whether the file itself was written since ``start_from``, without a commit."""
        return False

    @abstractmethod
    def take(self) -> FileSnapshot:
        """Return a snapshot of the current content."""

    def peek(self) -> FileSnapshot:
        """Return a snapshot for a comparison, which is never restored."""
        return self.take()

    @abstractmethod
    def restore(self, snapshot: FileSnapshot, version: int) -> int:
        """Restore a snapshot. ``version`` is the file's data version before the restore.

        Return the data version at which the file has this content, or ``NEVER`` if a connection
        has committed since.
        """


class Backup(RestoreMethod):
    """SQLite's online backup into the live file. It uses public functions only.

    The backup sets the change counter and the schema cookie higher than all earlier values, so that
    open connections drop their caches. Cost: 0.1-0.2 ms for 0.2 MB, and 1.5 ms for each further MB.
    """

    name = "backup"

    def start_from(self, snapshot: FileSnapshot, version: int) -> None:
        """Do nothing: each snapshot is a whole copy."""

    def take(self) -> FileSnapshot:
        """Copy the content into a file."""
        file = self._live.new_snapshot_path()
        self._control.copy_to_file(file)
        return FileSnapshot(file)

    def restore(self, snapshot: FileSnapshot, version: int) -> int:
        """Copy the snapshot into the live file. These writes do not change the data version."""
        with closing(sql.open_snapshot(snapshot.file())) as source:
            source.copy_into(self._control)
        return version


class Pages(RestoreMethod):
    """Writes changed pages back into a file with a rollback journal.

    Cost of a restore: the changed pages, and a scan of 0.1-0.2 ms a MB. Cost of a snapshot: a copy
    of the file.
    """

    name = "pages"
    has_wal = False

    def __init__(self, live: LiveFile) -> None:
        super().__init__(live)
        self._counter = 0  # the change counter at the last restore

    def start_from(self, snapshot: FileSnapshot, version: int) -> None:  # noqa: ARG002 - the log's method needs it
        """Forget the schema cookie, which another method has changed."""
        snapshot.note_cookie(None)

    def take(self) -> FileSnapshot:
        """Copy the file."""
        path = self._live.new_snapshot_path()
        with self._control.reading(), sql.whole_or_none(path) as file:
            header = _without_log(self._live.header())
            self._live.copy_to(file)
        snapshot = FileSnapshot(file)
        snapshot.note_cookie(header.cookie)
        return snapshot

    def peek(self) -> FileSnapshot:
        """Read the file into memory. For 0.1 MB this takes 0.04 ms, and a copy takes 0.1 ms."""
        with self._control.reading():
            content = self._live.read()
        _without_log(Header.parse(content))
        return MemorySnapshot(self._live.new_snapshot_path(), content)

    def restore(self, snapshot: FileSnapshot, version: int) -> int:
        """Write back the pages that differ, while no other connection reads or writes."""
        with self._control.alone():
            header = _without_log(self._live.header())
            content = snapshot.mapped()
            wanted = Header.parse(content[:100])
            if wanted is None or wanted.page_size != header.page_size:
                raise Inapplicable
            self._write_changed_pages(memoryview(content), header.page_size)
            # An idle connection compares the change counter and the schema cookie with its last
            # values. With an earlier value it would use its cached pages or its cached schema. A
            # test may have put an older file in place, whose counter is lower.
            counter = (max(header.counter, self._counter) + _COUNTER_STEP) & _WORD
            self._counter = counter
            cookie = header.cookie
            if cookie != snapshot.cookie:
                cookie = (cookie + 1) & _WORD
            snapshot.note_cookie(cookie)
            self._write_first_page(content, header.page_size, counter, cookie)
        version = self._control.data_version()
        header_now = self._live.header()
        if header_now is None or header_now.counter != counter:
            return NEVER
        return version

    def _write_changed_pages(self, content: memoryview, page_size: int) -> None:
        """Write all changed pages except the first, and cut the file to its length."""
        current = bytearray(min(_CHUNK, len(content)))
        for start in range(0, len(content), _CHUNK):
            chunk = content[start : start + _CHUNK]
            size = os.preadv(self._live.descriptor, [current], start)
            # The last chunk is shorter, and the file may be shorter, too.
            del current[min(size, len(chunk)) :]
            # The bytearray is on the left, because a memoryview compares each number.
            if current == chunk:
                continue
            for offset in range(0, len(chunk), page_size):
                page = chunk[offset : offset + page_size]
                is_first = start + offset == 0
                if not is_first and current[offset : offset + page_size] != page:
                    self._live.write(page, start + offset)
        self._live.truncate(len(content))

    def _write_first_page(
        self, content: mmap.mmap, page_size: int, counter: int, cookie: int
    ) -> None:
        page = bytearray(content[:page_size])
        pages = len(content) // page_size
        fields = {
            _COUNTER: counter,
            _PAGES: pages,
            _COOKIE: cookie,
            _VALID_FOR: counter,
        }
        for offset, number in fields.items():
            page[offset : offset + 4] = number.to_bytes(4, "big")
        self._live.write(page, 0)


def _without_log(header: Header | None) -> Header:
    """Return a header.

    Raises:
        Inapplicable: the file is no database, or has a write-ahead log.
    """
    if header is None or header.is_wal:
        raise Inapplicable
    return header


class Mark(NamedTuple):
    """The end of the log, and the schema cookie, when the file had a snapshot's content."""

    frames: int
    salts: bytes
    cookie: int


class Wal(RestoreMethod):
    """Cuts the write-ahead log back to its length at the snapshot.

    Cost: 0.2 ms for any size, until a checkpoint copies the log into the file.
    """

    name = "wal"
    has_wal = True

    def __init__(self, live: LiveFile) -> None:
        super().__init__(live)
        self._log = LiveLog(live)
        self._marks: WeakKeyDictionary[FileSnapshot, Mark] = WeakKeyDictionary()
        self._highest_cookie = 0

    def start_from(self, snapshot: FileSnapshot, version: int) -> None:
        """Move the log into the file, so that the log has all later changes."""
        self._forget_marks()
        header = self._live.header()
        if header is None or not header.is_wal:
            return
        if not snapshot.file().stat().st_size:
            return
        try:
            mark = self._new_mark()
            is_unchanged = self._control.data_version() == version
        except (sql.Busy, sql.FileFailure, OSError):
            return
        if mark is not None and is_unchanged:
            self.parent = snapshot
            self._marks[snapshot] = mark

    def _forget_marks(self) -> None:
        self.parent = None
        self._marks.clear()

    def _new_mark(self) -> Mark | None:
        is_blocked = self._control.number("PRAGMA wal_checkpoint(TRUNCATE)")
        if is_blocked:  # by a reader
            return None
        # A commit without a change gives the empty log random salts. By the salts idle connections
        # notice the checkpoint.
        with self._control.writing():
            number = self._control.number("PRAGMA user_version")
            self._control.execute(f"PRAGMA user_version = {number}")
        with self._log.locked():
            header = self._live.header()
            index = self._log.index()
            if header is None or index.frames != 1:
                return None
            self._log.seal_file()
            return Mark(1, index.salts, header.cookie)

    def is_written_past_log(self) -> bool:
        """Return whether a checkpoint, or another program than SQLite, has written the file."""
        return self.parent is not None and not self._log.is_file_sealed()

    def take(self) -> FileSnapshot:
        """Copy the log."""
        if self.parent is None:
            raise Inapplicable
        path = self._live.new_snapshot_path()
        with self._control.reading(), sql.whole_or_none(path) as log:
            index = self._log.index()
            cookie = self._control.schema_version()
            self._log.copy_to(log, self._checked_size(index, index.frames))
        snapshot = WalSnapshot(self._live.new_snapshot_path(), self.parent, log)
        self._marks[snapshot] = Mark(index.frames, index.salts, cookie)
        return snapshot

    def restore(self, snapshot: FileSnapshot, version: int) -> int:
        """Cut the log, while no other connection reads or writes."""
        mark = self._marks.get(snapshot)
        if mark is None:
            raise Inapplicable
        try:
            self._cut_back(mark)
        except sql.Busy as error:
            # A reader needs its part of the log, which a backup does not change.
            raise Inapplicable from error
        version = self._control.data_version()  # makes SQLite rebuild the index
        frames = mark.frames
        if self._highest_cookie != mark.cookie:
            # A change of the next test must not produce a cookie that a connection has cached.
            self._raise_cookie()
            frames += 1
        index = self._log.index()
        if index.frames != frames:  # a connection has committed since the lock ended
            return NEVER
        self._marks[snapshot] = Mark(frames, index.salts, self._highest_cookie)
        return version

    def _cut_back(self, mark: Mark) -> None:
        index_before_lock = self._log.index()
        self._highest_cookie = max(self._highest_cookie, self._control.schema_version())
        with self._log.locked():
            index = self._log.index()
            size = self._checked_size(index, mark.frames)
            is_same_log = index == index_before_lock and mark.salts == index.salts
            if not is_same_log or mark.frames > index.frames:
                raise Inapplicable
            self._log.cut(size)
            self._log.clear_index()

    def _raise_cookie(self) -> None:
        self._highest_cookie += 1
        signed = self._highest_cookie
        if signed > _LARGEST_SIGNED:
            signed -= 2**32
        self._control.execute(f"PRAGMA schema_version = {signed}")

    def _checked_size(self, index: LogIndex, frames: int) -> int:
        """Return the size of this number of frames, if the log has all changes."""
        header = self._live.header()
        has_all_changes = not index.copied and self._log.is_file_sealed()
        if header is not None and header.is_wal and has_all_changes:
            return self._log.size_of(frames, header.page_size)
        self._forget_marks()
        raise Inapplicable


# The trial: a fast method restores a scratch file before its first use. The methods depend on when
# SQLite's connections read the file again, which is not documented.

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
    """Return whether a method passes its trial, which runs once for each folder. Costs 5 ms.

    Return None if the disk is too full for a trial. The next call tries again.
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
    """A file with tables and an index, a connection that writes, and a connection that reads."""

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
        first_contents = self._contents()
        first = Backup(self._live).take()
        self._method.start_from(first, self._live.control.data_version())
        self._change()
        second_contents = self._contents()
        second = self._method.take()
        return (
            self._restores(second, second_contents)
            and self._refuses_under_reader(second)
            and self._restores(first, first_contents)
            and self._reader.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        )

    def _restores(self, snapshot: FileSnapshot, contents: list[object]) -> bool:
        """Change and restore three times. The reader is idle during each restore.

        If a restore writes a wrong number into the header, the number has an old value again in the
        third round at the latest.
        """
        for _ in range(3):
            self._change()
            of_writer, of_reader = self._contents()
            if of_writer != of_reader or of_writer == contents[0]:
                return False
            self._restore(snapshot)
        return self._contents() == contents

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
        """Change rows and the schema, in another way each time."""
        self._changes += 1
        self._writer.executescript(_CHANGE.format(self._changes))

    def _contents(self) -> list[object]:
        """Return the content that the writer reads, and the content that the reader reads."""
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
        # A stale schema may have the same number of columns, but with other names.
        names = [column[0] for column in cursor.description]
        content.append((names, cursor.fetchall()))
    return content

"""How is a database file with a write-ahead log (WAL) brought back? Its log is cut.

https://sqlite.org/walformat.html is where each offset is from.
"""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary

from pytest_arena._sqlite import _sql as sql
from pytest_arena._sqlite._ways import (
    NEVER,
    WAL_MODE,
    LiveFile,
    Picture,
    Unfit,
    copy_start,
    lock_bytes,
)

if sys.platform == "linux":
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Iterator


_SEAL = 1_000_000_000  # a second after the epoch: a time that no clock gives
_INDEX_BYTES = 100
# Writer, checkpoint, recovery and five kinds of readers, a byte each.
_LOCKS_AT, _LOCKS = 120, 8


@dataclass(frozen=True, slots=True)
class WalIndex:
    """What the index of the log says: its last commit, and what a checkpoint has copied."""

    frames: int
    salts: bytes
    copied: int
    raw: bytes


class LiveLog:
    """The log of a live file, and its index, from outside of SQLite."""

    def __init__(self, live: LiveFile) -> None:
        self._live = live
        self.path = Path(f"{live.path}-wal")

    def seal(self) -> None:
        """Give the file a time of its own, so that the next write to it can be seen.

        Neither its header nor its size tells of a checkpoint, and the clock of a file system
        moves in steps of milliseconds.
        """
        os.utime(self._live.descriptor, ns=(_SEAL, _SEAL))

    def is_sealed(self) -> bool:
        """Whether nobody has written to the file since ``seal``; the log is not the file."""
        return os.fstat(self._live.descriptor).st_mtime_ns == _SEAL

    def index(self) -> WalIndex:
        """Return what the index says.

        Raises:
            Busy: somebody is writing it, or nobody has since it was cleared.
        """
        raw = os.pread(self._live.log_index(), _INDEX_BYTES, 0)
        first, second = raw[:48], raw[48:96]
        if len(raw) < _INDEX_BYTES or first != second or not any(first):
            raise sql.Busy("the index of the log is being written")
        frames, copied = (
            int.from_bytes(raw[at : at + 4], sys.byteorder) for at in (16, 96)
        )
        return WalIndex(frames, raw[32:40], copied, first)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep everybody from reading, writing, copying and recovering the log, for a moment.

        The lock belongs to the descriptor, so that it keeps this process's connections out, too.

        Raises:
            Busy: somebody, of any process, does one of these.
        """
        self._lock(fcntl.F_WRLCK)
        try:
            yield
        finally:
            self._lock(fcntl.F_UNLCK)

    def _lock(self, kind: int) -> None:
        lock_bytes(self._live.log_index(), kind, _LOCKS_AT, _LOCKS)

    def cut(self, size: int) -> None:
        """Cut the log. The caller has locked the index, and clears it."""
        os.truncate(self.path, size)

    def clear_index(self) -> None:
        """Have SQLite make the index anew: a header of zeros is what it finds after a crash."""
        os.pwrite(self._live.log_index(), bytes(96), 0)


class WalPicture(Picture):
    """The beginning of the log, which goes over the parent's file."""

    def __init__(self, live: LiveFile, parent: Picture, start: Path) -> None:
        super().__init__(live.new_file(), parent)
        self._below, self._start = parent, start

    def file(self) -> Path:
        """Return the whole content, which is made once."""
        file = self._file
        if file.exists():
            return file
        with sql.whole_or_none(file), sql.whole_or_none(Path(f"{file}-wal")) as wal:
            shutil.copyfile(self._below.file(), file)
            shutil.copyfile(self._start, wal)
            with file.open("r+b") as stream:  # else SQLite would look for no log
                stream.seek(18)
                stream.write(WAL_MODE)
            with closing(sql.open_control(file)) as control:
                control.execute("PRAGMA journal_mode = DELETE").fetchone()
        return file

    def remove(self) -> None:
        """Remove the log as well."""
        super().remove()
        self._start.unlink(missing_ok=True)


class Mark(NamedTuple):
    """Where the log ended when the file stood at a picture, and its schema cookie."""

    frames: int
    salts: bytes
    cookie: int


class Wal:
    """In a file with a write-ahead log, cut the log back to where it was.

    Cost: 0.2 ms at any size, as long as nobody has copied the log into the file.
    """

    name = "wal"
    has_wal = True

    def __init__(self, live: LiveFile) -> None:
        self._live, self._control, self._log = live, live.control, LiveLog(live)
        self.parent: Picture | None = None  # what the file holds, without its log
        self._marks: WeakKeyDictionary[Picture, Mark] = WeakKeyDictionary()
        self._highest = 0  # schema cookie of all that were seen

    def settle(self, picture: Picture, version: int) -> None:
        """Have the file alone hold the picture, so that what changes from here on is in the log."""
        self._lose()
        header = self._live.header()
        if header is None or not header.is_wal or not picture.file().stat().st_size:
            return
        try:
            mark = self._new_mark()
            still_so = self._control.data_version() == version
        except (sql.Busy, sql.FileFailure, OSError):
            return
        if mark is not None and still_so:
            self.parent, self._marks[picture] = picture, mark

    def _lose(self) -> None:
        self.parent = None
        self._marks.clear()

    def _new_mark(self) -> Mark | None:
        if self._control.number("PRAGMA wal_checkpoint(TRUNCATE)"):
            return None  # somebody reads
        # Every empty log looks like any other. One frame of our own, a commit that changes nothing,
        # gives this one its random salts, by which a connection that slept through the change of
        # the file knows of it.
        with self._control.writing():
            number = self._control.number("PRAGMA user_version")
            self._control.execute(f"PRAGMA user_version = {number}")
        with self._log.locked():
            header, index = self._live.header(), self._log.index()
            if header is None or index.frames != 1:
                return None
            self._log.seal()
            return Mark(1, index.salts, header.cookie)

    def is_written_past_log(self) -> bool:
        """Return whether a checkpoint, or a program other than SQLite, wrote the file."""
        return self.parent is not None and not self._log.is_sealed()

    def take(self) -> Picture:
        """Copy the log, and note where it ends."""
        if self.parent is None:
            raise Unfit
        with self._control.reading(), sql.whole_or_none(self._live.new_file()) as start:
            index, cookie = self._log.index(), self._control.schema_version()
            size = self._checked_size(index, index.frames)
            with self._log.path.open("rb") as log:
                copy_start(log.fileno(), start, size)
        picture = WalPicture(self._live, self.parent, start)
        self._marks[picture] = Mark(index.frames, index.salts, cookie)
        return picture

    glance = take

    def restore(self, picture: Picture, version: int) -> int:
        """Cut the log, while nobody else reads or writes."""
        mark = self._marks.get(picture)
        if mark is None:
            raise Unfit
        try:
            self._cut_back(mark)
        except sql.Busy as error:
            # Whoever reads has a snapshot, which a backup would leave alone; a writer stops both.
            raise Unfit from error
        # Have the log's index made anew, and every connection read a schema that has moved.
        frames, version = mark.frames, self._control.data_version()
        if self._highest != mark.cookie:
            # The next test's changes must not lead to a cookie that somebody has seen.
            self._highest += 1
            signed = self._highest - 2**32 if self._highest >= 2**31 else self._highest
            self._control.execute(f"PRAGMA schema_version = {signed}")
            frames += 1
        index = self._log.index()
        if index.frames != frames:
            return NEVER  # somebody has committed since the lock was given back
        self._marks[picture] = Mark(frames, index.salts, self._highest)
        return version

    def _cut_back(self, mark: Mark) -> None:
        # Readers have to be looked for before the control connection becomes one.
        before = self._log.index()
        self._highest = max(self._highest, self._control.schema_version())
        with self._log.locked():
            index = self._log.index()
            size = self._checked_size(index, mark.frames)
            if (
                index != before
                or mark.frames > index.frames
                or mark.salts != index.salts
            ):
                raise Unfit
            self._log.cut(size)
            self._log.clear_index()

    def _checked_size(self, index: WalIndex, frames: int) -> int:
        """Return the size of so many frames. The file is what it was, the log has all changes."""
        header = self._live.header()
        if (
            header is None
            or not header.is_wal
            or not self._log.is_sealed()
            or index.copied
        ):
            self._lose()
            raise Unfit
        return 32 + frames * (24 + header.page_size)

"""Reads and writes a live file and its write-ahead log.

The offsets come from https://sqlite.org/fileformat.html and https://sqlite.org/walformat.html.
This needs Linux, because on other systems no lock belongs to a descriptor.
"""

import os
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Self

from pytest_arena._origin import as_own
from pytest_arena._process import path_exists
from pytest_arena._sqlite import _sql as sql

if sys.platform == "linux":
    import fcntl

# magic, page size, journal mode, change counter, pages, schema cookie
_HEADER = struct.Struct(">16sH2s4xII8xI56x")
_MAGIC = b"SQLite format 3\0"
_MODE_OFFSET = 18
_WAL_MODE = b"\2\2"
_LARGEST_PAGE = 65536  # this size does not fit into two bytes, so SQLite writes 1

_FLOCK = "hhqqi4x"  # struct flock: type, whence, start, length, process
# SQLite's lock bytes in the file: https://sqlite.org/fileformat.html#the_lock_byte_page
_SHARED = 0x40000002
_SHARED_SIZE = 510
# The lock bytes in the log's index: writer, checkpoint, recovery and five readers.
_INDEX_LOCKS = 120
_INDEX_LOCKS_SIZE = 8

# the header, a copy of it, and the number of frames that a checkpoint has copied into the file
_INDEX = struct.Struct("=48s48sI")
_INDEX_HEADER = struct.Struct("=16xI12x8s8x")  # number of frames, salts
_WAL_HEADER_SIZE = 32
_FRAME_HEADER_SIZE = 24

_SEALED = 1_000_000_000  # a modification time in the past

_LOG_IS_LOST = (
    "its log (-wal, -shm) was removed, or the file overwritten, while connections were open "
    "(VACUUM INTO copies a database whose connections stay open)"
)
_snapshot_numbers = count(1)


@dataclass(frozen=True, slots=True)
class Header:
    """The fields of a database file's header that a restore needs."""

    page_size: int
    pages: int  # valid once SQLite has closed the file
    counter: int
    cookie: int
    is_wal: bool

    @classmethod
    def parse(cls, raw: bytes) -> Self | None:
        """Return the header in a file's first bytes, None if the file is no database."""
        if len(raw) < _HEADER.size:
            return None
        magic, page_size, mode, counter, pages, cookie = _HEADER.unpack_from(raw)
        if magic != _MAGIC or not page_size:
            return None
        if page_size == 1:
            page_size = _LARGEST_PAGE
        return cls(page_size, pages, counter, cookie, mode == _WAL_MODE)


def is_whole(file: Path) -> bool:
    """Return whether a closed file has the length in its header."""
    with file.open("rb") as stream:
        header = Header.parse(stream.read(_HEADER.size))
    if header is None:
        return False
    return file.stat().st_size == header.page_size * header.pages


def set_wal_mode(file: Path) -> None:
    """Write the WAL mode into a file's header, so that SQLite reads the log beside it."""
    with file.open("r+b") as stream:
        stream.seek(_MODE_OFFSET)
        stream.write(_WAL_MODE)


def is_supported() -> bool:
    """Return whether this system has locks that belong to a descriptor."""
    return sys.platform == "linux" and hasattr(fcntl, "F_OFD_SETLK")


class LiveFile:
    """A database file: pytest-arena's connection to it, and its bytes.

    The descriptors stay open until ``close``. Closing any descriptor of a file drops all locks of
    the process on the file (https://sqlite.org/howtocorrupt.html, 2.2). For this reason the file is
    never mapped: ``mmap`` duplicates a descriptor and closes it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.control = sql.open_control(path)
        self.descriptor = -1
        if is_supported():
            with as_own():
                self.descriptor = os.open(path, os.O_RDWR)
        self._shm_descriptor = -1
        self._log = f"{path}-wal"
        self._keeps_log = False
        self._identity = sql.identity(path)

    def close(self) -> None:
        """Close the connection, and then the descriptors, because SQLite needs its locks."""
        self.control.close()
        for descriptor in (self.descriptor, self._shm_descriptor):
            if descriptor >= 0:
                os.close(descriptor)
        self.descriptor = -1
        self._shm_descriptor = -1
        self._keeps_log = False

    def new_snapshot_path(self) -> Path:
        """Return an unused path for a snapshot."""
        return self.path.with_name(f"{self.path.name}.level-{next(_snapshot_numbers)}")

    def header(self) -> Header | None:
        """Return the file's header, None before the first write. Costs 3 µs."""
        return Header.parse(os.pread(self.descriptor, _HEADER.size, 0))

    def read(self) -> bytes:
        """Return the whole file."""
        return os.pread(self.descriptor, os.fstat(self.descriptor).st_size, 0)

    def write(self, data: bytearray | memoryview, offset: int) -> None:
        """Write to the file. The caller holds the write lock."""
        os.pwrite(self.descriptor, data, offset)

    def truncate(self, size: int) -> None:
        """Cut the file. The caller holds the write lock."""
        os.ftruncate(self.descriptor, size)

    def copy_to(self, target: Path) -> None:
        """Copy the file."""
        copy_start(self.descriptor, target, os.fstat(self.descriptor).st_size)

    def is_in_place(self) -> bool:
        """Return whether the path has the same file and log as open connections."""
        return not self.is_replaced() and not self.has_lost_log()

    def is_replaced(self) -> bool:
        """Return whether the path has another file or no file."""
        return sql.identity(self.path) != self._identity

    def check_log(self) -> None:
        """Raise ``FileNotFoundError`` if the log was removed or the file overwritten."""
        if self.has_lost_log():
            raise FileNotFoundError(_LOG_IS_LOST)

    def has_lost_log(self) -> bool:
        """Return whether the log was removed, or the database overwritten. Costs 1 µs.

        If the log was removed, open connections keep using a file that no other process can open.
        An overwritten database is noticed only if the new file is not in WAL mode.
        """
        if self._shm_descriptor >= 0:
            number_of_names = os.fstat(self._shm_descriptor).st_nlink
            if number_of_names == 0:
                return True
        elif self.descriptor < 0 or not path_exists(self._log):
            return False
        mode = os.pread(self.descriptor, 2, _MODE_OFFSET)
        return mode != _WAL_MODE

    def keep_log(self) -> None:
        """Keep the log of a file in WAL mode from now on.

        The caller has read the file with the control connection.

        Raises:
            FileNotFoundError: the log was removed while connections used it.
        """
        if self._keeps_log or self.descriptor < 0:
            return
        header = self.header()
        if header is None or not header.is_wal:
            return
        try:
            self.open_log_index()
        except FileNotFoundError as error:
            raise FileNotFoundError(_LOG_IS_LOST) from error

    def open_log_index(self) -> int:
        """Open the log's index, and keep the log. Return the descriptor, which stays open.

        A process that closes the database removes the log if no other process has a lock on the
        file. SQLite's locks are not enough, because an app that copies its file with
        ``shutil.copy`` drops them. An open file description lock (OFD) stays. Some kernels have no
        such locks.

        Raises:
            OSError: no log exists.
        """
        if self._shm_descriptor < 0:
            self._shm_descriptor = os.open(f"{self.path}-shm", os.O_RDWR)
        if not self._keeps_log:
            with suppress(sql.Busy):
                _lock(self.descriptor, fcntl.F_RDLCK, _SHARED, _SHARED_SIZE)
                self._keeps_log = True
        return self._shm_descriptor


@dataclass(frozen=True, slots=True)
class LogIndex:
    """The last commit in the index of the log."""

    frames: int
    salts: bytes
    copied: int  # frames that a checkpoint has copied into the file
    header: bytes


class LiveLog:
    """The write-ahead log of a live file, and its index."""

    def __init__(self, live: LiveFile) -> None:
        self._live = live
        self.path = Path(f"{live.path}-wal")

    def seal_file(self) -> None:
        """Set a modification time, by which ``is_file_sealed`` notices the next write to the file.

        A checkpoint changes neither the file's header nor its size. A write to the log does not
        count.
        """
        os.utime(self._live.descriptor, ns=(_SEALED, _SEALED))

    def is_file_sealed(self) -> bool:
        """Return whether the file was not written since ``seal_file``."""
        return os.fstat(self._live.descriptor).st_mtime_ns == _SEALED

    def index(self) -> LogIndex:
        """Read the index.

        Raises:
            Busy: a connection is writing the index, or has to rebuild it.
        """
        raw = os.pread(self._live.open_log_index(), _INDEX.size, 0)
        if len(raw) == _INDEX.size:
            header, copy_of_header, copied = _INDEX.unpack(raw)
            if header == copy_of_header and any(header):
                frames, salts = _INDEX_HEADER.unpack(header)
                return LogIndex(frames, salts, copied, header)
        raise sql.Busy("the index of the log is being written")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock out readers, writers, checkpoints and recovery, also of this process.

        Raises:
            Busy: a connection of any process reads, writes, checkpoints or recovers.
        """
        index = self._live.open_log_index()
        _lock(index, fcntl.F_WRLCK, _INDEX_LOCKS, _INDEX_LOCKS_SIZE)
        try:
            yield
        finally:
            _lock(index, fcntl.F_UNLCK, _INDEX_LOCKS, _INDEX_LOCKS_SIZE)

    @staticmethod
    def size_of(frames: int, page_size: int) -> int:
        """Return the size of a log with this number of frames."""
        return _WAL_HEADER_SIZE + frames * (_FRAME_HEADER_SIZE + page_size)

    def copy_to(self, target: Path, size: int) -> None:
        """Copy the beginning of the log."""
        with self.path.open("rb") as log:
            copy_start(log.fileno(), target, size)

    def cut(self, size: int) -> None:
        """Cut the log. The caller has locked the index, and clears it."""
        os.truncate(self.path, size)

    def clear_index(self) -> None:
        """Write a header of zeros. Then SQLite rebuilds the index, as after a crash."""
        zeros = bytes(2 * _INDEX_HEADER.size)
        os.pwrite(self._live.open_log_index(), zeros, 0)


def copy_start(source: int, target: Path, size: int) -> None:
    """Copy the first bytes of a descriptor's file into a new file."""
    offset = 0
    with target.open("wb") as copy:
        while sent := os.sendfile(copy.fileno(), source, offset, size - offset):
            offset += sent


def _lock(descriptor: int, kind: int, start: int, size: int) -> None:
    """Lock or unlock bytes of a file. The lock belongs to the descriptor.

    Raises:
        Busy: another descriptor, or another process, has locked some of these bytes.
    """
    lock = struct.pack(_FLOCK, kind, os.SEEK_SET, start, size, 0)
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, lock)
    except OSError as error:
        raise sql.Busy("a reader or a writer holds a lock on the file") from error

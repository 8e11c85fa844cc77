"""What stands in SQLite's files, byte by byte: pages, the write-ahead log (WAL), its index, locks.

https://sqlite.org/fileformat.html and https://sqlite.org/walformat.html are where each offset is
from. Linux only: locks that belong to a descriptor, rather than to the process, are not portable.
"""

from __future__ import annotations

import os
import struct
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_arena._sqlite._sql import Busy, shm_of, wal_of

if sys.platform == "linux":
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "Header",
    "LiveFile",
    "WalIndex",
    "is_supported",
    "is_whole",
    "mark_as_wal",
    "stamped",
    "wal_size",
]

_HEADER_BYTES = 100
_MAGIC = b"SQLite format 3\0"
_WAL_MODE = b"\2\2"
_LARGEST_PAGE = 65536  # its size does not fit into two bytes, and is written as 1


@dataclass(frozen=True, slots=True)
class Header:
    """What the first page says of the file, and how many pages the file has."""

    page_size: int
    pages: int
    pages_said: int
    counter: int
    cookie: int
    is_wal: bool

    @classmethod
    def of(cls, raw: bytes, size: int) -> Header | None:
        """Read it from a file's first bytes and its size; None where there is no database yet."""
        if len(raw) < _HEADER_BYTES or not raw.startswith(_MAGIC):
            return None
        page_size = int.from_bytes(raw[16:18], "big")
        if not page_size:
            return None
        page_size = _LARGEST_PAGE if page_size == 1 else page_size
        counter, said, cookie = (int.from_bytes(raw[at : at + 4], "big") for at in (24, 28, 40))
        return cls(page_size, size // page_size, said, counter, cookie, raw[18:20] == _WAL_MODE)


@dataclass(frozen=True, slots=True)
class WalIndex:
    """What the index of the log says: its last commit, and what a checkpoint has copied."""

    frames: int
    salts: bytes
    copied: int
    raw: bytes


def is_whole(file: Path) -> bool:
    """Whether a finished file has the length that its header says: not one that was cut off."""
    with file.open("rb") as stream:
        raw = stream.read(_HEADER_BYTES)
    size = file.stat().st_size
    header = Header.of(raw, size)
    return header is not None and size == header.page_size * header.pages_said


def is_supported() -> bool:
    """Whether this system has what ``LiveFile`` needs."""
    return sys.platform == "linux" and hasattr(fcntl, "F_OFD_SETLK")


def wal_size(frames: int, page_size: int) -> int:
    """Return the length of a log up to a frame."""
    return 32 + frames * (24 + page_size)


def stamped(first_page: bytes, *, counter: int, cookie: int, pages: int) -> bytes:
    """Return a first page with other numbers in its header.

    The counter stands there twice, and only where both are equal is the number of pages valid.
    """
    page = bytearray(first_page)
    page[24:28] = page[92:96] = _big(counter)
    page[28:32] = _big(pages)
    page[40:44] = _big(cookie)
    return bytes(page)


def mark_as_wal(file: Path) -> None:
    """Make SQLite look for a log beside a file that had none."""
    with file.open("r+b") as stream:
        stream.seek(18)
        stream.write(_WAL_MODE)


def _big(number: int) -> bytes:
    return (number & 0xFFFFFFFF).to_bytes(4, "big")


class LiveFile:
    """A database file that SQLite has open in this process, seen from outside of SQLite.

    Its descriptors stay open until ``close``: closing *any* descriptor of a file takes all locks
    that the process has on it away from SQLite (https://sqlite.org/howtocorrupt.html, 2.2). A map
    (``mmap``) duplicates a descriptor and closes it, so the file is never mapped either.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._index_fd = -1

    def close(self) -> None:
        """Give the descriptors back: the process loses all its locks. Idempotent."""
        for descriptor in (self._fd, self._index_fd):
            if descriptor >= 0:
                os.close(descriptor)
        self._fd = self._index_fd = -1

    # The file.

    def header(self) -> Header | None:
        """Return what the first page says; None where there is none yet. Costs 3 µs."""
        return Header.of(os.pread(self._fd, _HEADER_BYTES, 0), os.fstat(self._fd).st_size)

    def read_into(self, buffer: bytearray, offset: int) -> int:
        """Fill a buffer from the file; returns how many bytes there were."""
        return os.preadv(self._fd, [buffer], offset)

    def write(self, data: bytes, offset: int) -> None:
        """Write to the file, whose write lock the caller has."""
        os.pwrite(self._fd, data, offset)

    def truncate(self, size: int) -> None:
        """Cut the file, whose write lock the caller has."""
        os.ftruncate(self._fd, size)

    def seal(self) -> None:
        """Give the file a time of its own, so that the next write to it can be seen.

        Neither its header nor its size tells of a checkpoint, and the clock of a file system
        moves in steps of milliseconds.
        """
        os.utime(self._fd, ns=(_SEAL, _SEAL))

    def is_sealed(self) -> bool:
        """Whether nobody has written to the file since ``seal``; the log is not the file."""
        return os.fstat(self._fd).st_mtime_ns == _SEAL

    # The log and its index.

    @property
    def wal(self) -> Path:
        """The file of the log."""
        return Path(wal_of(self.path))

    def index(self) -> WalIndex:
        """Return what the index says.

        Raises:
            Busy: somebody is writing it, or nobody has since it was cleared.
        """
        raw = os.pread(self._index(), 100, 0)
        first, second = raw[:48], raw[48:96]
        if len(raw) < _INDEX_BYTES or first != second or not any(first):
            raise Busy("the index of the log is being written")
        frames, copied = (int.from_bytes(raw[at : at + 4], sys.byteorder) for at in (16, 96))
        return WalIndex(frames, raw[32:40], copied, first)

    @contextmanager
    def index_locked(self) -> Iterator[None]:
        """Keep everybody from reading, writing, copying and recovering the log, for a moment.

        The lock belongs to the descriptor, so that it keeps this process's connections out, too.

        Raises:
            Busy: somebody, of any process, does one of these.
        """
        self._lock_index(fcntl.F_WRLCK)
        try:
            yield
        finally:
            self._lock_index(fcntl.F_UNLCK)

    def _lock_index(self, kind: int) -> None:
        lock = struct.pack("hhqqi4x", kind, os.SEEK_SET, _LOCKS_AT, _LOCKS, 0)
        try:
            fcntl.fcntl(self._index(), fcntl.F_OFD_SETLK, lock)
        except OSError as error:
            raise Busy("a reader or a writer holds a lock on the log") from error

    def _index(self) -> int:
        path = shm_of(self.path)
        now = os.stat(path)  # noqa: PTH116 - asked at each boundary: a third of Path's time
        if self._index_fd < 0 or not os.path.samestat(os.fstat(self._index_fd), now):
            if self._index_fd >= 0:
                os.close(self._index_fd)  # of a file that is gone: no lock on it counts
            self._index_fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        return self._index_fd

    def cut_wal(self, size: int) -> None:
        """Cut the log. The caller has locked the index, and clears it."""
        os.truncate(self.wal, size)

    def clear_index(self) -> None:
        """Have SQLite make the index anew: a header of zeros is what it finds after a crash."""
        os.pwrite(self._index(), bytes(96), 0)


_SEAL = 1_000_000_000  # a second after the epoch: a time that no clock gives
_INDEX_BYTES = 100
# Writer, checkpoint, recovery and five kinds of readers, a byte each.
_LOCKS_AT, _LOCKS = 120, 8

"""How is a database file brought back to what it was? By SQLite's backup, or page by page.

A picture is taken of a live file, and the file is brought back to it: by ``Backup`` on each system
and in each mode, with a rollback journal by ``Pages``, with a write-ahead log by ``Wal``. These two
are tried out before they are first used.

https://sqlite.org/fileformat.html is where each offset is from. What stands in a file beside
SQLite is seen on Linux only: locks that belong to a descriptor are not portable.
"""

from __future__ import annotations

import mmap
import os
import struct
import sys
import tempfile
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakKeyDictionary

from pytest_arena._sqlite import _sql as sql

if TYPE_CHECKING:
    from collections.abc import Iterator

if sys.platform == "linux":
    import fcntl

NEVER = -1  # a data version that no file has: whoever compares with it sees a change
_CHUNK = (
    256 * 1024
)  # a multiple of each page size, and smaller than a processor's cache
# What it is, the size of its pages, its mode; how often it has changed, how many pages, the schema.
_HEADER = struct.Struct(">16sH2s4xII8xI56x")
_MAGIC = b"SQLite format 3\0"
WAL_MODE = b"\2\2"
_MODE_AT = 18
_LARGEST_PAGE = 65536  # its size does not fit into two bytes, and is written as 1
_numbers = count(1)
_LOG_IS_LOST = (
    "its log (-wal, -shm) was removed, or its file overwritten, while connections used them "
    "(VACUUM INTO copies a database whose connections stay open)"
)

# What a way is tried out with.
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


class Unfit(Exception):
    """This way cannot do it now. Nothing was done, so that another way can."""


@dataclass(frozen=True, slots=True)
class Header:
    """What the first page says of the file."""

    page_size: int
    pages: int  # right in a file that SQLite has finished
    counter: int
    cookie: int
    is_wal: bool

    @classmethod
    def of(cls, raw: bytes) -> Header | None:
        """Read it from a file's first bytes; None where there is no database yet."""
        if len(raw) < _HEADER.size:
            return None
        magic, page_size, mode, counter, pages, cookie = _HEADER.unpack(raw)
        if magic != _MAGIC or not page_size:
            return None
        page_size = _LARGEST_PAGE if page_size == 1 else page_size
        return cls(page_size, pages, counter, cookie, mode == WAL_MODE)


def is_whole(file: Path) -> bool:
    """Whether a finished file has the length that its header says: not one that was cut off."""
    with file.open("rb") as stream:
        header = Header.of(stream.read(_HEADER.size))
    return header is not None and file.stat().st_size == header.page_size * header.pages


def is_supported() -> bool:
    """Whether the bytes of a live file can be seen, and its locks, on this system."""
    return sys.platform == "linux" and hasattr(fcntl, "F_OFD_SETLK")


class LiveFile:
    """A database file: arena's connection to it, and its bytes, seen from outside of SQLite.

    Its descriptors stay open until ``close``: closing *any* descriptor of a file takes all locks
    that the process has on it away from SQLite (https://sqlite.org/howtocorrupt.html, 2.2). A map
    (``mmap``) duplicates a descriptor and closes it, so the file is never mapped either.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.control = path, sql.open_control(path)
        self.descriptor = (
            os.open(path, os.O_RDWR | os.O_CLOEXEC) if is_supported() else -1
        )
        self._log_index = -1
        self._keeps_log = False
        self._identity = sql.identity(path)

    def close(self) -> None:
        """Let go of the file, SQLite first: it still needs its locks. Idempotent."""
        self.control.close()
        for descriptor in (self.descriptor, self._log_index):
            if descriptor >= 0:
                os.close(descriptor)
        self.descriptor = -1
        self._log_index = -1
        self._keeps_log = False

    def new_file(self) -> Path:
        """Return a place for a picture."""
        return self.path.with_name(f"{self.path.name}.level-{next(_numbers)}")

    def header(self) -> Header | None:
        """Return what the first page says; None where there is none yet. Costs 3 µs."""
        return Header.of(os.pread(self.descriptor, _HEADER.size, 0))

    def is_in_place(self) -> bool:
        """Return whether open connections and the path mean the same file, and the same log."""
        return not self.is_replaced() and not self.has_lost_log()

    def is_replaced(self) -> bool:
        """Return whether the file at the path is not the one that was opened."""
        return sql.identity(self.path) != self._identity

    def check_log(self) -> None:
        """Raise ``FileNotFoundError`` where the log was removed or the file overwritten."""
        if self.has_lost_log():
            raise FileNotFoundError(_LOG_IS_LOST)

    def has_lost_log(self) -> bool:
        """Return whether the open log was removed, or its file overwritten. Costs 1 µs.

        Open connections would continue to use a log that no other process can find.
        """
        if self._log_index < 0:
            return False
        if os.fstat(self._log_index).st_nlink == 0:
            return True
        return os.pread(self.descriptor, 2, _MODE_AT) != WAL_MODE

    def keep_log(self) -> None:
        """Keep the log of a file in WAL mode from now on. The control connection has read the file.

        Raises:
            FileNotFoundError: the log was removed while connections used it.
        """
        if self._keeps_log or self.descriptor < 0:
            return
        header = self.header()
        if header is None or not header.is_wal:
            return
        try:
            self.log_index()
        except FileNotFoundError as error:
            raise FileNotFoundError(_LOG_IS_LOST) from error

    def write(self, data: bytes | memoryview, offset: int) -> None:
        """Write to the file, whose write lock the caller has."""
        os.pwrite(self.descriptor, data, offset)

    def truncate(self, size: int) -> None:
        """Cut the file, whose write lock the caller has."""
        os.ftruncate(self.descriptor, size)

    def log_index(self) -> int:
        """Return a descriptor of the log's index. The first call keeps the log.

        A process that closes the database removes the log if no other process has a lock on the
        file. SQLite's own locks are not enough: an app that copies its file with ``shutil.copy``
        drops them. An open file description lock (OFD) stays. Some kernels have no such locks.

        Raises:
            OSError: there is no log.
        """
        if self._log_index < 0:
            self._log_index = os.open(f"{self.path}-shm", os.O_RDWR | os.O_CLOEXEC)
        if not self._keeps_log:
            with suppress(sql.Busy):
                lock_bytes(self.descriptor, fcntl.F_RDLCK, _SHARED, _SHARED_SIZE)
                self._keeps_log = True
        return self._log_index


def copy_start(source: int, target: Path, size: int) -> None:
    """Copy so many bytes of a descriptor's file into a new one."""
    at = 0
    with target.open("wb") as copy:
        while sent := os.sendfile(copy.fileno(), source, at, size - at):
            at += sent


class Picture:
    """The content of a database at one time, in a file that nobody changes any more.

    A way may keep less: what differs from another picture, its ``parent``. The file is then made
    when somebody asks for it.
    """

    def __init__(self, file: Path, parent: Picture | None = None) -> None:
        self._file, self.parent = file, parent

    def file(self) -> Path:
        """Return the whole content as one file."""
        return self._file

    def remove(self) -> None:
        """Remove the file. Not for a picture in somebody else's file."""
        self._file.unlink(missing_ok=True)


class Glimpse(Picture):
    """What was seen of a small file: a file when somebody asks for it."""

    def __init__(self, file: Path, content: bytes, made: list[Path]) -> None:
        super().__init__(file)
        self._content, self._made = content, made

    def file(self) -> Path:
        """Return the whole content as one file."""
        if self._file not in self._made:
            self._made.append(self._file)
            with sql.whole_or_none(self._file) as file:
                file.write_bytes(self._content)
        return self._file

    def remove(self) -> None:
        """Remove the file, if somebody has asked for it."""
        if self._file in self._made:
            super().remove()


# Where SQLite's readers have their locks: os.h, https://sqlite.org/fileformat.html#the_lock_byte_page
_SHARED = 0x40000002
_SHARED_SIZE = 510


# A copy costs 0.5 ms at this size. A larger file pays its log's length where it has one, and
# nothing where it has none: then nobody is told what it held, unless he asks for it.
SMALL = 1024 * 1024


class Onlooker:
    """Looks at a file with a rollback journal from outside: no connection is made.

    Most databases in the place of memory end before anybody asks for more. A reader's lock of
    SQLite's own keeps writers out meanwhile, of all threads: it is the descriptor's, and not the
    process's. Cost: 10 µs, and 0.1 ms a MB of a picture. Methods raise ``Busy`` where somebody
    writes, and ``OSError``. Its data version is the number of the last commit; its turn is none
    that an opened file has.
    """

    turn = -1

    def __init__(self, path: Path) -> None:
        self._path, self._made = path, list[Path]()
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        status = os.fstat(self._descriptor)
        self._identity, self._counter = (status.st_dev, status.st_ino), 0

    def close(self) -> None:
        """Let go of the file, whose locks are of no use any more (see ``LiveFile``)."""
        os.close(self._descriptor)
        for file in self._made:
            file.unlink(missing_ok=True)

    def sees(self) -> bool:
        """Look. False where it has a log, or nothing in it, or is not there any more."""
        if sql.identity(self._path) != self._identity:
            return False
        # Asked, not taken: each call lets another thread have the interpreter, for milliseconds.
        asked = self._descriptor, fcntl.F_RDLCK, _SHARED, _SHARED_SIZE
        if lock_bytes(*asked, how=fcntl.F_OFD_GETLK) != fcntl.F_UNLCK:
            raise sql.Busy("a writer has the file to itself")
        header = Header.of(os.pread(self._descriptor, _HEADER.size, 0))
        self._counter = header.counter if header is not None else 0
        return header is not None and not header.is_wal

    @property
    def control(self) -> Onlooker:
        """Itself: there is no connection."""
        return self

    def check_place(self) -> None:
        """Nothing: it was looked at."""

    def data_version(self) -> int:
        """Return what was seen."""
        return self._counter

    def glance(self, version: int, *, exact: bool) -> Glimpse | None:  # noqa: ARG002 - as of who has opened it
        """Return a picture of what stands, None where that is large."""
        with self._reading():
            # Its size first: for as much as it may be, memory is asked for, and given back.
            size = os.fstat(self._descriptor).st_size
            content = os.pread(self._descriptor, size, 0) if size <= SMALL else None
        file = Path(f"{self._path}.level-{next(_numbers)}")
        return Glimpse(file, content, self._made) if content is not None else None

    @contextmanager
    def _reading(self) -> Iterator[None]:
        lock_bytes(self._descriptor, fcntl.F_RDLCK, _SHARED, _SHARED_SIZE)
        try:
            yield
        finally:
            lock_bytes(self._descriptor, fcntl.F_UNLCK, _SHARED, _SHARED_SIZE)


def lock_bytes(
    descriptor: int, kind: int, start: int, size: int, *, how: int = 0
) -> int:
    """Lock bytes of a file for a descriptor, or unlock them; ``Busy`` where another has them.

    With ``fcntl.F_OFD_GETLK`` nothing is locked. Returns what kind of lock is, or may be, in the
    way then.
    """
    lock = struct.pack("hhqqi4x", kind, os.SEEK_SET, start, size, 0)
    try:  # a kind is one byte of two, the first one or the last
        return max(fcntl.fcntl(descriptor, how or fcntl.F_OFD_SETLK, lock)[:2])
    except OSError as error:
        if not how:
            raise sql.Busy("a reader or a writer holds a lock on it") from error
    return kind  # some kernels know no such locks, as gVisor's: nobody can tell


class Way(Protocol):
    """One way to bring a live file back.

    Guarantee: after ``restore`` the file's content is the picture's, and every open connection of
    every process sees it. Each method raises ``Unfit``, or ``OSError``, where another way must do
    it, ``Busy`` where somebody's lock keeps everybody from it, and ``FileFailure`` where SQLite
    cannot read or write the file.
    """

    name: str
    has_wal: bool  # whether it is for a file with a write-ahead log, or for one without
    parent: Picture | None  # what its pictures may be made of

    def __init__(self, live: LiveFile) -> None:
        """Open it for a live file."""

    def settle(self, picture: Picture, version: int) -> None:
        """Learn that the file stands at a picture, by another way. It did at this data version."""

    def take(self) -> Picture:
        """Take a picture of what stands."""

    def glance(self) -> Picture:
        """Take one by which nothing is to be brought back."""

    def is_written_past_log(self) -> bool:
        """Return whether the file itself was written since ``settle``, which no commit shows."""

    def restore(self, picture: Picture, version: int) -> int:
        """Bring the file back, which nobody writes to. It changed up to this data version.

        Returns the data version at which it stands at the picture, or ``NEVER``.
        """


class Backup:
    """SQLite's own online backup into the live file: public API alone, with every picture.

    The backup raises the change counter and the schema cookie beyond all that were seen, so that
    open connections drop what they have cached. Cost: 0.1-0.2 ms at 0.2 MB, 1.5 ms a MB beyond.
    """

    name = "backup"

    def __init__(self, live: LiveFile) -> None:
        self._live = live

    def take(self) -> Picture:
        """Copy what stands into a file."""
        file = self._live.new_file()
        self._live.control.copy_to_file(file)
        return Picture(file)

    def restore(self, picture: Picture, version: int) -> int:
        """Copy the picture into the live file. What the control connection writes moves nothing."""
        with closing(sql.open_picture(picture.file())) as source:
            source.copy_into(self._live.control)
        return version


class Pages:
    """In a file with a rollback journal, write back the pages that differ.

    Cost: follows the changed pages, and a scan of 0.1-0.2 ms a MB; of a picture, a copy of the
    file.
    """

    name = "pages"
    has_wal = False
    parent: Picture | None = None

    def __init__(self, live: LiveFile) -> None:
        self._live = live
        self._cookies: WeakKeyDictionary[Picture, int] = WeakKeyDictionary()
        self._maps: WeakKeyDictionary[Picture, mmap.mmap] = WeakKeyDictionary()

    def settle(self, picture: Picture, version: int) -> None:  # noqa: ARG002 - other ways need it
        """Forget the schema cookie: it is asked for under a lock, and nobody has one now."""
        self._cookies.pop(picture, None)

    def is_written_past_log(self) -> bool:
        """Return False: there is no log, and SQLite compares the file's header."""
        return False

    def take(self) -> Picture:
        """Copy the file."""
        live = self._live
        with live.control.reading(), sql.whole_or_none(live.new_file()) as file:
            header = self._header()
            copy_start(live.descriptor, file, os.fstat(live.descriptor).st_size)
        picture = Picture(file)
        self._cookies[picture] = header.cookie
        return picture

    def glance(self) -> Picture:
        """Read the file, which takes half as long as to copy it where it is small."""
        live = self._live
        with live.control.reading():
            self._header()
            content = os.pread(live.descriptor, os.fstat(live.descriptor).st_size, 0)
        return Glimpse(live.new_file(), content, [])

    def restore(self, picture: Picture, version: int) -> int:
        """Write back what differs, while nobody else reads or writes."""
        with self._live.control.alone():
            header, wanted = self._header(), self._map(picture)
            described = Header.of(wanted[: _HEADER.size])
            if described is None or described.page_size != header.page_size:
                raise Unfit
            self._write_back(memoryview(wanted), header.page_size)
            # A counter that somebody has seen would let a connection that slept through the undo
            # read what it had cached of the undone test; so would a cookie, of its schema.
            counter = (header.counter + 1) & 0xFFFFFFFF
            cookie = (
                header.cookie + (header.cookie != self._cookies.get(picture))
            ) & 0xFFFFFFFF
            self._cookies[picture] = cookie
            first = bytearray(wanted[: header.page_size])
            # The counter stands there twice: where both are equal, the number of pages is valid.
            first[24:28] = first[92:96] = counter.to_bytes(4, "big")
            first[28:32] = (len(wanted) // header.page_size).to_bytes(4, "big")
            first[40:44] = cookie.to_bytes(4, "big")
            self._live.write(bytes(first), 0)
        version = self._live.control.data_version()
        now = self._live.header()
        # Somebody may have committed since the lock was given back.
        return version if now is not None and now.counter == counter else NEVER

    def _header(self) -> Header:
        header = Header.of(os.pread(self._live.descriptor, _HEADER.size, 0))
        if header is None or header.is_wal:
            raise Unfit
        return header

    def _map(self, picture: Picture) -> mmap.mmap:
        if picture not in self._maps:
            with picture.file().open("rb") as stream:
                try:
                    self._maps[picture] = mmap.mmap(
                        stream.fileno(), 0, access=mmap.ACCESS_READ
                    )
                except ValueError as error:  # an empty file
                    raise Unfit from error
        return self._maps[picture]

    def _write_back(self, wanted: memoryview, page_size: int) -> None:
        """Write the pages that differ, but for the first, and give the file its length."""
        there = bytearray(min(_CHUNK, len(wanted)))
        for start in range(0, len(wanted), _CHUNK):
            chunk = wanted[start : start + _CHUNK]
            read = os.preadv(self._live.descriptor, [there], start)
            del there[min(read, len(chunk)) :]
            if (
                there == chunk
            ):  # in this order: a memoryview would compare number by number
                continue
            for at in range(0, len(chunk), page_size):
                page = chunk[at : at + page_size]
                if start + at and there[at : at + page_size] != page:
                    self._live.write(page, start + at)
        self._live.truncate(len(wanted))


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
            stack.enter_context(
                closing(sql.OwnConnection(file, isolation_level=None, timeout=0))
            )
            for _ in range(2)
        )
        for hand in (self._writer, self._reader):
            hand.execute("PRAGMA synchronous = OFF")
            sql.leave_wal_alone(hand)
        self._writer.execute(
            f"PRAGMA journal_mode = {'wal' if way.has_wal else 'delete'}"
        ).close()
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
        return [
            [_look(hand, q) for q in _QUERIES] for hand in (self._writer, self._reader)
        ]


def _look(hand: sql.OwnConnection, query: str) -> object:
    cursor = hand.execute(query)
    # A stale schema may have as many columns: their names tell.
    return [column[0] for column in cursor.description], cursor.fetchall()

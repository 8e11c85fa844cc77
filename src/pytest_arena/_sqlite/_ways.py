"""How is a database file brought back to what it was?

A picture is taken of a live file, and the file is brought back to it: by ``Backup`` on each system
and in each mode, by the fast ways ``Pages`` and ``Wal`` where they can.
"""

from __future__ import annotations

import mmap
import shutil
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol
from weakref import WeakKeyDictionary

from pytest_arena._sqlite import _sql as sql
from pytest_arena._sqlite._file import (
    Header,
    LiveFile,
    is_supported,
    mark_as_wal,
    stamped,
    wal_size,
)
from pytest_arena._sqlite._sql import wal_of
from pytest_arena.errors import impossible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_arena._sqlite._file import WalIndex

__all__ = [
    "NEVER",
    "Backup",
    "FileAccess",
    "MemoryPicture",
    "Pages",
    "Picture",
    "Unfit",
    "Wal",
    "Way",
    "whole_or_none",
]

NEVER = -1  # a data version that no file has: whoever compares with it sees a change
_CHUNK = 256 * 1024  # a multiple of each page size, and smaller than a processor's cache


class Unfit(Exception):
    """This way cannot do it now. Nothing was done, so that another way can."""


@contextmanager
def whole_or_none(file: Path) -> Iterator[Path]:
    """Write a file; where that fails, what was written does not stay on a disk that is full."""
    try:
        yield file
    except BaseException:
        file.unlink(missing_ok=True)
        raise


@dataclass(frozen=True, slots=True)
class FileAccess:
    """A live file: the connection that controls it, its bytes, and room for pictures beside it."""

    control: sql.OwnConnection
    file: LiveFile
    new_file: Callable[[], Path]

    @classmethod
    def open(cls, path: Path, new_file: Callable[[], Path]) -> FileAccess | None:
        """Open a file; None where the system lets nobody see its bytes beside SQLite."""
        if not is_supported():
            return None
        return cls(sql.open_control(path), LiveFile(path), new_file)

    def close(self) -> None:
        """Let go of the file, SQLite first: it still needs its locks."""
        self.control.close()
        self.file.close()


class Picture:
    """The content of a database at one time, in a file that nobody changes any more.

    A way may keep less: what differs from another picture, its ``parent``. The file is then made
    when somebody asks for it.
    """

    def __init__(self, file: Path | None = None, parent: Picture | None = None) -> None:
        self._file, self.parent = file, parent
        self._source: sql.OwnConnection | None = None

    def file(self) -> Path:
        """Return the whole content as one file."""
        if self._file is None:
            self._file = self._make()
        return self._file

    def _make(self) -> Path:
        raise NotImplementedError

    def source(self) -> sql.OwnConnection:
        """Return a connection to the file."""
        if self._source is None:
            self._source = sql.open_picture(self.file())
        return self._source

    def close(self) -> None:
        """Close the connection."""
        if self._source is not None:
            self._source.close()
            self._source = None

    def remove(self) -> None:
        """Close the connection, and remove the file. Not for a picture in somebody else's file."""
        self.close()
        if self._file is not None:
            self._file.unlink(missing_ok=True)

    def _copy_parent_to(self, file: Path) -> None:
        if self.parent is None:
            raise impossible("a whole picture of a database has no file")
        shutil.copyfile(self.parent.file(), file)


class MemoryPicture(Picture):
    """A small database, in memory until somebody compares it."""

    def __init__(self, control: sql.OwnConnection, new_file: Callable[[], Path]) -> None:
        super().__init__()
        self._new_file = new_file
        self._source = sql.open_memory()
        try:
            sql.copy_into(control, self._source)
        except BaseException:
            self._source.close()
            raise

    def _make(self) -> Path:
        file = self._new_file()
        sql.copy_to_file(self.source(), file)
        return file


class Way(Protocol):
    """One way to bring a live file back.

    Guarantee: after ``restore`` the file's content is the picture's, and every open connection of
    every process sees it. Each method raises ``Unfit``, or ``OSError``, where another way must do
    it, ``Busy`` where somebody's lock keeps everybody from it, and ``FileFailure`` where SQLite
    cannot read or write the file.
    """

    name: str
    has_wal: bool  # whether it is for a file with a write-ahead log, or for one without
    parent: Picture | None

    def __init__(self, live: FileAccess) -> None:
        """Open it for a live file."""

    def settle(self, picture: Picture, version: int) -> None:
        """Learn that the file stands at a picture, by another way. It did at this data version."""

    def take(self) -> Picture:
        """Take a picture of what stands."""

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

    def __init__(self, control: sql.OwnConnection, new_file: Callable[[], Path]) -> None:
        self._control, self._new_file = control, new_file

    def take(self) -> Picture:
        """Copy what stands into a file."""
        file = self._new_file()
        sql.copy_to_file(self._control, file)
        return Picture(file)

    def restore(self, picture: Picture, version: int) -> int:
        """Copy the picture into the live file. What the control connection writes moves nothing."""
        sql.copy_into(picture.source(), self._control)
        return version


class PagesPicture(Picture):
    """The pages that differ from the parent's."""

    def __init__(
        self, live: FileAccess, parent: Picture, pages: dict[int, bytes], count: int
    ) -> None:
        super().__init__(parent=parent)
        self._live, self.pages, self.count = live, pages, count

    def _make(self) -> Path:
        with whole_or_none(self._live.new_file()) as file:
            self._copy_parent_to(file)
            with file.open("r+b") as stream:
                page_size = len(self.pages[1])
                for number, page in self.pages.items():
                    stream.seek((number - 1) * page_size)
                    stream.write(page)
                stream.truncate(self.count * page_size)
        return file


@dataclass(frozen=True, slots=True)
class Content:
    """What a picture holds, by page: a map of its parent, and what differs from that."""

    parent: mmap.mmap
    page_size: int
    pages: dict[int, bytes]
    count: int

    def page(self, number: int) -> bytes:
        """Return a page; the first one has number 1."""
        at = (number - 1) * self.page_size
        return self.pages.get(number) or self.parent[at : at + self.page_size]


class Pages:
    """In a file with a rollback journal, write back the pages that differ.

    Cost: follows the changed pages, and a scan of 0.1-0.2 ms a MB.
    """

    name = "pages"
    has_wal = False

    def __init__(self, live: FileAccess) -> None:
        self._live = live
        self.parent: Picture | None = None
        self._cookies: WeakKeyDictionary[Picture, int] = WeakKeyDictionary()
        self._maps: WeakKeyDictionary[Picture, mmap.mmap] = WeakKeyDictionary()

    def settle(self, picture: Picture, version: int) -> None:  # noqa: ARG002 - other ways need it
        """From here on pictures are taken as what differs from this one."""
        self.parent = picture
        # Unknown: it is asked for under a lock, and nobody has one now.
        self._cookies.pop(picture, None)

    def take(self) -> Picture:
        """Keep the pages that differ from the parent's."""
        if self.parent is None:
            raise Unfit
        with sql.reading(self._live.control):
            header = self._header()
            parent = self._whole(self.parent, header)
            pages = {number: bytes(page) for number, page in self._changed(parent, header)}
            for number in (1, *range(parent.count + 1, header.pages + 1)):
                page = bytearray(header.page_size)
                self._live.file.read_into(page, (number - 1) * header.page_size)
                pages[number] = bytes(page)
        picture = PagesPicture(self._live, self.parent, pages, header.pages)
        self._cookies[picture] = header.cookie
        return picture

    def restore(self, picture: Picture, version: int) -> int:
        """Write back what differs, while nobody else reads or writes."""
        with sql.alone(self._live.control):
            header = self._header()
            content = self._content(picture, header)
            self._write_back(content, header)
            # A counter that somebody has seen would let a connection that slept through the undo
            # read what it had cached of the undone test; so would a cookie, of its schema.
            counter = (header.counter + 1) & 0xFFFFFFFF
            cookie = (header.cookie + (header.cookie != self._cookies.get(picture))) & 0xFFFFFFFF
            self._cookies[picture] = cookie
            first = stamped(content.page(1), counter=counter, cookie=cookie, pages=content.count)
            self._live.file.write(first, 0)
        version = sql.data_version(self._live.control)
        now = self._live.file.header()
        # Somebody may have committed since the lock was given back.
        return version if now is not None and now.counter == counter else NEVER

    def _header(self) -> Header:
        header = self._live.file.header()
        if header is None or header.is_wal:
            raise Unfit
        return header

    def _content(self, picture: Picture, header: Header) -> Content:
        if isinstance(picture, PagesPicture) and picture.parent is not None:
            whole = self._whole(picture.parent, header)
            return replace(whole, pages=picture.pages, count=picture.count)
        return self._whole(picture, header)

    def _whole(self, picture: Picture, header: Header) -> Content:
        mapped = self._map(picture)
        described = Header.of(mapped[:100], len(mapped))
        if described is None or described.page_size != header.page_size:
            raise Unfit
        return Content(mapped, header.page_size, {}, described.pages)

    def _map(self, picture: Picture) -> mmap.mmap:
        if picture not in self._maps:
            with picture.file().open("rb") as stream:
                try:
                    self._maps[picture] = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
                except ValueError as error:  # an empty file
                    raise Unfit from error
        return self._maps[picture]

    def _write_back(self, content: Content, header: Header) -> None:
        page_size, seen = content.page_size, {1}
        for number, page in self._changed(content, header):
            seen.add(number)
            if 1 < number <= content.count and page != (wanted := content.page(number)):
                self._live.file.write(wanted, (number - 1) * page_size)
        missing = range(header.pages + 1, content.count + 1)
        for number in {*content.pages, *missing} - seen:
            if number <= content.count:
                self._live.file.write(content.page(number), (number - 1) * page_size)
        if header.pages > content.count:
            self._live.file.truncate(content.count * page_size)

    def _changed(self, content: Content, header: Header) -> Iterator[tuple[int, bytearray]]:
        """Yield the pages of the live file that differ from the parent's, as far as both go."""
        page_size, view = content.page_size, memoryview(content.parent)
        end = min(len(content.parent), header.pages * page_size)
        buffer = bytearray(min(_CHUNK, end))
        for at in range(0, end, _CHUNK):
            if at + len(buffer) > end:
                buffer = bytearray(end - at)
            self._live.file.read_into(buffer, at)
            if buffer == (parent := view[at : at + len(buffer)]):
                continue
            for offset in range(0, len(buffer), page_size):
                page = buffer[offset : offset + page_size]
                if page != parent[offset : offset + page_size]:
                    yield (at + offset) // page_size + 1, page


class WalPicture(Picture):
    """The beginning of the log, which goes over the parent's file."""

    def __init__(self, live: FileAccess, parent: Picture, start: Path) -> None:
        super().__init__(parent=parent)
        self._live, self._start = live, start

    def _make(self) -> Path:
        with whole_or_none(self._live.new_file()) as file, whole_or_none(Path(wal_of(file))) as wal:
            self._copy_parent_to(file)
            mark_as_wal(file)
            shutil.copyfile(self._start, wal)
            sql.fold_wal(file)
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

    def __init__(self, live: FileAccess) -> None:
        self._live, self._control = live, live.control
        self.parent: Picture | None = None  # what the file holds, without its log
        self._marks: WeakKeyDictionary[Picture, Mark] = WeakKeyDictionary()
        self._highest = 0  # schema cookie of all that were seen

    def settle(self, picture: Picture, version: int) -> None:
        """Have the file alone hold the picture, so that what changes from here on is in the log."""
        self.parent = None
        self._marks.clear()
        header = self._live.file.header()
        if header is None or not header.is_wal or not picture.file().stat().st_size:
            return
        try:
            mark = self._new_mark()
            still_so = sql.data_version(self._control) == version
        except (sql.Busy, sql.FileFailure, OSError):
            return
        if mark is not None and still_so:
            self.parent, self._marks[picture] = picture, mark

    def _new_mark(self) -> Mark | None:
        if not sql.empty_wal(self._control):
            return None
        # Every empty log looks like any other. One frame of our own gives this one its random
        # salts, by which a connection that slept through the change of the file knows of it.
        sql.rewrite_first_page(self._control)
        with self._live.file.index_locked():
            header, index = self._live.file.header(), self._live.file.index()
            if header is None or index.frames != 1:
                return None
            self._live.file.seal()
            return Mark(1, index.salts, header.cookie)

    def take(self) -> Picture:
        """Copy the log, and note where it ends."""
        if self.parent is None:
            raise Unfit
        file = self._live.file
        with sql.reading(self._control):
            index, cookie = file.index(), sql.schema_version(self._control)
            size = self._checked_size(index, index.frames)
            with whole_or_none(self._live.new_file()) as start:
                _copy_start(file.wal, start, size)
        picture = WalPicture(self._live, self.parent, start)
        self._marks[picture] = Mark(index.frames, index.salts, cookie)
        return picture

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
        frames, version = mark.frames, sql.data_version(self._control)
        if self._highest != mark.cookie:
            # The next test's changes must not lead to a cookie that somebody has seen.
            self._highest += 1
            sql.set_schema_version(self._control, self._highest)
            frames += 1
        index = self._live.file.index()
        if index.frames != frames:
            return NEVER  # somebody has committed since the lock was given back
        self._marks[picture] = Mark(frames, index.salts, self._highest)
        return version

    def _cut_back(self, mark: Mark) -> None:
        file = self._live.file
        # Readers have to be looked for before the control connection becomes one.
        before = file.index()
        self._highest = max(self._highest, sql.schema_version(self._control))
        with file.index_locked():
            index = file.index()
            size = self._checked_size(index, mark.frames)
            if index != before or mark.frames > index.frames or mark.salts != index.salts:
                raise Unfit
            file.cut_wal(size)
            file.clear_index()

    def _checked_size(self, index: WalIndex, frames: int) -> int:
        """Return the size of so many frames. The file is what it was, the log has all changes."""
        header = self._live.file.header()
        is_whole = header is not None and header.is_wal and self._live.file.is_sealed()
        if header is None or not is_whole or index.copied:
            self.parent = None
            self._marks.clear()
            raise Unfit
        return wal_size(frames, header.page_size)


def _copy_start(source: Path, target: Path, size: int) -> None:
    with source.open("rb") as source_file, target.open("wb") as copy:
        while size > 0 and (chunk := source_file.read(min(size, _CHUNK))):
            copy.write(chunk)
            size -= len(chunk)

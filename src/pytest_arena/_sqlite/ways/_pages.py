"""``pages``: in a file with a rollback journal, write back the pages that differ."""

from __future__ import annotations

import mmap
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from pytest_arena._sqlite import _restore as restoring
from pytest_arena._sqlite import _sql as sql
from pytest_arena._sqlite._file import Header, stamped
from pytest_arena._sqlite.ways._base import NEVER, Picture, Unfit, whole_or_none

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_arena._sqlite.ways._base import Live

__all__ = ["Pages"]

_CHUNK = 256 * 1024  # a multiple of each page size, and smaller than a processor's cache


class PagesPicture(Picture):
    """The pages that differ from the parent's."""

    def __init__(self, live: Live, parent: Picture, pages: dict[int, bytes], count: int) -> None:
        super().__init__(parent=parent)
        self._live, self.pages, self.count = live, pages, count

    def _make(self) -> Path:
        with whole_or_none(self._live.new_file()) as file:
            self._copy_parent_to(file)
            self._write_pages(file)
        return file

    def _write_pages(self, file: Path) -> None:
        page_size = len(self.pages[1])
        with file.open("r+b") as stream:
            for number, page in self.pages.items():
                stream.seek((number - 1) * page_size)
                stream.write(page)
            stream.truncate(self.count * page_size)


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
    """Cost: follows the changed pages, and a scan of 0.1-0.2 ms a MB."""

    name = "pages"
    has_wal = False

    def __init__(self, live: Live) -> None:
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
        with restoring.reading(self._live.control):
            header = self._header()
            parent = self._whole(self.parent, header)
            pages = {number: bytes(page) for number, page in self._changed(parent, header)}
            pages[1] = self._read(1, header)
            for number in range(parent.count + 1, header.pages + 1):
                pages[number] = self._read(number, header)
        picture = PagesPicture(self._live, self.parent, pages, header.pages)
        self._cookies[picture] = header.cookie
        return picture

    def restore(self, picture: Picture, version: int) -> int:
        """Write back what differs, while nobody else reads or writes."""
        with restoring.alone(self._live.control):
            header = self._header()
            content = self._content_of(picture, header)
            self._write_back(content, header)
            # A counter that somebody has seen would let a connection that slept through the undo
            # read what it had cached of the undone test; so would a cookie, of its schema.
            counter = self._counter(header)
            self._cookies[picture] = cookie = self._cookie(picture, header)
            first = stamped(content.page(1), counter=counter, cookie=cookie, pages=content.count)
            self._live.file.write(first, 0)
        version = sql.data_version(self._live.control)
        now = self._live.file.header()
        # Somebody may have committed since the lock was given back.
        return version if now is not None and now.counter == counter else NEVER

    def _counter(self, header: Header) -> int:
        return (header.counter + 1) & 0xFFFFFFFF

    def _cookie(self, picture: Picture, header: Header) -> int:
        moved = header.cookie != self._cookies.get(picture)
        return (header.cookie + moved) & 0xFFFFFFFF

    def _header(self) -> Header:
        header = self._live.file.header()
        if header is None or header.is_wal:
            raise Unfit
        return header

    def _content_of(self, picture: Picture, header: Header) -> Content:
        if isinstance(picture, PagesPicture) and picture.parent is not None:
            whole = self._whole(picture.parent, header)
            return replace(whole, pages=picture.pages, count=picture.count)
        return self._whole(picture, header)

    def _whole(self, picture: Picture, header: Header) -> Content:
        content = self._map(picture)
        described = Header.of(content[:100], len(content))
        if described is None or described.page_size != header.page_size:
            raise Unfit
        return Content(content, header.page_size, {}, described.pages)

    def _map(self, picture: Picture) -> mmap.mmap:
        if picture not in self._maps:
            with picture.file().open("rb") as stream:
                try:
                    self._maps[picture] = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
                except ValueError as error:  # an empty file
                    raise Unfit from error
        return self._maps[picture]

    def _write_back(self, content: Content, header: Header) -> None:
        seen = {1}
        for number, page in self._changed(content, header):
            seen.add(number)
            if 1 < number <= content.count and page != (wanted := content.page(number)):
                self._write(number, wanted)
        missing = range(header.pages + 1, content.count + 1)
        for number in {*content.pages, *missing} - seen:
            if number <= content.count:
                self._write(number, content.page(number))
        if header.pages > content.count:
            self._live.file.truncate(content.count * content.page_size)

    def _changed(self, content: Content, header: Header) -> Iterator[tuple[int, bytearray]]:
        """Yield the pages of the live file that differ from the parent's, as far as both go."""
        page_size, view = content.page_size, memoryview(content.parent)
        end = min(len(content.parent), header.pages * page_size)
        buffer = bytearray(min(_CHUNK, end))
        for at in range(0, end, _CHUNK):
            if at + len(buffer) > end:
                buffer = bytearray(end - at)
            self._live.file.read_into(buffer, at)
            if buffer != view[at : at + len(buffer)]:
                yield from _differing(buffer, view[at : at + len(buffer)], at, page_size)

    def _read(self, number: int, header: Header) -> bytes:
        page = bytearray(header.page_size)
        self._live.file.read_into(page, (number - 1) * header.page_size)
        return bytes(page)

    def _write(self, number: int, page: bytes) -> None:
        self._live.file.write(page, (number - 1) * len(page))


def _differing(
    buffer: bytearray, parent: memoryview, at: int, page_size: int
) -> Iterator[tuple[int, bytearray]]:
    for offset in range(0, len(buffer), page_size):
        page = buffer[offset : offset + page_size]
        if page != parent[offset : offset + page_size]:
            yield (at + offset) // page_size + 1, page

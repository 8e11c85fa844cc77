"""``wal``: in a file with a write-ahead log, cut the log back to where it was."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from pytest_arena._sqlite import _restore as restoring
from pytest_arena._sqlite import _sql as sql
from pytest_arena._sqlite._file import mark_as_wal, wal_size
from pytest_arena._sqlite._names import wal_of
from pytest_arena._sqlite.ways._base import NEVER, Picture, Unfit, whole_or_none

if TYPE_CHECKING:
    from pytest_arena._sqlite._file import WalIndex
    from pytest_arena._sqlite.ways._base import Live

__all__ = ["Wal"]


class WalPicture(Picture):
    """The beginning of the log, which goes over the parent's file."""

    def __init__(self, live: Live, parent: Picture, start: Path) -> None:
        super().__init__(parent=parent)
        self._live, self._start = live, start

    def _make(self) -> Path:
        with whole_or_none(self._live.new_file()) as file, whole_or_none(Path(wal_of(file))) as wal:
            self._copy_parent_to(file)
            mark_as_wal(file)
            shutil.copyfile(self._start, wal)
            restoring.fold_wal(file)
        return file

    def remove(self) -> None:
        """Remove the log as well."""
        super().remove()
        self._start.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Mark:
    """Where the log ended when the file stood at a picture, and its schema cookie."""

    frames: int
    salts: bytes
    cookie: int


class Wal:
    """Cost: 0.2 ms at any size, as long as nobody has copied the log into the file."""

    name = "wal"
    has_wal = True

    def __init__(self, live: Live) -> None:
        self._live = live
        self.parent: Picture | None = None  # what the file holds, without its log
        self._marks: WeakKeyDictionary[Picture, Mark] = WeakKeyDictionary()
        self._highest = 0

    def settle(self, picture: Picture, version: int) -> None:
        """Have the file alone hold the picture, so that what changes from here on is in the log."""
        self.parent = None
        self._marks.clear()
        header = self._live.file.header()
        if header is None or not header.is_wal or not picture.file().stat().st_size:
            return
        try:
            mark = self._new_mark()
            still_so = sql.data_version(self._live.control) == version
        except (sql.Busy, sql.Failed, OSError):
            return
        if mark is not None and still_so:
            self.parent, self._marks[picture] = picture, mark

    def _new_mark(self) -> Mark | None:
        if not restoring.empty_wal(self._live.control):
            return None
        self._begin_wal()
        with self._live.file.index_locked():
            header, index = self._live.file.header(), self._live.file.index()
            if header is None or index.frames != 1:
                return None
            self._live.file.seal()
            return Mark(1, index.salts, header.cookie)

    def _begin_wal(self) -> None:
        # Every empty log looks like any other. One frame of our own gives this one its random
        # salts, by which a connection that slept through the change of the file knows of it.
        restoring.rewrite_first_page(self._live.control)

    def take(self) -> Picture:
        """Copy the log, and note where it ends."""
        if self.parent is None:
            raise Unfit
        file, control = self._live.file, self._live.control
        with restoring.reading(control):
            index, cookie = file.index(), restoring.schema_version(control)
            self._check(index)
            with whole_or_none(self._live.new_file()) as start:
                _copy_start(file.wal, start, self._size(index.frames))
        picture = WalPicture(self._live, self.parent, start)
        self._marks[picture] = Mark(index.frames, index.salts, cookie)
        return picture

    def restore(self, picture: Picture, version: int) -> int:  # noqa: ARG002 - other ways need it
        """Cut the log, while nobody else reads or writes."""
        mark = self._marks.get(picture)
        if mark is None:
            raise Unfit
        try:
            self._cut_back(mark)
        except sql.Busy as error:
            # Whoever reads has a snapshot, which a backup would leave alone; a writer stops both.
            raise Unfit from error
        return self._stand_at(picture, mark)

    def _cut_back(self, mark: Mark) -> None:
        file = self._live.file
        # Readers have to be looked for before the control connection becomes one.
        before = file.index()
        self._highest = max(self._highest, restoring.schema_version(self._live.control))
        with file.index_locked():
            index = file.index()
            self._check(index)
            if index != before or not self._reaches(index, mark):
                raise Unfit
            self._cut(self._size(mark.frames))

    def _reaches(self, index: WalIndex, mark: Mark) -> bool:
        return mark.frames <= index.frames and mark.salts == index.salts

    def _cut(self, size: int) -> None:
        self._live.file.cut_wal(size)
        self._live.file.clear_index()

    def _check(self, index: WalIndex) -> None:
        """Whether the file is what it was, and the log holds all that has changed since."""
        header = self._live.file.header()
        is_whole = header is not None and header.is_wal and self._live.file.is_sealed()
        if not is_whole or index.copied:
            self.parent = None
            self._marks.clear()
            raise Unfit

    def _size(self, frames: int) -> int:
        header = self._live.file.header()
        if header is None:
            raise Unfit
        return wal_size(frames, header.page_size)

    def _stand_at(self, picture: Picture, mark: Mark) -> int:
        """Have the log's index made anew, and every connection read a schema that has moved."""
        control, frames = self._live.control, mark.frames
        version = sql.data_version(control)
        if self._schema_moved(mark):
            # The next test's changes must not lead to a cookie that somebody has seen.
            self._highest += 1
            restoring.set_schema_version(control, self._highest)
            frames += 1
        index = self._live.file.index()
        if index.frames != frames:
            return NEVER  # somebody has committed since the lock was given back
        self._marks[picture] = Mark(frames, index.salts, self._highest)
        return version

    def _schema_moved(self, mark: Mark) -> bool:
        return self._highest != mark.cookie


def _copy_start(source: Path, target: Path, size: int) -> None:
    with source.open("rb") as source_file, target.open("wb") as copy:
        while size > 0 and (chunk := source_file.read(min(size, _CHUNK))):
            copy.write(chunk)
            size -= len(chunk)


_CHUNK = 1024 * 1024

"""One live file: what stands in it, and how it is brought back to what stood there."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING

from pytest_arena._sqlite import _sql as sql
from pytest_arena._sqlite._sql import side_files
from pytest_arena._sqlite._trial import works
from pytest_arena._sqlite._ways import (
    NEVER,
    Backup,
    FileAccess,
    MemoryPicture,
    Picture,
    Unfit,
    whole_or_none,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from pytest_arena._sqlite._ways import Way

__all__ = ["Restorer"]

# A copy in memory costs 0.5 ms at this size. A larger file pays its log's length where it has one,
# and nothing where it has none: then nobody is told what it held, unless he asks for it.
_SMALL = 1024 * 1024


class Restorer:
    """Takes pictures of a live file, and brings it back to them.

    At the data version ``version`` it stands at the picture ``now``; ``turn`` counts how often
    that was settled, ``generation`` how often the file was opened again. All methods raise
    ``Busy``, ``Failed`` and ``OSError``.
    """

    def __init__(
        self,
        live: Path,
        base: Path | None,
        fast: tuple[type[Way], ...],
        tell: Callable[[str], None],
    ) -> None:
        self.live, self._fast, self._tell = live, fast, tell
        self._folder = live.parent  # to make and hash a path anew costs some µs a test
        self.restored: Counter[str] = Counter()  # how often by each way
        self._taken: list[Picture] = []  # those that are ours to remove
        self._count = self.turn = self.generation = 0
        if base is not None:
            shutil.copyfile(base, live)
        self._open()
        self.first = Picture(base) if base else self._kept(self._backup.take())
        self._settle(self.first, sql.data_version(self.control))

    def _open(self) -> None:
        access = FileAccess.open(self.live, self._new_file)
        self._access = access
        self.control = access.control if access else sql.open_control(self.live)
        sql.leave_wal_alone(self.control)
        self._backup = Backup(self.control, self._new_file)
        self._ways = [way(access) for way in self._fast] if access else []
        self._identity = _identity(self.live)

    def close(self) -> None:
        """Let go of the file."""
        if self._access is not None:
            self._access.close()
        self.control.close()

    def close_all(self, pictures: Iterable[Picture]) -> None:
        """Let go of the file, of these pictures and of its own."""
        self.close()
        for picture in {*self._taken, *pictures, self.now, self.first}:
            picture.close()

    def reopen(self) -> None:
        """Go on with the file that is at the path now."""
        self.close()
        self._open()
        self._stands_at(self.now, NEVER)
        self.generation += 1

    def is_in_place(self) -> bool:
        """Whether the file at the path is still the one that was opened."""
        return _identity(self.live) == self._identity

    def check_place(self) -> None:
        """Raise ``FileNotFoundError`` where it is not."""
        if not self.is_in_place():
            raise FileNotFoundError("its file was deleted or replaced")

    def unwritten_version(self) -> int:
        """Return the data version, when nobody has an open write transaction.

        The lock proves it, for all processes: a transaction that has not committed yet has not
        moved the number, and would commit into the next test.
        """
        with sql.writing(self.control):
            return sql.data_version(self.control)

    def take(self) -> Picture:
        """Return a picture of what stands, which is the last one if nobody has committed since."""
        # First the number, then the picture: what is committed in between is in the picture and
        # moves the number, which costs a picture too many, and never one too few.
        version = sql.data_version(self.control)
        if version == self.version:
            return self.now
        for way in self._trusted():
            with suppress(Unfit, OSError):
                self._stands_at(self._kept(way.take()), version)
                return self.now
        self._settle(self._kept(self._backup.take()), version)
        return self.now

    def glance(self, *, exact: bool) -> Picture | None:
        """Return a picture of what stands, by which nothing is to be brought back.

        None where that is not cheap, and need not be exact.
        """
        pages = self.control.number("PRAGMA page_count")
        if pages * self.control.number("PRAGMA page_size") <= _SMALL:
            return self._kept(MemoryPicture(self.control, self._new_file))
        for way in self._trusted():
            if way.has_wal or exact:
                with suppress(Unfit, OSError):
                    return self._kept(way.take())
        return self._kept(self._backup.take()) if exact else None

    def restore(self, picture: Picture) -> bool:
        """Bring the file back to a picture. Returns whether there was a change."""
        # Own writes do not move the number. One taken before them makes somebody's commit after
        # the lock was given back count as a change, which one taken afterwards would hide.
        version = sql.data_version(self.control)
        if self.now is picture and version == self.version:
            version = self.unwritten_version()  # each way of bringing back has locks of its own
            if version == self.version:
                return False
        for way in self._trusted():
            with suppress(Unfit, OSError):
                self._stands_at(picture, way.restore(picture, version))
                self.restored[way.name] += 1
                return True
        self._settle(picture, self._backup.restore(picture, version))
        self.restored[self._backup.name] += 1
        return True

    def put_in_place(self, picture: Picture) -> None:
        """Put a new file, with the content of a picture, in the place of the one that is there."""
        with whole_or_none(self._new_file()) as file:
            # First what may fail: as long as the copy is not whole, nothing is given up for it.
            shutil.copyfile(picture.file(), file)
            self.close()
            for gone in side_files(self.live):
                gone.unlink(missing_ok=True)
            file.replace(self.live)
        self.reopen()
        self._settle(picture, sql.data_version(self.control))

    def overwrite(self, source: sql.OwnConnection) -> None:
        """Make the file equal to another database, in place."""
        version = self.unwritten_version()
        sql.copy_into(source, self.control)
        self._settle(self._kept(self._backup.take()), version)

    def remove_unused(self, pictures: Iterable[Picture | None]) -> None:
        """Remove the pictures that are none of these, unless these are made of them."""
        used: set[Picture] = set()
        pending = [self.now, *pictures, *(way.parent for way in self._ways)]
        while pending:
            picture = pending.pop()
            if picture is not None and picture not in used:
                used.add(picture)
                pending.append(picture.parent)
        for picture in [picture for picture in self._taken if picture not in used]:
            self._taken.remove(picture)
            picture.remove()

    def _new_file(self) -> Path:
        self._count += 1
        return self.live.with_name(f"{self.live.name}.level-{self._count}")

    def _kept(self, picture: Picture) -> Picture:
        self._taken.append(picture)
        return picture

    def _trusted(self) -> Iterator[Way]:
        """The fast ways that do on this system what they are meant to do."""
        for way in self._ways:
            passed = works(type(way), self._folder)
            if passed:
                yield way
            elif passed is False:
                self._tell(
                    f"{self.live.name}: the fast way {way.name!r} did not pass its trial on SQLite "
                    f"{sql.version()}; tests are undone by whole copies"
                )

    def _stands_at(self, picture: Picture, version: int) -> None:
        self.now, self.version = picture, version
        self.turn += 1

    def _settle(self, picture: Picture, version: int) -> None:
        """The file stands at a picture by SQLite's own doing; the fast ways go on from there."""
        for way in self._ways:
            way.settle(picture, version)
        self._stands_at(picture, version)


def _identity(file: Path) -> tuple[int, int] | None:
    """Which file is at a path now, None for no file. Costs a microsecond or two."""
    try:
        status = os.stat(file)  # noqa: PTH116 - asked at each boundary: a third of Path's time
    except OSError:
        return None
    return status.st_dev, status.st_ino

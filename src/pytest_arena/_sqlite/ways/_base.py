"""The seam of the ways: a picture is taken of a live file, and the file is brought back to it."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from pytest_arena._sqlite import _sql as sql
from pytest_arena._sqlite._file import LiveFile, is_supported
from pytest_arena.errors import impossible

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["NEVER", "Live", "Picture", "Unfit", "Way", "whole_or_none"]

NEVER = -1  # a data version that no file has: whoever compares with it sees a change


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
class Live:
    """A live file: the connection that controls it, its bytes, and room for pictures beside it."""

    control: sqlite3.Connection
    file: LiveFile
    new_file: Callable[[], Path]

    @classmethod
    def open(cls, path: Path, new_file: Callable[[], Path]) -> Live | None:
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
        self.parent = parent
        self._file = file
        self._source: sqlite3.Connection | None = None

    def file(self) -> Path:
        """Return the whole content as one file."""
        if self._file is None:
            self._file = self._make()
        return self._file

    def _make(self) -> Path:
        raise NotImplementedError

    def source(self) -> sqlite3.Connection:
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


class Way(Protocol):
    """One way to bring a live file back.

    Guarantee: after ``restore`` the file's content is the picture's, and every open connection of
    every process sees it. Each method raises ``Unfit``, or ``OSError``, where another way must do
    it, ``Busy`` where somebody's lock keeps everybody from it, and ``Failed`` where SQLite cannot
    read or write the file.
    """

    name: str
    has_wal: bool  # whether it is for a file with a write-ahead log, or for one without
    parent: Picture | None

    def __init__(self, live: Live) -> None:
        """Open it for a live file."""

    def settle(self, picture: Picture, version: int) -> None:
        """Learn that the file stands at a picture, by another way. It did at this data version."""

    def take(self) -> Picture:
        """Take a picture of what stands."""

    def restore(self, picture: Picture, version: int) -> int:
        """Bring the file back, which nobody writes to. It changed up to this data version.

        Returns the data version at which it stands at the picture, or ``NEVER``.
        """

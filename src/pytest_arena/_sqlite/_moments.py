"""What did a file hold at a moment, and how long has that to be kept?"""

from __future__ import annotations

import weakref
from contextlib import suppress
from typing import TYPE_CHECKING

from pytest_arena._sqlite import _sql as sql
from pytest_arena._sqlite._rows import copied_to_memory, size
from pytest_arena._sqlite.ways import Picture, Unfit, whole_or_none

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from pytest_arena._sqlite.ways import Way

__all__ = ["Moment", "Moments", "picture_now"]

# A copy in memory costs 0.5 ms at this size. A larger file pays its log's length where it has one,
# and nothing where it has none: then nobody is told what it held, unless he asks for it.
_SMALL = 1024 * 1024


class Moment:
    """A point in time, for whoever asks later what has changed since."""

    __slots__ = ("__weakref__", "picture")

    def __init__(self, picture: Picture) -> None:
        self.picture = picture


class Moments:
    """The moments of one live file. Where nobody has committed in between, two are the same."""

    def __init__(self) -> None:
        self._alive: weakref.WeakSet[Moment] = weakref.WeakSet()
        self._last: Moment | None = None
        self._version = 0

    def find(self, version: int) -> Moment | None:
        """Return the last moment, if the file is still at this data version."""
        return self._last if version == self._version else None

    def keep(self, picture: Picture, version: int) -> Moment:
        """At this data version the file holds what a picture shows."""
        self._last, self._version = Moment(picture), version
        self._alive.add(self._last)
        return self._last

    def forget_last(self) -> None:
        """The file was brought back, which need not move its data version."""
        self._last = None

    def pictures(self) -> list[Picture]:
        """Return what the moments that somebody still has are told by."""
        return [moment.picture for moment in self._alive]


class _MemoryPicture(Picture):
    """A small database, in memory until somebody compares it."""

    def __init__(self, control: sqlite3.Connection, new_file: Callable[[], Path]) -> None:
        super().__init__()
        self._new_file = new_file
        self._memory = copied_to_memory()
        try:
            sql.copy_into(control, self._memory)
        except BaseException:
            self._memory.close()
            raise

    def _make(self) -> Path:
        with whole_or_none(self._new_file()) as file:
            sql.copy_to_file(self._memory, file)
        return file

    def close(self) -> None:
        super().close()
        self._memory.close()


def picture_now(
    control: sqlite3.Connection,
    ways: Iterable[Way],
    new_file: Callable[[], Path],
    whole: Callable[[], Picture] | None,
) -> Picture | None:
    """Take a picture of what stands; None where that is not cheap, and nobody takes a ``whole``.

    Raises:
        Busy: a writer is in the middle of a commit.
        Failed: there is no room for it, for one.
    """
    if size(control) <= _SMALL:
        return _MemoryPicture(control, new_file)
    for way in ways:
        if way.has_wal or whole is not None:
            with suppress(Unfit, OSError):
                return way.take()
    return whole() if whole is not None else None

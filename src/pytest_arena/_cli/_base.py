"""The seam of the places where something of arena's may be: what is there, and what goes."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    """Something of arena's: a database, the folder of a run, a private server."""

    name: str
    what: str  # live, building, template, kept, condemned, server
    state: str = ""  # alive or dead: a run; in use, idle or stopped: a server
    project: str = ""
    host: str = ""
    pid: int = 0
    created: datetime | None = None
    used: datetime | None = None
    bytes: int | None = None  # None: nobody knows
    title: str = ""  # what was kept: the test


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where somebody has looked, and what was there."""

    shown: str
    where: str
    things: tuple[Thing, ...] = ()
    note: str = ""  # why there is nothing, or not all


@dataclass(frozen=True, slots=True)
class Removed:
    """Something that is gone."""

    what: str
    name: str
    bytes: int | None


@dataclass(frozen=True, slots=True)
class Omission:
    """Something that was left alone, and why."""

    name: str
    why: str


class PlaceKind(Protocol):
    """A kind of place."""

    def look(self) -> Iterator[Place]:
        """Say what is there. Nothing is made, started or changed.

        Raises:
            ArenaError: it cannot be seen.
        """

    def sweep(self, *, everything: bool) -> Iterator[Removed | Omission]:
        """Remove what dead runs have left; with ``everything``, all that no living run uses.

        Raises:
            ArenaError: it cannot be removed.
        """


def size_of(path: Path) -> int:
    """Return how many bytes a file or a folder has. What vanishes meanwhile has none."""
    total = 0
    for file in (path, *path.rglob("*")) if path.is_dir() else (path,):
        with suppress(OSError):
            total += 0 if file.is_dir() else file.lstat().st_size
    return total


def time_of(path: Path) -> datetime | None:
    """Return when a file was written."""
    with suppress(OSError):
        return datetime.fromtimestamp(path.stat().st_mtime, UTC)
    return None

"""The interface of `arena databases` to the packages of the database products."""

from __future__ import annotations

from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_arena._values import Address


@dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    """A database, the folder of a run, or a private server."""

    name: str
    what: str
    """live (of a run), building or template, kept, or server"""
    state: str = ""
    """alive or dead (of a run), or in use, idle or stopped (of a server)"""
    time: datetime | None = None
    """of the build on a server, else of the last use"""
    title: str = ""
    """the test whose database was kept"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A folder or a server, and the things in it."""

    shown: str
    where: str
    things: tuple[Thing, ...] = ()


@dataclass(frozen=True, slots=True)
class SweepResult:
    """A thing that a sweep has removed, or kept for a reason."""

    thing: Thing
    reason: str = ""


class PlaceKind(Protocol):
    """A kind of place."""

    def places(self) -> Iterator[Place]:
        """Yield the places, without creating, starting or changing anything."""

    def sweep(self, *, everything: bool) -> Iterator[SweepResult]:
        """Remove leftovers of dead runs, with ``everything`` all things that no living run uses."""


def time_of(path: Path) -> datetime | None:
    """Return the time at which a file was written."""
    with suppress(OSError):
        return datetime.fromtimestamp(path.stat().st_mtime, UTC)
    return None


@dataclass(frozen=True)
class DatabasesOnServer:
    """The databases with pytest-arena's names on a server."""

    registry: Any  # the class of a run's databases
    shown: str
    address: Address

    def places(self) -> Iterator[Place]:
        """Yield the server with its databases."""
        with self._opened() as registry:
            things = tuple(database.thing() for database in registry.listed())
        yield Place(shown=self.shown, where=self.address.server, things=things)

    def sweep(self, *, everything: bool) -> Iterator[SweepResult]:
        """Drop databases as a run does. Yield the dropped ones, and the others with a reason."""
        with self._opened() as registry:
            yield from registry.sweep(everything=everything)

    def _opened(self) -> closing[Any]:
        return closing(self.registry(self.address, sweeps=False))

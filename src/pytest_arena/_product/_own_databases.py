"""The names of pytest-arena's databases on a server, and which of them a sweep drops.

Nothing else records the databases: a name says to whom a database belongs. Each process holds one
lock on the server, ``<session>_<process>``, which ends with its connection. A session is a run of
pytest with its workers.

``arena_live_<session>_<process>_<n>``, also with ``building``: ends with the process.
``arena_kept_<session>_<process>_<n>``: kept for inspection.
``arena_seeded_<session>_<fingerprint>``: a template that ends with the session.
``arena_template_<fingerprint>``: a template of all runs.

Templates and kept databases have a manifest, which is written last.
"""

from __future__ import annotations

import os
import re
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from typing import TYPE_CHECKING, NamedTuple, Protocol

from pytest_arena._process import run_id
from pytest_arena._values import digest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from pytest_arena._product import Manifest

# How many databases of a kind stay: the newest ones.
STAY = {"kept": 20, "template": 40}

_NAME = re.compile(
    r"arena_(?:(?P<kind>live|building|kept)_(?P<session>[0-9a-f]{8})_(?P<process>[0-9a-f]{8})_\d+"
    r"|seeded_(?P<run>[0-9a-f]{8})_[0-9a-f]{16}|template_[0-9a-f]{16})"
)


class NameParts(NamedTuple):
    """What a name says. ``session`` and ``process`` are "" where any may use the database."""

    kind: str
    session: str
    process: str


def now() -> float:
    """Return the time of the file system, because a test may have changed Python's clock."""
    with tempfile.TemporaryFile() as file:
        return os.fstat(file.fileno()).st_mtime


def parts_of(name: str) -> NameParts | None:
    """Return what the name of a database says, None for a database of somebody else.

    >>> parts_of("arena_live_0123abcd_89ef4567_3").process, parts_of("arena_live_shop")
    ('89ef4567', None)
    """
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    kind = match["kind"] or name.split("_")[1]
    return NameParts(kind, match["session"] or match["run"] or "", match["process"] or "")


def locks_of(name: str) -> tuple[str, ...]:
    """Return the names of the locks of which one protects a database."""
    parts = parts_of(name)
    if parts is None or parts.kind == "kept":
        return ()
    if parts.process:
        return (f"{parts.session}_{parts.process}",)
    return tuple(filter(None, (name, parts.session)))


class Names:
    """Makes the names of one process."""

    def __init__(self) -> None:
        self.session = digest(run_id())[:8]
        self.process = os.urandom(4).hex()
        self._numbers = count(1)

    @property
    def locks(self) -> tuple[str, str]:
        """The names of the locks that the process holds."""
        return f"{self.session}_{self.process}", self.session

    def new(self, kind: str) -> str:
        """Return a new name for a live, a building or a kept database."""
        return f"arena_{kind}_{self.locks[0]}_{next(self._numbers)}"

    def template(self, fingerprint: str, *, is_of_run: bool) -> str:
        """Return the name of the template with a fingerprint."""
        start = f"arena_seeded_{self.session}" if is_of_run else "arena_template"
        return f"{start}_{digest(fingerprint)[:16]}"


# `arena databases`


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


class SweepResult(NamedTuple):
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


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnDatabase:
    """A database of pytest-arena on a server."""

    name: str
    manifest: Manifest | None = None
    is_in_use: bool = False  # by its process, its session, or a process that copies it
    role: str = ""  # the login that owns it, "" for this one

    @property
    def kind(self) -> str:
        """The kind in its name."""
        parts = parts_of(self.name)
        return parts.kind if parts is not None else ""

    @property
    def built(self) -> float:
        """The time at which it was finished, or 0."""
        return self.manifest.built if self.manifest else 0.0

    def thing(self) -> Thing:
        """Return the database for `arena databases`."""
        state = ""
        if self.kind in {"live", "building", "seeded"}:  # it ends with a process or a session
            state = "alive" if self.is_in_use else "dead"
        return Thing(
            name=self.name,
            what="template" if self.kind == "seeded" else self.kind,
            state=state,
            time=datetime.fromtimestamp(self.built, UTC) if self.built else None,
            title=self.manifest.title if self.manifest else "",
        )

    @property
    def reason(self) -> str:
        """Why a sweep does not drop it."""
        return f"belongs to {self.role}" if self.role else "a living run uses it"


def unused(databases: Sequence[OwnDatabase], *, everything: bool = False) -> list[OwnDatabase]:
    """Return the databases that a sweep drops: of dead processes, and old ones."""
    own = [database for database in databases if not database.role]
    stay: list[OwnDatabase] = []
    for kind, most in STAY.items():
        finished = [each for each in own if each.kind == kind and each.built]
        stay += sorted(finished, key=lambda each: each.built, reverse=True)[:most]
    return [each for each in own if not each.is_in_use and (everything or each not in stay)]

"""What there is of arena's, and how it becomes lines to read, or JSON."""

from __future__ import annotations

import json
import platform
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

_ORDER = ("server", "live", "building", "condemned", "template", "kept")
_HEADS = ("name", "what", "project", "whose", "age", "used", "size")
# A line has 120 columns at most; a name alone may be longer.
_WIDTHS = (80, 9, 16, 28, 6, 6, 8)
_STEPS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


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
class Swept:
    """Something that is gone, or was left alone; then it says why."""

    what: str
    name: str
    bytes: int | None = None
    why: str = ""


class PlaceKind(Protocol):
    """A kind of place."""

    def look(self) -> Iterator[Place]:
        """Say what is there. Nothing is made, started or changed.

        Raises:
            ArenaError: it cannot be seen.
        """

    def sweep(self, *, everything: bool) -> Iterator[Swept]:
        """Remove what dead runs have left; with ``everything``, all that no living run uses.

        Raises:
            ArenaError: it cannot be removed.
        """


def say(*lines: str) -> None:
    """Print lines at once: what follows may take a while."""
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


def agreed(question: str, *, already: bool, otherwise: str, command: str) -> bool:
    """Ask for a yes, unless ``--yes`` was given. Without one, print what was not done."""
    if already:
        return True
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        say(f"{otherwise}: there is no terminal to ask in", f"next: {command}")
    elif input(f"{question} [y/N] ").strip().lower() in {"y", "yes"}:
        return True
    else:
        say(otherwise)
    return False


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


def as_lines(places: Sequence[Place], *, now: datetime) -> Iterator[str]:
    """A table for each place that has something, then the places that have nothing."""
    for place in places:
        if place.things:
            yield _headline(place)
            yield from _table(_sorted(place.things), now=now)
            yield from [f"  {place.note}"] * bool(place.note)
            yield ""
    empty = [place for place in places if not place.things]
    if len(empty) == len(places):
        yield "Nothing of arena's is there."
    if empty:
        yield "Looked, and found nothing:"
        yield from (f"  {_why(place)}" for place in empty)


def as_json(places: Sequence[Place]) -> str:
    """All that is known, times in ISO 8601."""
    told = [
        {**asdict(place), "things": [asdict(thing) for thing in _sorted(place.things)]}
        for place in places
    ]
    return json.dumps({"places": told}, indent=2, default=datetime.isoformat)


def sweep_line(one: Swept) -> str:
    """What was removed, or left alone and why."""
    if one.why:
        return f"left     {one.name}: {one.why}"
    size = f", {size_shown(one.bytes)}" if one.bytes is not None else ""
    return f"removed  {one.what} {one.name}{size}"


def closing_line(done: Iterable[Swept]) -> str:
    """How much has gone."""
    sizes = [one.bytes or 0 for one in done if not one.why]
    return (
        f"{len(sizes)} removed, {size_shown(sum(sizes))}."
        if sizes
        else "Nothing to remove."
    )


def size_shown(count: int) -> str:
    """A number of bytes, in units of a thousand."""
    if count < 1000:  # noqa: PLR2004 - what kilo means
        return f"{count} B"
    size = count / 1000
    unit = "kB"
    for bigger in ("MB", "GB", "TB"):
        if size < 999.5:  # noqa: PLR2004 - 1000, when it is rounded
            break
        size = size / 1000
        unit = bigger
    return f"{size:.1f} {unit}" if size < 9.95 else f"{size:.0f} {unit}"  # noqa: PLR2004 - two digits are enough


def _sorted(things: Iterable[Thing]) -> list[Thing]:
    def order(thing: Thing) -> tuple[str, int, datetime, str]:
        place = _ORDER.index(thing.what) if thing.what in _ORDER else len(_ORDER)
        return (
            thing.project,
            place,
            thing.created or datetime.min.replace(tzinfo=UTC),
            thing.name,
        )

    return sorted(things, key=order)


def _table(things: list[Thing], *, now: datetime) -> Iterator[str]:
    rows = [_HEADS, *(_row(thing, now=now) for thing in things)]
    columns = [column for column in zip(*rows, strict=True) if any(column[1:])]
    widths = [max(map(len, column)) for column in columns]
    titles = ["", *(thing.title for thing in things)]
    for title, *cells in zip(titles, *columns, strict=True):
        padded = (
            cell.rjust(width)
            if column[0] in {"age", "used", "size"}
            else cell.ljust(width)
            for cell, width, column in zip(cells, widths, columns, strict=True)
        )
        yield f"  {'  '.join(padded)}".rstrip()
        if title:
            yield f"      {_cut(title, 110)}"


def _row(thing: Thing, *, now: datetime) -> tuple[str, ...]:
    cells = (
        thing.name,
        thing.what,
        thing.project,
        _whose(thing),
        _ago(thing.created, now),
        _ago(thing.used, now),
        "" if thing.bytes is None else size_shown(thing.bytes),
    )
    return tuple(_cut(cell, width) for cell, width in zip(cells, _WIDTHS, strict=True))


def _whose(thing: Thing) -> str:
    if not thing.pid:
        return thing.state
    host = "" if thing.host == platform.node() else f"{_cut(thing.host, 12)} "
    return f"{host}{thing.pid}, {thing.state}"


def _ago(when: datetime | None, now: datetime) -> str:
    if when is None:
        return ""
    # Another machine's clock may be ahead.
    seconds = max(0, int((now - when).total_seconds()))
    size, unit = next((one for one in _STEPS if seconds >= one[0]), _STEPS[-1])
    return f"{seconds // size} {unit}"


def _cut(text: str, width: int) -> str:
    if len(text) <= width:
        return text
    return f"{text[: width // 2 - 1]}…{text[-(width - width // 2) :]}"


def _headline(place: Place) -> str:
    return (
        place.shown if place.where in place.shown else f"{place.shown} ({place.where})"
    )


def _why(place: Place) -> str:
    return f"{_headline(place)}: {place.note}" if place.note else _headline(place)

"""The output of `arena databases`, as text or JSON."""

from __future__ import annotations

import json
import platform
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pytest_arena._product._databases_command import Place, SweepResult, Thing

# In the order of a table.
_KINDS = ("server", "live", "building", "condemned", "template", "kept")
# A line has 120 columns at most. Only a long name may exceed them.
_WIDTHS = {
    "name": 80,
    "what": 9,
    "project": 16,
    "whose": 28,
    "age": 6,
    "used": 6,
    "size": 8,
}
_NUMBERS = {"age", "used", "size"}
_TITLE_WIDTH = 110
_HOST_WIDTH = 12
_AGES = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def say(*lines: str) -> None:
    """Print lines at once, because the next step may take long."""
    for line in lines:
        sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def ask(question: str, *, is_agreed: bool, refusal: str, command: str) -> bool:
    """Ask for a yes, unless ``--yes`` has agreed. Return whether the user agrees.

    Without a yes, print ``refusal``. Without a terminal, also print the command with ``--yes``.
    """
    if is_agreed:
        return True
    has_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    if not has_terminal:
        say(f"{refusal}, because there is no terminal to ask in", f"next: {command}")
        return False
    answer = input(f"{question} [y/N] ").strip().lower()
    if answer not in {"y", "yes"}:
        say(refusal)
        return False
    return True


def as_lines(places: Sequence[Place], *, now: datetime) -> Iterator[str]:
    """Yield a table for each place with things, then the places without things."""
    empty = []
    for place in places:
        line = place.headline
        if place.things:
            yield line
            things = sorted(place.things, key=_sort_key)
            yield from _table(things, now=now)
            if place.note:
                yield f"  {place.note}"
            yield ""
            continue
        if place.note:
            line += f": {place.note}"
        empty.append(f"  {line}")
    if len(empty) == len(places):
        yield "pytest-arena has no databases here."
    if empty:
        yield "Nothing was found in these places:"
        yield from empty


def as_json(places: Sequence[Place]) -> str:
    """Return all places as JSON, with times in ISO 8601."""
    rows = []
    for place in places:
        row = asdict(place)
        things = sorted(place.things, key=_sort_key)
        row["things"] = list(map(asdict, things))
        rows.append(row)
    return json.dumps({"places": rows}, indent=2, default=datetime.isoformat)


def sweep_line(result: SweepResult) -> str:
    """Return the line about a thing that was removed or left."""
    thing = result.thing
    if result.reason:
        return f"left     {thing.name}: {result.reason}"
    line = f"removed  {thing.what} {thing.name}"
    if thing.bytes is not None:
        line += f", {format_size(thing.bytes)}"
    return line


def closing_line(results: Iterable[SweepResult]) -> str:
    """Return the line with the number and the size of the removed things."""
    sizes = [result.thing.bytes or 0 for result in results if not result.reason]
    if not sizes:
        return "Nothing to remove."
    total = format_size(sum(sizes))
    return f"{len(sizes)} removed, {total}."


def format_size(count: int) -> str:
    """Return a number of bytes with a decimal unit, in two or three digits."""
    if count < 1000:  # noqa: PLR2004 - a kilobyte
        return f"{count} B"
    size = count / 1000
    unit = "kB"
    for larger in ("MB", "GB", "TB"):
        if size < 999.5:  # noqa: PLR2004 - rounds to 1000
            break
        size /= 1000
        unit = larger
    digits = 1 if size < 9.95 else 0  # noqa: PLR2004 - rounds to 10
    return f"{size:.{digits}f} {unit}"


def _sort_key(thing: Thing) -> tuple[str, int, datetime, str]:
    kind = len(_KINDS)  # a kind that only one product has is last
    if thing.what in _KINDS:
        kind = _KINDS.index(thing.what)
    created = thing.created or datetime.min.replace(tzinfo=UTC)
    return thing.project, kind, created, thing.name


def _table(things: list[Thing], *, now: datetime) -> Iterator[str]:
    """Yield a line of titles and a line for each thing. Empty columns are left out."""
    rows = [_row(thing, now=now) for thing in things]
    widths = {}
    for title in _WIDTHS:
        longest = max(len(row[title]) for row in rows)
        if longest:
            widths[title] = max(longest, len(title))
    titles = {title: title for title in widths}
    yield _line(titles, widths)
    for thing, row in zip(things, rows, strict=True):
        yield _line(row, widths)
        if thing.title:
            yield f"      {_shorten(thing.title, _TITLE_WIDTH)}"


def _line(cells: dict[str, str], widths: dict[str, int]) -> str:
    line = ""
    for title, width in widths.items():
        align = ">" if title in _NUMBERS else "<"
        line += f"  {cells[title]:{align}{width}}"
    return line.rstrip()


def _row(thing: Thing, *, now: datetime) -> dict[str, str]:
    """Return the cells of a thing by their titles."""
    whose = thing.state
    if thing.pid:
        whose = f"{thing.pid}, {thing.state}"
        if thing.host != platform.node():
            host = _shorten(thing.host, _HOST_WIDTH)
            whose = f"{host} {whose}"
    size = "" if thing.bytes is None else format_size(thing.bytes)
    cells = {
        "name": thing.name,
        "what": thing.what,
        "project": thing.project,
        "whose": whose,
        "age": _age(thing.created, now),
        "used": _age(thing.used, now),
        "size": size,
    }
    return {title: _shorten(text, _WIDTHS[title]) for title, text in cells.items()}


def _age(when: datetime | None, now: datetime) -> str:
    if when is None:
        return ""
    # Negative if the clock of another machine is ahead.
    seconds = int((now - when).total_seconds())
    for size, unit in _AGES:
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return "0 s"


def _shorten(text: str, width: int) -> str:
    """Return a text of at most ``width`` characters. A longer text loses its middle."""
    if len(text) <= width:
        return text
    start = width // 2 - 1
    end = width - start - 1
    return f"{text[:start]}…{text[-end:]}"

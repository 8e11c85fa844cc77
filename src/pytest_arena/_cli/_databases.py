"""The commands `arena databases`."""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pytest_arena._config._read import read_project
from pytest_arena._config._supported import SUPPORTED, package_of
from pytest_arena.errors import ArenaError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator

    from pytest_arena._config._read import Config
    from pytest_arena._product._databases_command import (
        Place,
        PlaceKind,
        SweepResult,
        Thing,
    )

_FAILED = 1
_COLUMNS = ("name", "what", "project", "whose", "age", "used", "size")
_NUMBERS = {"age", "used", "size"}
_AGES = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def list_or_sweep(options: argparse.Namespace) -> int:
    """List the databases, or remove unused databases. Return the exit status.

    The error of a place that fails follows the other places.

    Raises:
        ConfigError: an option has a wrong value.
        ServerError: the named server cannot be used.
    """
    config = read_project(database=options.database)
    kinds = _place_kinds(config, removes_all=options.everything)
    if options.sweeps:
        return _sweep(kinds, everything=options.everything, is_agreed=options.yes)
    places, failures = _look(kinds)
    if options.json:
        rows = {"places": list(map(asdict, places))}
        _say(json.dumps(rows, indent=2, default=datetime.isoformat))
    else:
        _say(*as_lines(places, now=datetime.now(UTC)))
    return _status(failures)


def _place_kinds(config: Config, *, removes_all: bool) -> list[PlaceKind]:
    """Return the kinds of places in the order of the output."""
    kinds: list[PlaceKind] = []
    for product in SUPPORTED:
        module = importlib.import_module(f"{package_of(product)}._commands")
        kinds += module.place_kinds(config, removes_all=removes_all)
    return kinds


def _look(kinds: list[PlaceKind]) -> tuple[list[Place], list[ArenaError]]:
    """Return the places, and the errors of places that cannot be read."""
    places: list[Place] = []
    failures = []
    for kind in kinds:
        try:
            places += kind.look()
        except ArenaError as error:
            failures.append(error)
    return places, failures


def _sweep(kinds: list[PlaceKind], *, everything: bool, is_agreed: bool) -> int:
    if everything and not is_agreed:
        # A place that fails here also fails in the sweep, which reports it.
        places, _ = _look(kinds)
        has_things = any(place.things for place in places)
        if has_things and not _ask(places):
            return _FAILED
    results = []
    failures = []
    for kind in kinds:
        try:
            for result in kind.sweep(everything=everything):
                _say(_sweep_line(result))
                results.append(result)
        except ArenaError as error:
            failures.append(error)
    sizes = [result.thing.bytes or 0 for result in results if not result.reason]
    if sizes:
        _say(f"{len(sizes)} removed, {_size(sum(sizes))}.")
    else:
        _say("Nothing to remove.")
    return _status(failures)


def _ask(places: list[Place]) -> bool:
    """Show what is removed, and return whether the user agrees."""
    _say(*as_lines(places, now=datetime.now(UTC)), "")
    if not sys.stdin.isatty():
        _say("nothing is removed. next: arena databases sweep --all --yes")
        return False
    answer = input("Remove all of this, except what living runs use? [y/N] ")
    return answer.strip().lower() in {"y", "yes"}


def _sweep_line(result: SweepResult) -> str:
    """Return the line about a thing that was removed or left."""
    thing = result.thing
    if result.reason:
        return f"left     {thing.name}: {result.reason}"
    line = f"removed  {thing.what} {thing.name}"
    if thing.bytes is not None:
        line += f", {_size(thing.bytes)}"
    return line


def _status(failures: list[ArenaError]) -> int:
    """Print the errors, and return the exit status."""
    sys.stderr.writelines(f"{failure}\n" for failure in failures)
    return _FAILED if failures else 0


def _say(*lines: str) -> None:
    """Print lines at once, because the next step may take long."""
    sys.stdout.writelines(f"{line}\n" for line in lines)
    sys.stdout.flush()


def as_lines(places: Iterable[Place], *, now: datetime) -> Iterator[str]:
    """Yield a table for each place with things, then the places without things."""
    empty = []
    for place in places:
        if place.things:
            yield place.headline
            yield from _table(place.things, now=now)
            if place.note:
                yield f"  {place.note}"
            yield ""
        else:
            empty.append(f"{place.headline}: {place.note}".removesuffix(": "))
    if empty:
        yield "Nothing was found in these places:"
        yield from (f"  {line}" for line in empty)


def _table(things: Iterable[Thing], *, now: datetime) -> Iterator[str]:
    """Yield a line of titles and a line for each thing. Empty columns are left out."""
    titles = {title: title for title in _COLUMNS}
    things = sorted(things, key=lambda thing: (thing.project, thing.what, thing.name))
    rows = [titles, *(_row(thing, now=now) for thing in things)]
    widths = {}
    for title in _COLUMNS:
        if any(row[title] for row in rows[1:]):
            widths[title] = max(len(row[title]) for row in rows)
    tests = ["", *(thing.title for thing in things)]
    for row, test in zip(rows, tests, strict=True):
        line = ""
        for title, width in widths.items():
            align = ">" if title in _NUMBERS else "<"
            line += f"  {row[title]:{align}{width}}"
        yield line.rstrip()
        if test:
            yield f"      {test}"


def _row(thing: Thing, *, now: datetime) -> dict[str, str]:
    """Return the cells of a thing by their titles."""
    return {
        "name": thing.name,
        "what": thing.what,
        "project": thing.project,
        "whose": thing.state,
        "age": _age(thing.created, now),
        "used": _age(thing.used, now),
        "size": "" if thing.bytes is None else _size(thing.bytes),
    }


def _age(when: datetime | None, now: datetime) -> str:
    if when is None:
        return ""
    # Negative if the clock of another machine is ahead.
    seconds = int((now - when).total_seconds())
    for size, unit in _AGES:
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return "0 s"


def _size(count: int) -> str:
    return f"{count / 1000:,.0f} kB"

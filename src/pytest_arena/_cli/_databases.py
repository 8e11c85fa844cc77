"""The commands `arena databases`."""

from __future__ import annotations

import importlib
import json
import sys
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pytest_arena._config._read import read_project
from pytest_arena._config._supported import FILE_PRODUCTS, SUPPORTED, package_of
from pytest_arena.errors import ArenaError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator

    from pytest_arena._product._databases_command import (
        Place,
        PlaceKind,
        SweepResult,
        Thing,
    )

_FAILED = 1
_COLUMNS = ("name", "what", "whose", "used", "size")
_AGES = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def list_or_sweep(options: argparse.Namespace) -> int:
    """List the databases, or remove unused databases. Return the exit status.

    The error of a place that fails follows the other places.

    Raises:
        ConfigError: an option has a wrong value.
        ServerError: the named server cannot be used.
    """
    config = read_project(database=options.database)
    kinds: list[PlaceKind] = []
    for product in SUPPORTED:
        name = "_commands" if product in FILE_PRODUCTS else "_servers"
        module = importlib.import_module(f"{package_of(product)}.{name}")
        kinds += module.place_kinds(config, removes_all=options.everything)
    failures: list[ArenaError] = []
    if options.sweeps:
        _sweep(kinds, failures, everything=options.everything)
    else:
        places: list[Place] = []
        for kind in kinds:
            with _kept(failures):
                places += kind.places()
        _show(places, options)
    sys.stderr.writelines(f"{failure}\n" for failure in failures)
    return _FAILED if failures else 0


@contextmanager
def _kept(failures: list[ArenaError]) -> Iterator[None]:
    """Keep the error of a place, so that the next place is read."""
    try:
        yield
    except ArenaError as error:
        failures.append(error)


def _show(places: list[Place], options: argparse.Namespace) -> None:
    if options.json:
        rows = {"places": list(map(asdict, places))}
        _say(json.dumps(rows, indent=2, default=datetime.isoformat))
    else:
        _say(*as_lines(places, now=datetime.now(UTC)))


def _sweep(kinds: list[PlaceKind], failures: list[ArenaError], *, everything: bool) -> None:
    sizes = []
    for kind in kinds:
        with _kept(failures):
            for result in kind.sweep(everything=everything):
                _say(_sweep_line(result))
                if not result.reason:
                    sizes.append(result.thing.bytes or 0)
    if sizes:
        _say(f"{len(sizes)} removed, {_size(sum(sizes))}.")
    else:
        _say("Nothing to remove.")


def _sweep_line(result: SweepResult) -> str:
    """Return the line about a thing that was removed or left."""
    thing = result.thing
    if result.reason:
        return f"left     {thing.name}: {result.reason}"
    line = f"removed  {thing.what} {thing.name}"
    if thing.bytes is not None:
        line += f", {_size(thing.bytes)}"
    return line


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
    """Yield a line of titles and a line for each thing, with the test of a kept database."""
    things = sorted(things, key=lambda thing: (thing.what, thing.title, thing.name))
    rows = [_COLUMNS]
    for thing in things:
        size = "" if thing.bytes is None else _size(thing.bytes)
        rows.append((thing.name, thing.what, thing.state, _age(thing.used, now), size))
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    tests = ["", *(thing.title for thing in things)]
    for row, test in zip(rows, tests, strict=True):
        cells = map(str.ljust, row, widths)
        yield f"  {'  '.join(cells)}".rstrip()
        if test:
            yield f"      {test}"


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

"""The commands `arena databases`."""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING

from pytest_arena._config._read import read_project
from pytest_arena._config._supported import SUPPORTED, package_of

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator

    from pytest_arena._product._own_databases import (
        Place,
        PlaceKind,
        Thing,
    )

_ROW = "  {:40}  {:8}  {:7}  {:16}  {}"


def list_or_sweep(options: argparse.Namespace) -> int:
    """List the databases, or remove unused databases. Return the exit status."""
    config = read_project(database=options.database)
    kinds: list[PlaceKind] = []
    for product in SUPPORTED:
        kinds += importlib.import_module(f"{package_of(product)}._product").place_kinds(config)
    if options.sweeps:
        _sweep(kinds, everything=options.everything)
    else:
        _show([place for kind in kinds for place in kind.places()], options)
    return 0


def _show(places: list[Place], options: argparse.Namespace) -> None:
    if options.json:
        rows = {"places": list(map(asdict, places))}
        _say(json.dumps(rows, indent=2, default=datetime.isoformat))
    else:
        for place in places:
            things = _table(place.things) if place.things else ("  nothing",)
            where = "" if place.where in place.shown else f" ({place.where})"
            _say(f"{place.shown}{where}", *things, "")


def _sweep(kinds: list[PlaceKind], *, everything: bool) -> None:
    number = 0
    for kind in kinds:
        for thing, reason in kind.sweep(everything=everything):
            number += not reason
            words = f"left     {thing.name}: {reason}" if reason else ""
            _say(words or f"removed  {thing.what} {thing.name}")
    _say(f"{number} removed." if number else "Nothing to remove.")


def _say(*lines: str) -> None:
    """Print lines at once, because the next step may take long."""
    sys.stdout.writelines(f"{line}\n" for line in lines)
    sys.stdout.flush()


def _table(things: Iterable[Thing]) -> Iterator[str]:
    """Yield a line of titles and a line for each thing, with the test of a kept database."""
    yield _ROW.format("name", "what", "whose", "time", "").rstrip()
    for thing in sorted(things, key=lambda thing: (thing.what, thing.title, thing.name)):
        time = f"{thing.time.astimezone():%Y-%m-%d %H:%M}" if thing.time else ""
        yield _ROW.format(thing.name, thing.what, thing.state, time, thing.title).rstrip()

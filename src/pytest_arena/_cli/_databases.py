"""The commands `arena databases`."""

from __future__ import annotations

import importlib
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, cast

from pytest_arena._cli import _lines as lines
from pytest_arena._config._project import read_options
from pytest_arena._config._supported import OWN, SUPPORTED, package_of
from pytest_arena.errors import ArenaError

if TYPE_CHECKING:
    import argparse

    from pytest_arena._config._read import Config
    from pytest_arena._product._databases_command import (
        MarkCommands,
        Place,
        PlaceKind,
        ProductCommands,
    )

_FAILED = 1


def list_or_sweep(options: argparse.Namespace) -> int:
    """List the databases, or remove unused databases. Return the exit status.

    The error of a place that fails follows the other places.

    Raises:
        ConfigError: an option has a wrong value.
        ServerError: the named server cannot be used.
    """
    config = read_options(options.database)
    kinds = _place_kinds(config, removes_all=options.everything)
    if options.sweeps:
        return _sweep(kinds, everything=options.everything, is_agreed=options.yes)
    places, failures = _look(kinds)
    text = lines.as_json(places) if options.json else _table(places)
    print(text)  # noqa: T201 - a command prints
    return _status(failures)


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


def _table(places: list[Place]) -> str:
    now = datetime.now(UTC)
    return "\n".join(lines.as_lines(places, now=now))


def _sweep(kinds: list[PlaceKind], *, everything: bool, is_agreed: bool) -> int:
    if everything and not is_agreed:
        # A place that fails here also fails in the sweep, which reports it.
        places, _ = _look(kinds)
        if any(place.things for place in places):
            lines.say(_table(places), "")
            is_agreed = lines.ask(
                "Remove all of this, except what living runs use?",
                is_agreed=False,
                refusal="nothing is removed",
                command="arena databases sweep --all --yes",
            )
            if not is_agreed:
                return _FAILED
    results = []
    failures = []
    for kind in kinds:
        try:
            for result in kind.sweep(everything=everything):
                lines.say(lines.sweep_line(result))
                results.append(result)
        except ArenaError as error:
            failures.append(error)
    lines.say(lines.closing_line(results))
    return _status(failures)


def _status(failures: list[ArenaError]) -> int:
    """Print the errors, and return the exit status."""
    sys.stderr.writelines(f"{failure}\n" for failure in failures)
    return _FAILED if failures else 0


def _place_kinds(config: Config, *, removes_all: bool) -> list[PlaceKind]:
    """Return the kinds of places in the order of the output."""
    places: list[PlaceKind] = []
    caches: list[PlaceKind] = []
    for product in SUPPORTED:
        commands = cast("ProductCommands", _commands_of(product))
        of_runs, of_cache = commands.place_kinds(config, removes_all=removes_all)
        places += of_runs
        caches += of_cache
    return [*places, *caches]


def mark(options: argparse.Namespace) -> int:
    """Mark a database after a yes. Return the exit status. Raises as ``MarkCommands`` do."""
    commands = cast("MarkCommands", _commands_of(OWN.name))
    return commands.mark(
        options.url, is_agreed=options.yes, say=lines.say, ask=lines.ask
    )


def unmark(options: argparse.Namespace) -> int:
    """Remove the mark of a database. Return the exit status. Raises as ``mark`` does."""
    commands = cast("MarkCommands", _commands_of(OWN.name))
    return commands.unmark(options.url, say=lines.say)


def _commands_of(product: str) -> object:
    return importlib.import_module(f"{package_of(product)}.commands")

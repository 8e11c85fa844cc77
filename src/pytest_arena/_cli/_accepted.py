"""Which steps have been looked at, and are agreed to from now on?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_arena._evidence import Lock, Mapping
from pytest_arena._specs import Index, Specification
from pytest_arena.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from pytest_arena._evidence import Document

__all__ = ["accept"]


def accept(
    document: Document, keys: Sequence[str], *, path: Path, is_dry: bool = False
) -> Iterator[str]:
    """Write the scenarios' present steps to the lock file; no keys: those of all that have a test.

    Yields the difference of the steps that is being accepted, and the markers to paste where a
    test names its reviewed version itself. A dry run writes nothing.

    Raises:
        ScenarioError: no scenario is known by such a key, or the lock file is broken.
        ConfigError: the lock file cannot be written.
    """
    specification = _specification(document)
    keys = keys or [one.scenario.key for one in document.scenarios if one.tests]
    lock, difference = Lock.read(path).accepted(
        document, keys, specification, list(_mappings(document))
    )
    yield from difference
    yield from _markers(document, Index(specification), keys)
    if not is_dry:
        _write(path, lock.text())
    written = f"would be written to {path.name}" if is_dry else f"written to {path.name}"
    yield f"{len(keys)} scenario{'s' * (len(keys) != 1)} {written}"


def _specification(document: Document) -> Specification:
    return Specification(scenarios=tuple(one.scenario for one in document.scenarios))


def _mappings(document: Document) -> Iterator[Mapping]:
    for one in document.scenarios:
        for test in one.tests:
            yield Mapping(
                test=test.test,
                place=test.place,
                scenario=one.scenario.key,
                row=test.row,
                rev=test.rev,
                source=test.source,
            )


def _markers(document: Document, index: Index, keys: Sequence[str]) -> Iterator[str]:
    """What has to be written into the tests: a marker's own version stands above the lock file."""
    for one in document.scenarios:
        scenario = one.scenario
        for test in one.tests:
            if scenario.key in keys and test.rev not in {"", scenario.rev}:
                yield f"{test.place}: its marker names {test.rev}; paste:"
                yield f"    {index.marker(scenario, rev=scenario.rev, row=test.row)}"


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written: {error.strerror or error}",
            why="it keeps which steps have been looked at",
            cause="arena_scenario_lock names this file",
            fix="arena_scenario_lock = scenarios.lock",
        ) from error

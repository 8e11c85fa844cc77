"""Which steps have been looked at, and are agreed to from now on?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_arena._cli._agreed import write_agreed
from pytest_arena._cli._named import named
from pytest_arena._evidence import Lock, Mapping
from pytest_arena._specs import Index, Specification

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from pytest_arena._evidence import Document

__all__ = ["accept"]


def accept(
    document: Document, names: Sequence[str], *, path: Path, is_dry: bool = False
) -> Iterator[str]:
    """Write the scenarios' present steps to the lock file; no names: those of all with a test.

    Yields the difference of the steps that is being accepted, and the markers to paste where a
    test names its reviewed version itself. A dry run writes nothing.

    Raises:
        ScenarioError: no scenario is known by such a key, or the lock file is broken.
        ConfigError: the lock file cannot be written.
    """
    specification = _specification(document)
    index = Index(specification)
    keys = [named(name, index).key for name in names]
    before = Lock.read(path)
    lock, difference = before.accepted(document, keys, specification, list(_mappings(document)))
    yield from difference
    yield from _markers(document, index, keys)
    if lock.text() == before.text():
        yield f"{path.name} says so already"
    elif is_dry:
        yield f"{path.name} would be written"
    else:
        write_agreed(path, lock.text(), option="arena_scenario_lock")
        yield f"{path.name} written"


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
            is_meant = not keys or scenario.key in keys
            if is_meant and test.rev not in {"", scenario.rev}:
                yield f"{test.place}: its marker names {test.rev}; paste:"
                yield f"    {index.marker(scenario, rev=scenario.rev, row=test.row)}"

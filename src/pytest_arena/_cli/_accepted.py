"""Which steps have been looked at, and are agreed to from now on?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_arena._cli._agreed import write_agreed
from pytest_arena._cli._named import named
from pytest_arena.scenarios.evidence import Lock, Mapping
from pytest_arena.scenarios.specs import Index, Specification

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from pytest_arena.scenarios.evidence import Document

__all__ = ["accept", "outdated"]


def accept(
    document: Document, names: Sequence[str], *, path: Path, is_dry: bool = False
) -> Iterator[str]:
    """Write the scenarios' present steps to the lock file; no names: those of all with a test.

    Yields the markers to paste where a test names an older version itself, which stands above the
    file, and the difference of the steps that is being accepted. A dry run writes nothing.

    Raises:
        ScenarioError: no scenario is known by such a key, or the lock file is broken.
        ConfigError: the lock file cannot be written.
    """
    specification = _specification(document)
    index = Index(specification)
    keys = [named(name, index, verb="accept").key for name in names]
    before = Lock.read(path)
    lock, difference = before.accepted(document, keys, specification, list(_mappings(document)))
    yield from outdated(document, names)
    yield from difference
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


def outdated(document: Document, names: Sequence[str]) -> Iterator[str]:
    """Yield which markers name an older version themselves, each with the marker to paste.

    Their scenarios are DRIFTED until that is done, whatever the lock file says.
    """
    index = Index(_specification(document))
    keys = {named(name, index, verb="accept").key for name in names}
    for one in document.scenarios:
        scenario = one.scenario
        revs = {"", scenario.rev, *(row.rev for row in scenario.rows)}
        for test in one.tests if not keys or scenario.key in keys else ():
            if test.rev not in revs:
                yield f"{test.place}: its marker names rev={test.rev!r}, and has to change; paste:"
                yield f"    {index.marker(scenario, rev=scenario.rev, row=test.row)}"

"""Which tests are lacking, and into which files do they go?"""

from __future__ import annotations

import unicodedata
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from pytest_arena.scenarios.stubs._files import Place, StubFile, find_place
from pytest_arena.scenarios.stubs._layout import in_triple_quotes
from pytest_arena.scenarios.stubs._names import own_slugs
from pytest_arena.scenarios.stubs._tests import TestWriter

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from pytest_arena._values import Route
    from pytest_arena.scenarios.specs import Index, Scenario, Specification

__all__ = ["stubs"]


def stubs(
    specification: Specification,
    *,
    index: Index,
    folder: Path | None = None,
    mapped: Collection[str] = (),
    routes: Sequence[Route] | None = None,
    runner: str = "",
    elsewhere: Collection[str] = (),
) -> tuple[StubFile, ...]:
    """Return what is to be written for each scenario to have a test.

    One file for each feature, one async test for each scenario. Each fails as a stub until it is
    written. Nothing is written here, and nothing that is there would be changed: tests are added
    at the end of a feature's file, or go into one with a number where it cannot take them.

    Args:
        specification: scenarios with an error in them get no test.
        index: says how a marker names a scenario.
        folder: where the files are, or will be; None for those of an empty folder.
        mapped: keys of the scenarios that have a test.
        routes: those of the app, None where it is not known.
        runner: the marker that async tests need to be run: ``asyncio``, ``anyio`` or none.
        elsewhere: names of test modules in other folders.
    """
    writer = TestWriter(index, routes=routes, runner=runner)
    names = own_slugs(map(_feature, specification.scenarios))
    files: dict[str, list[Scenario]] = {}
    for scenario in _without_test(specification, mapped):
        files.setdefault(names[_feature(scenario)], []).append(scenario)
    return tuple(
        _stub_file(name, scenarios, folder=folder, writer=writer, elsewhere=elsewhere)
        for name, scenarios in files.items()
    )


def _without_test(specification: Specification, mapped: Collection[str]) -> Iterator[Scenario]:
    wrong = {problem.scenario for problem in specification.problems if problem.is_error}
    for scenario in specification.scenarios:
        if scenario.key not in wrong and scenario.key not in mapped:
            yield scenario


def _feature(scenario: Scenario) -> str:
    """Its name; features of one name are the same, whichever files they stand in."""
    name = " ".join(unicodedata.normalize("NFC", scenario.feature).split())
    return name or PurePosixPath(scenario.spec).stem


def _stub_file(
    name: str,
    scenarios: Sequence[Scenario],
    *,
    folder: Path | None,
    writer: TestWriter,
    elsewhere: Collection[str],
) -> StubFile:
    new = Place(Path(f"test_{name}.py"))
    place = find_place(folder, name, elsewhere=elsewhere) if folder else new
    taken = {*place.names, "pytest"}
    text = "\n\n".join(writer.test(scenario, taken=taken) for scenario in scenarios)
    text = f"{place.gap}{text}" if place.text else f"{_head(scenarios[0], text)}{text}"
    return StubFile(place.path, text.replace("\n", place.newline), len(scenarios), place.is_new)


def _head(scenario: Scenario, text: str) -> str:
    # Two empty lines after imports, but one before a value: so isort has it.
    gap = "\n\n" if text.startswith("@") else "\n"
    feature = in_triple_quotes(_feature(scenario))
    return f'"""Scenarios of the feature {feature}."""\n\nimport pytest\n{gap}'

"""Finds the scenarios that the markers of tests name, and writes the missing tests."""

from __future__ import annotations

import difflib
import json
import re
import unicodedata
from itertools import groupby
from typing import TYPE_CHECKING, Any

from pytest_arena._values import CodeLine, counted
from pytest_arena.errors import ScenarioError
from pytest_arena.scenarios._specs import ScenarioSpec, canonical, row_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import pytest

    from pytest_arena.scenarios._specs import Specification

NO_SEED = "@no-seed"
"""The tag of a scenario whose Given needs no row."""
NO_REQUEST = "@no-request"
"""The tag of a scenario without a request, such as of a command or a nightly job."""

_MOST_NAMES = 3
_LONGEST = 60  # letters of a name


def scenarios_of(item: pytest.Item, specification: Specification) -> list[ScenarioSpec]:
    """Return the scenarios that a test proves: none without a marker."""
    found: dict[str, ScenarioSpec] = {}
    for marker in item.iter_markers("scenario"):
        place = str(CodeLine.of_test(item))
        if len(marker.args) != 1 or marker.kwargs:
            raise ScenarioError(
                "the marker scenario has other arguments than one name",
                why="it names no scenario",
                cause=place,
                fix='@pytest.mark.scenario("the name of a scenario")',
            )
        named = _named(canonical(str(marker.args[0])), specification, place)
        for scenario in _of_row(named, item, place):
            found[scenario.key] = scenario
    return [*found.values()]


def _named(name: str, specification: Specification, place: str) -> list[ScenarioSpec]:
    """Return the scenario of a name, or all rows of an outline."""
    found = specification.by_name.get(name, [])
    outlines = {(scenario.feature, scenario.template): scenario for scenario in found}
    if not found:
        by_name = {each.template: each for each in specification.scenarios}
        near = difflib.get_close_matches(name, by_name, n=_MOST_NAMES)
        nearest = [by_name[each] for each in near]
        fixes = [f"{marker(each, specification)}   ({each.place})" for each in nearest]
        raise ScenarioError(
            f"no scenario is called {name!r}",
            why="the test proves no scenario of a specification",
            cause=place,
            fix="\n".join(fixes) or "arena scenarios list SPEC   lists the names",
        )
    if len(outlines) > 1:
        places = [scenario.place for scenario in outlines.values()]
        raise ScenarioError(
            f"several scenarios are called {name!r}",
            why="the test could not say which one it proves",
            cause="\n".join([place, *places]),
            fix="\n".join(marker(each, specification) for each in outlines.values()),
        )
    return found


def marker(scenario: ScenarioSpec, specification: Specification) -> str:
    """Return the marker of a scenario, with its feature if the name needs it."""
    others = {
        each.feature
        for each in specification.scenarios
        if scenario.template in {each.template, each.name}
    }
    name = scenario.template
    if len(others) > 1:
        name = f"{scenario.feature} :: {name}"
    return f"@pytest.mark.scenario({quoted(name)})"


def quoted(text: str) -> str:
    """Return the code of a text, in double quotes."""
    return json.dumps(text, ensure_ascii=False)


def _of_row(named: list[ScenarioSpec], item: pytest.Item, place: str) -> list[ScenarioSpec]:
    """Return the scenarios with the values of the test's parameters."""
    if len(named) == 1:
        return named
    names = {words(column): column for column, _ in named[0].row}
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    values = {}
    for name, value in parameters.items():
        if name in names:
            values[names[name]] = str(value).casefold()
    steps = " ".join(step.template for step in named[0].steps)
    lacking = {each for each in names.values() if f"<{each}>" in steps} - values.keys()
    found = []
    for each in named:
        row = {column: value.casefold() for column, value in each.row}
        if values and not lacking and values.items() <= row.items():
            found.append(each)
    if not found:
        rows = [f"{each.place}  {row_text(each.row)}" for each in named]
        what = f"no row of the outline has {row_text(tuple(values.items()))}"
        if lacking:
            what = f"no parameter is called {', '.join(map(words, sorted(lacking)))}"
        raise ScenarioError(
            f"{item.name}: {what}",
            why="each row is a scenario, and needs a test with its values",
            cause="\n".join([place, *rows]),
            fix=f'@pytest.mark.parametrize("{", ".join(names)}", […])',
        )
    return found


def words(text: str) -> str:
    """Return the words of a text in small letters, joined by ``_``, for the name of a function."""
    return re.sub(r"\W+", "_", unicodedata.normalize("NFKC", text).lower()).strip("_")


def needs_seed(scenario: ScenarioSpec) -> bool:
    """Return whether a scenario has a Given that rows or a login must fulfil."""
    return bool(scenario.kinds("given")) and NO_SEED not in scenario.tags


def write_stubs(
    specification: Specification,
    tests: Mapping[str, Sequence[str]],
    folder: Path,
    config: Any,
) -> list[str]:
    """Write the missing tests, a file for each feature. Return a line for each file.

    New tests are added at the end of an existing file. No existing line changes.
    """
    mapped = {key for keys in tests.values() for key in keys}
    missing = [each for each in specification.scenarios if each.key not in mapped]
    lines = []
    for feature, group in groupby(missing, lambda scenario: scenario.feature):
        path = folder / f"test_{words(feature)[:_LONGEST]}.py"
        old = path.read_text(encoding="utf-8") if path.exists() else ""
        names = set(re.findall(r"^(?:async )?def (\w+)", old, re.MULTILINE))
        texts = []
        # The rows of an outline have one test.
        for _, rows in groupby(group, lambda scenario: (scenario.template, scenario.spec)):
            texts.append("\n".join(_test([*rows], specification, names, config)))
        title = feature.replace("\\", "").replace('"', "'")
        head = "" if old else f'"""Scenarios of the feature {title}."""\n'
        if not re.search(r"^import pytest$", old, re.MULTILINE):
            head += "\nimport pytest\n"
        folder.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(head + "".join(f"\n\n{text}\n" for text in texts))
        lines.append(f"{path}: {counted(len(texts), 'test')} written")
    return lines or ["every scenario has a test: there is nothing to write"]


def _test(
    rows: list[ScenarioSpec],
    specification: Specification,
    names: set[str],
    config: Any,
) -> Iterator[str]:
    first = rows[0]
    name = f"test_{words(first.template).removeprefix('test_')[:_LONGEST]}"
    while name in names:
        name += "_2"
    names.add(name)
    runner = "anyio"
    if any(map(config.pluginmanager.hasplugin, ("asyncio", "pytest_asyncio.plugin"))):
        runner = "asyncio"
    if runner == "anyio" or config.getini("asyncio_mode") != "auto":
        yield f"@pytest.mark.{runner}"
    yield marker(first, specification)
    columns = [words(column) for column, _ in first.row]
    if columns:
        values = [", ".join(quoted(value) for _, value in row.row) for row in rows]
        if len(columns) > 1:
            values = [f"({each})" for each in values]
        names_shown = quoted(", ".join(columns))
        yield f"@pytest.mark.parametrize({names_shown}, [{', '.join(values)}])"
    fixtures = []
    if NO_REQUEST not in first.tags:
        fixtures.append("client")
    if needs_seed(first):
        fixtures.append("db_session")
    yield f"async def {name}({', '.join([*fixtures, 'scenario', *columns])}):"
    yield f'    """{first.spec}"""'
    for step in first.steps:
        yield f"    with scenario.{step.kind}({quoted(step.template)}):"
        yield "        scenario.todo()"

"""Writes a failing test for each scenario that no test names."""

from __future__ import annotations

import re
from itertools import groupby
from typing import TYPE_CHECKING, Any

from pytest_arena._values import counted
from pytest_arena.scenarios._markers import (
    NO_REQUEST,
    identifier,
    marker,
    needs_seed,
    quoted,
    words,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from pytest_arena.scenarios._specs import ScenarioSpec, Specification

_LONGEST = 60  # letters of a name


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
        names = _names(old)
        texts = []
        # The rows of an outline have one test.
        for _, rows in groupby(
            group, lambda scenario: (scenario.template, scenario.spec)
        ):
            texts.append("\n".join(_test([*rows], specification, names, config)))
        head = ""
        if not old:
            title = feature.replace("\\", "").replace('"', "'")
            head = f'"""Scenarios of the feature {title}."""\n\nimport pytest\n\n\n'
        gap = "\n\n" if old else ""
        folder.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(head + gap + "\n\n\n".join(texts) + "\n")
        lines.append(f"{path}: {counted(len(texts), 'test')} written")
    return lines or ["every scenario has a test: there is nothing to write"]


def _names(text: str) -> set[str]:
    """Return the names of the functions of a module."""
    return set(re.findall(r"^(?:async )?def (\w+)", text, re.MULTILINE))


def _test(
    rows: list[ScenarioSpec],
    specification: Specification,
    names: set[str],
    config: Any,
) -> Iterator[str]:
    first = rows[0]
    base = f"test_{words(first.template).removeprefix('test_')[:_LONGEST]}"
    name = base
    number = 1
    while name in names:
        number += 1
        name = f"{base}_{number}"
    names.add(name)
    runner = _runner(config)
    if runner in {"asyncio", "anyio"}:
        yield f"@pytest.mark.{runner}"
    yield marker(first, specification)
    columns = [identifier(column) for column, _ in first.row]
    if columns:
        values = [", ".join(quoted(value) for _, value in row.row) for row in rows]
        if len(columns) > 1:
            values = [f"({each})" for each in values]
        names_shown = quoted(", ".join(columns))
        yield f"@pytest.mark.parametrize({names_shown}, [{', '.join(values)}])"
    arguments = ["scenario", *columns]
    if needs_seed(first):
        arguments.insert(0, "db_session")
    if NO_REQUEST not in first.tags:
        arguments.insert(0, "client" if runner else "test_client")
    definition = "async def" if runner else "def"
    yield f"{definition} {name}({', '.join(arguments)}):"
    yield f'    """{first.spec}"""'
    for step in first.steps:
        yield f"    with scenario.{step.kind}({quoted(step.template)}):"
        for more in step.more:
            yield f"        # {more!r}"
        yield "        scenario.todo()"


def _runner(config: Any) -> str:
    """Return the marker that async tests need: ``auto`` for none, "" for plain tests."""
    plugins = {
        name.partition(".")[0] for name, _ in config.pluginmanager.list_name_plugin()
    }
    if plugins & {"asyncio", "pytest_asyncio"}:
        is_auto = str(config.getini("asyncio_mode")) == "auto"
        return "auto" if is_auto else "asyncio"
    return "anyio" if "anyio" in plugins else ""

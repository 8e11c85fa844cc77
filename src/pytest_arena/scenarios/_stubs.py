"""Writes a failing test for each scenario that no test names."""

from __future__ import annotations

import ast
import re
import unicodedata
from hashlib import blake2b
from itertools import count, groupby
from typing import TYPE_CHECKING, Any

from pytest_arena._values import counted
from pytest_arena.scenarios._markers import (
    NO_REQUEST,
    identifier,
    marker,
    needs_seed,
    quoted,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from pytest_arena.scenarios._specs import ScenarioSpec, Specification

_LONGEST = 60  # letters of a name
_WIDTH = 88


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
        path = _path(folder, feature)
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


def _path(folder: Path, feature: str) -> Path:
    """Return the file for a feature: new, or one that imports pytest."""
    name = f"test_{slug(feature)}"
    for number in count(1):
        path = folder / (f"{name}.py" if number == 1 else f"{name}_{number}.py")
        if not path.exists():
            return path
        if re.search(
            r"^import pytest$", path.read_text(encoding="utf-8"), re.MULTILINE
        ):
            return path
    raise AssertionError("numbers do not end")


def _names(text: str) -> set[str]:
    """Return the names of the functions of a module."""
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return set()
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in ast.walk(tree) if isinstance(node, functions)}


def _test(
    rows: list[ScenarioSpec],
    specification: Specification,
    names: set[str],
    config: Any,
) -> Iterator[str]:
    first = rows[0]
    name = f"test_{slug(first.template).removeprefix('test_')}"
    number = 1
    while name in names:
        number += 1
        name = f"test_{slug(first.template).removeprefix('test_')}_{number}"
    names.add(name)
    runner = _runner(config)
    if runner in {"asyncio", "anyio"}:
        yield f"@pytest.mark.{runner}"
    yield marker(first, specification)
    columns = [identifier(column) for column, _ in first.row]
    if len(rows) > 1 or columns:
        yield "@pytest.mark.parametrize("
        yield f"    {quoted(', '.join(columns))},"
        yield "    ["
        for row in rows:
            values = ", ".join(quoted(value) for _, value in row.row)
            yield f"        ({values})," if len(columns) > 1 else f"        {values},"
        yield "    ],"
        yield ")"
    arguments = ["scenario", *columns]
    if needs_seed(first):
        arguments.insert(0, "db_session")
    if NO_REQUEST not in first.tags:
        arguments.insert(0, "client" if runner else "test_client")
    definition = "async def" if runner else "def"
    line = f"{definition} {name}({', '.join(arguments)}):"
    if len(line) > _WIDTH:
        inner = "".join(f"\n    {argument}," for argument in arguments)
        line = f"{definition} {name}({inner}\n):"
    yield line
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


def slug(text: str) -> str:
    """Return small ASCII words, joined by ``_``, for the name of a file or a function.

    A text that loses letters gets its hash, so names in another alphabet stay different.
    """
    text = " ".join(unicodedata.normalize("NFC", text).split())
    plain = re.sub(r"[\u0300-\u036f]", "", unicodedata.normalize("NFKD", text))
    plain = re.sub(r"[^\w\s]|_", " ", plain)
    words = "_".join(re.findall(r"[a-z0-9]+", plain.lower()))
    if words and plain.isascii() and len(words) <= _LONGEST:
        return words
    digest = blake2b(text.encode(), digest_size=4).hexdigest()
    return "_".join(filter(None, (words[:_LONGEST].rstrip("_"), digest)))
